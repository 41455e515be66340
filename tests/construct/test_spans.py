"""Trajectories as traces, up to MLflow itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from data_project import Project, new_project, play_generators
from sample_trajectories import odd_ones, trajectory

from interloom.construct import spans, store
from interloom.records import Trajectory
from interloom.runner import run_stage
from interloom.stages import find_stage
from interloom.tracking import Span


def calls_of(made: Trajectory) -> list[tuple[float, float]]:
    attempts = [a for trace in made.steps for a in trace.attempts]
    count = 1 + sum(1 + (a.image is not None) for a in attempts)
    return [(float(n), n + 0.5) for n in range(count)]


def tree(span: Span) -> list[Any]:
    return [span.name, *(tree(part) for part in span.parts)]


def test_planner_generator_critic_in_order_of_time():
    made = trajectory("r", ((False, True), (True,)))
    span = spans.trace_of(made, calls_of(made))
    assert tree(span) == [
        "request r",
        ["planner"],
        ["step 1 part 1", ["strong"], ["critic"], ["strong"], ["critic"]],
        ["step 2 part 2", ["strong"], ["critic"]],
    ]
    flat = [part for step in span.parts[1:] for part in step.parts]
    assert [part.began for part in flat] == [1, 2, 3, 4, 5, 6]
    assert (span.began, span.ended) == (0, 6.5)
    assert (span.parts[1].began, span.parts[1].ended) == (1, 4.5)
    assert flat[1].outputs["refine_prompt"] == "add part 1 of r!"
    assert json.dumps(dataclasses.asdict(flat[5])).count("data:image/png") == 2


def test_odd_ones_say_what_failed():
    scored, unplanned, stopped, unjudged, told = (
        spans.trace_of(made, calls_of(made)) for made in odd_ones()
    )
    assert scored.error == told.error == ""
    assert unplanned.error == unplanned.parts[0].error == "planner: empty-plan"
    assert stopped.error == stopped.parts[1].parts[0].error == "generator: timeout"
    assert stopped.parts[1].outputs == {} and len(stopped.parts[1].parts) == 1
    assert unjudged.error == "" and unjudged.parts[1].parts[1].error == "critic: unparsable"
    assert tree(told) == ["request told", ["planner"]]
    assert [entry["text"] for entry in told.outputs["sequence"]] == ["text 1", "text 2"]


def test_a_stages_traces_and_page_are_in_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from mlflow.tracking import MlflowClient

    play_generators(monkeypatch)
    settings = new_project(tmp_path).settings
    settings = settings.model_copy(
        update={
            "prompts": settings.prompts.model_copy(update={"count": 24}),
            "trajectories": settings.trajectories.model_copy(update={"shown": 5}),
        }
    )
    Project(tmp_path, settings).run("prompts")
    run_stage(find_stage("trajectories"), settings, tmp_path)

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "interloom"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert [f.path for f in client.list_artifacts(run.info.run_id, "gallery")] == [
        "gallery/trajectories.html"
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    traces = client.search_traces(
        locations=[experiment.experiment_id], run_id=run.info.run_id, max_results=100
    )
    made = {t.request.id: t for t in store.read_trajectories(tmp_path / "outputs/trajectories")}
    assert len(traces) == 5
    for trace in traces:
        one = made[trace.info.tags["interloom.request"]]
        assert trace.info.tags["interloom.category"] == one.request.category
        attempts = [a for step in one.steps for a in step.attempts]
        names = [span.name for span in trace.data.spans]
        assert names.count("planner") == 1 and names.count("critic") == len(attempts)
        drawn = [span for span in trace.data.spans if span.span_type == "TOOL"]
        assert len(drawn) == len(attempts)
        for span in drawn:
            assert span.outputs["picture"].startswith("mlflow-attachment://")
        began = run.info.start_time * 10**6
        assert all(began <= span.start_time_ns <= span.end_time_ns for span in trace.data.spans)
    assert list((tmp_path / "mlruns").rglob("attachments/*"))
