"""Traces of served requests, feedback on them, and the way back into training."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from data_project import DATA_STAGES, Project, play_generators, small_settings
from served import ROOT, pipeline
from taught_umm import DIRECT, MULTI_STEP, REFLECTION, STEP_TEXTS
from typer.testing import CliRunner

from interloom.adaptive import files
from interloom.construct import critic_data, store
from interloom.digests import digest
from interloom.errors import InterloomError
from interloom.serve import feedback
from interloom.serve.reasoner import Reasoner
from interloom.serve.traces import RESPONSE_TAG
from interloom.settings.file import change_params, load_settings
from interloom.stages import find_stage

TEXTS = [
    f"a {colour} {kind} at the {place}, a blue cup at the center"
    for colour, kind, place in (
        ("red", "circle", "top left"),
        ("green", "tree", "top right"),
        ("yellow", "sun", "bottom left"),
        ("red", "star", "top center"),
        ("purple", "house", "bottom right"),
    )
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a tracking store of its own; also the working directory."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    change_params(tmp_path / "params.yaml", ["tracking.experiment=serving-test"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def uri(root: Path) -> str:
    return f"sqlite:///{root / 'mlflow.db'}"


def ask(at, text: str, **more: Any) -> dict[str, Any]:
    body = {"input": text, "seed": 1, "include_attempts": True, **more}
    return at.http.post("/v1/responses", json=body).json()


def judge(at, response: dict[str, Any], **given: Any) -> int:
    path = f"/interloom/results/{response['id']}/feedback"
    return at.http.post(path, json=given).status_code


def traces(root: Path) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri(root))
    experiment = client.get_experiment_by_name("serving-test-serving")
    assert experiment is not None
    return list(client.search_traces(locations=[experiment.experiment_id]))


def test_every_request_is_a_trace(start, project: Path):
    at = start(pipeline(faults=0.4), traces=uri(project), experiment="serving-test-serving")
    made = ask(at, TEXTS[0], metadata={"who": "me"})
    failed = ask(at, "frobnicate the quux")
    private = ask(at, TEXTS[1], store=False)
    at.service.traces.close()
    found = {trace.info.tags[RESPONSE_TAG]: trace for trace in traces(project)}
    assert found.keys() == {made["id"], failed["id"], private["id"]}
    trace = found[made["id"]]
    assert trace.info.tags["metadata.who"] == "me"
    spans = [span.name for span in trace.data.spans]
    images = made["interloom"]["images"]
    assert spans.count("request") == spans.count("planner") == 1
    assert spans.count("generator") == spans.count("critic") == images
    (root,) = [span for span in trace.data.spans if span.parent_id is None]
    assert root.inputs["text"] == TEXTS[0]
    for span in trace.data.spans:
        assert root.start_time_ns <= span.start_time_ns <= span.end_time_ns <= root.end_time_ns
    drawn = next(span for span in trace.data.spans if span.name == "generator")
    assert drawn.outputs["image"].startswith("mlflow-attachment://")
    assert drawn.attributes["batch"] == "1"
    found_again = feedback.root_of(trace)
    assert found_again is not None
    rebuilt = found_again[0]
    assert rebuilt.request.id == f"feedback/{made['id']}"
    attempts = [attempt for step in rebuilt.steps for attempt in step.attempts]
    assert len(attempts) == images and all(attempt.image for attempt in attempts)
    assert str(found[failed["id"]].info.state) == "ERROR"
    told = json.dumps(found[private["id"]].to_dict(), default=str)
    assert TEXTS[1] not in told and "attachment" not in told


def test_accepted_stories_are_learned(start, project: Path, reasoner: Reasoner):
    at = start(reasoner, traces=uri(project), experiment="serving-test-serving")
    first, again = ask(at, MULTI_STEP), ask(at, MULTI_STEP)
    for made in (first, again):  # one story, told twice
        assert judge(at, made, step=1, accept=False) == 200
        assert judge(at, made, step=3, accept=True) == 200
    mended = ask(at, REFLECTION)
    assert judge(at, mended, step=1, attempt=1, accept=True) == 200
    bad = ask(at, DIRECT)
    assert judge(at, bad, step=1, accept=True) == 200
    assert judge(at, bad, step=1, accept=False) == 200  # the last word counts
    kind = ask(at, MULTI_STEP)
    assert judge(at, kind, step=1, accept=True) == 200  # the model sent it back
    assert judge(at, kind, step=3, accept=True) == 200
    half = ask(at, MULTI_STEP, image_budget=2)
    assert judge(at, half, step=2, accept=True) == 200
    at.service.traces.close()
    words = ["feedback", "export", "--no-track", "--system", "adaptive"]
    done = CliRunner().invoke(_app(), words)
    assert done.exit_code == 0, done.output
    (exported,) = (project / "feedback").iterdir()
    learned = files.read_feedback(exported)
    assert sorted(story.mode for story in learned) == ["multi_step", "reflection"]
    assert {story.prompt.id for story in learned} <= {
        f"feedback/{made['id']}" for made in (first, again, mended)
    }
    assert "left out, duplicate: 1" in done.output and "left out, no story: 1" in done.output
    assert "left out, not accepted in the end: 1" in done.output
    assert "left out, the model's verdict was another: 1" in done.output
    assert exported.name == f"stories-{digest(exported)[:8]}.parquet"
    wanted = done.output.splitlines()[-1].partition(": interloom ")[2].split()
    assert CliRunner().invoke(_app(), wanted).exit_code == 0
    assert load_settings().sft_adaptive.feedback == f"feedback/{exported.name}"


def test_a_story_is_a_trace_and_no_critic_data(start, project: Path, reasoner: Reasoner):
    at = start(reasoner, traces=uri(project), experiment="serving-test-serving")
    made = ask(at, MULTI_STEP, reluctance=0.5)
    assert judge(at, made, step=1, accept=False, comment="the tree is missing") == 200
    assert judge(at, made, step=3, accept=True) == 200
    at.service.traces.close()
    (trace,) = traces(project)
    assert trace.info.tags["interloom.mode"] == "multi_step"
    spans = sorted(trace.data.spans, key=lambda span: span.start_time_ns)
    assert [span.name for span in spans] == ["request", "encoder", *["reasoner"] * 3]
    root, encoder, *rounds = spans
    assert root.attributes["reluctance"] == "0.5" or root.attributes["reluctance"] == 0.5
    assert encoder.inputs["text"] == MULTI_STEP
    assert [span.inputs["prompt"] for span in rounds] == [MULTI_STEP, *STEP_TEXTS]
    assert all(span.outputs["image"].startswith("mlflow-attachment://") for span in rounds)
    assert [span.outputs["said"]["success"] for span in rounds] == [False, True, True]
    used = rounds[0].attributes["mlflow.chat.tokenUsage"]
    assert used["output_tokens"] > 40
    found = feedback.root_of(trace)
    assert found is not None and len(found[0].steps) == 3
    names = {given.name: given.value for given in trace.info.assessments}
    assert names == {"step 1": False, "step 3": True}
    with pytest.raises(InterloomError, match="of a unified model': 2"):
        feedback.export(load_settings(), project, project)


def test_feedback_closes_the_circle(start, project: Path, tiny_vlm: Path):
    at = start(pipeline(faults=0.5), traces=uri(project), experiment="serving-test-serving")
    given = 0
    for text in TEXTS:
        made = ask(at, text)
        for report in made["interloom"]["steps"]:
            for number, attempt in enumerate(report["attempts"]):
                step = {"step": report["step_number"], "attempt": number}
                assert judge(at, made, **step, accept=attempt["success"]) == 200
                given += 1
    # Said again: the last word counts. And a verdict that is the critic's opposite, with words.
    corrected = ask(at, "a red sun at the top left", seed=3)
    last = {"step": 1, "accept": False, "comment": "too small", "correction": "a large red sun"}
    assert judge(at, corrected, step=1, accept=True) == 200
    assert judge(at, corrected, **last) == 200
    assert judge(at, corrected, step=9, accept=True) == 400
    # The opposite without words: the teacher does not see it so, and the row is left out.
    wrong = ask(at, "a green star at the center", seed=3)
    shown = wrong["interloom"]["steps"][0]["attempts"][-1]["success"]
    assert judge(at, wrong, step=1, accept=not shown) == 200
    assert judge(at, {"id": "resp_unknown"}, step=1, accept=True) == 404
    at.service.traces.close()

    done = CliRunner().invoke(_app(), ["feedback", "export", "--no-track"])
    assert done.exit_code == 0, done.output
    (exported,) = (project / "feedback").iterdir()
    rows = list(store.read_rows(exported))
    assert f"{len(rows)} rows" in done.output and "no right words: 1" in done.output
    assert given >= len(rows) - 1 > 5
    found = next(row for row in rows if row["refine_prompt"] == "a large red sun")
    assert (found["success"], found["reasoning"]) == (False, "too small")
    assert found["step_id"] == f"feedback/{corrected['id']}/1"
    assert {row["success"] for row in rows} == {True, False}
    assert all(row["semantic"] is not None and row["reasoning"] for row in rows)
    # Equal content, equal name: DVC runs nothing anew for an export that changed nothing.
    assert exported.name == f"critic-{digest(exported)[:8]}.parquet"
    again = CliRunner().invoke(_app(), ["feedback", "export", "--no-track"])
    assert again.exit_code == 0 and list(exported.parent.iterdir()) == [exported]
    # What the command says is to be done is done.
    wanted = done.output.splitlines()[-1].partition(": interloom ")[2].split()
    assert CliRunner().invoke(_app(), wanted).exit_code == 0
    trained_on = _train(project, tiny_vlm)
    ours = [row for row in trained_on if row["id"].startswith("feedback/")]
    assert len(trained_on) > len(ours) > 5
    (learned,) = (row for row in ours if row["id"] == found["id"])
    assert learned == found, "the person's words, as they were given"


def _app() -> Any:
    from interloom.cli import app

    return app


def _train(root: Path, tiny_vlm: Path) -> list[dict[str, Any]]:
    """The data stages with the feedback, the gate, the critic's training; the rows of it."""
    feedback = load_settings(root / "params.yaml").critic_data
    small = small_settings().model_copy(update={"critic_data": feedback})
    for name in ("generator", "generator-weak"):
        (root / "data" / name).mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        play_generators(patch)
        Project(root, small).run(*DATA_STAGES)
    path = root / "outputs/critic-data/sft.parquet"
    numbers = json.loads((root / "metrics/critic-data.json").read_text())
    rows = list(store.read_rows(path))
    assert numbers["feedback_rows"] == sum(row["id"].startswith("feedback/") for row in rows)
    # A few of the others suffice to train.
    some = [row for place, row in enumerate(rows) if row["id"].startswith("feedback/") or place < 8]
    store.write_table(path, some, critic_data.critic_schema(), store.about(path))
    _train_critic(root, tiny_vlm)
    return rows


def _train_critic(root: Path, tiny_vlm: Path) -> None:
    from interloom.runner import StageRun
    from interloom.train import sft_critic

    shutil.copytree(tiny_vlm, root / "data/vlm")
    for folder in ("work", "aside"):
        (root / folder).mkdir()
    small = {"micro_batch_size": 4, "batch_size": 4, "max_new_tokens": 8, "held_out": 2,
             "evaluations": 1, "warmup_steps": 0, "threads": 1, "epochs": 1}  # fmt: skip
    settings = load_settings(root / "params.yaml")
    options = settings.sft_critic.model_copy(update=small)
    stage = StageRun(find_stage("sft-critic"), root, root / "work", root / "aside", None)
    sft_critic.run(settings.model_copy(update={"sft_critic": options}), stage)
    assert (stage.out("critic-sft") / "model.safetensors").is_file()


def test_without_feedback_there_is_nothing_to_export(start, project: Path):
    with pytest.raises(InterloomError, match="nothing was served and traced yet"):
        feedback.export(load_settings(), project, project)
    at = start(traces=uri(project), experiment="serving-test-serving")
    ask(at, TEXTS[0])
    at.service.traces.close()
    with pytest.raises(InterloomError, match="no feedback to write"):
        feedback.export(load_settings(), project, project)


def test_the_file_is_tracked_by_dvc(start, project: Path):
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], check=True)
    at = start(pipeline(), traces=uri(project), experiment="serving-test-serving")
    for text in TEXTS:
        assert judge(at, ask(at, text), step=2, accept=True) == 200
    at.service.traces.close()
    done = CliRunner().invoke(_app(), ["feedback", "export"])
    assert done.exit_code == 0, done.output
    (exported,) = (project / "feedback").glob("*.parquet")
    assert exported.with_name(f"{exported.name}.dvc").is_file()
