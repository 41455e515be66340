"""The flow machinery on the tiny stages, against a real Prefect server, killed in every way."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flows_server import ask, newest_run, outermost_run, seconds_until_gone, stage_of
from tiny_project.project import HERE, Project, copy_project

FLOW = (sys.executable, str(HERE / "tiny_flow.py"))


@pytest.fixture
def server(prefect_server_env: dict[str, str]) -> dict[str, str]:
    return prefect_server_env


@pytest.fixture
def tiny(project: Project, server: dict[str, str]) -> Project:
    return Project(project.root, project.env | server)


def artifacts_of(server: dict[str, str], run: UUID) -> list[Any]:
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    return ask(server, lambda c: c.read_artifacts(artifact_filter=wanted, limit=100))


def test_run_then_cached(tiny: Project, server: dict[str, str]) -> None:
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    first = tiny.run(*FLOW)
    assert "{'numbers': 'Completed', 'squares': 'Completed', 'total': 'Completed'}" in first.stdout
    assert len(tiny.outputs()) == 6
    run = newest_run(server)
    logs = ask(
        server, lambda c: c.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))
    )
    assert any(log.message == "squares: starting at 0" for log in logs)
    assert not any("git add" in log.message for log in logs)
    kinds = {(artifact.type, artifact.key) for artifact in artifacts_of(server, run.id)}
    assert ("progress", "squares-square") in kinds
    assert ("table", "squares-result") in kinds
    assert ("table", "squares-files") in kinds
    assert ("image", "squares-dot") in kinds
    second = tiny.run(*FLOW)
    assert "{'numbers': 'Cached', 'squares': 'Cached', 'total': 'Cached'}" in second.stdout


def test_runs_in_mlflow_lead_to_the_flow_run(
    project_template: Path, tmp_path: Path, server: dict[str, str]
) -> None:
    from mlflow.tracking import MlflowClient

    project = copy_project(project_template, tmp_path / "project", track=True)
    project.run(*FLOW, **server)
    run = newest_run(server)
    client = MlflowClient(f"sqlite:///{project.root}/mlflow.db")
    found = client.get_experiment_by_name("interloom")
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    assert len(runs) == 4
    assert {item.data.tags["prefect.flow_run_id"] for item in runs} == {str(run.id)}
    assert {item.data.tags["interloom.lifecycle"] for item in runs} == {str(run.id)}
    assert all(str(run.id) in item.data.tags["prefect.flow_run_url"] for item in runs)
    links = {
        artifact.key: artifact.data
        for artifact in artifacts_of(server, run.id)
        if artifact.type == "markdown"
    }
    for item in runs:
        if item.data.tags["interloom.kind"] == "stage":
            name = item.data.tags["interloom.stage"]
            assert f"/#/runs/{item.info.run_id})" in links[f"{name}-mlflow"]


def test_users_error_is_not_tried_again(tiny: Project, server: dict[str, str]) -> None:
    done = tiny.run(*FLOW, "retries=2", check=False, TINY_FAIL_AT="1")
    assert done.returncode != 0
    assert done.stderr.count("squares: starting at") == 1
    assert "told to fail at 1" in done.stderr
    assert newest_run(server).state_name == "Failed"
    assert tiny.leftovers() == []


def test_other_failure_is_tried_again_and_resumes(tiny: Project) -> None:
    """The stage is killed from outside once; the retry goes on from its checkpoint."""
    process = tiny.start(*FLOW, "retries=1", TINY_PAUSE="0.4")
    stage_of(tiny, "squares").kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    starts = set(re.findall(r"squares: starting at (\d)", output))
    assert len(starts) == 2, "once from the start, once from the checkpoint"


def test_timeout_kills_the_group(tiny: Project, server: dict[str, str]) -> None:
    limit = {"timeout_minutes": 0.15, "retries": 0}
    tiny.set_params(orchestration={"stages": {"numbers": limit}})
    process = tiny.start(*FLOW, TINY_PAUSE="60")
    stage = stage_of(tiny, "numbers")
    assert seconds_until_gone(stage, 25) < 20
    output, _ = process.communicate(timeout=30)
    assert "took longer than 9 s" in output
    assert newest_run(server).state.is_failed()
    assert tiny.leftovers() == []


@pytest.mark.parametrize("nested", [0, 1])
def test_cancelled_in_the_ui(tiny: Project, server: dict[str, str], nested: int) -> None:
    """A run started from a terminal has no worker: it watches its own state."""
    from prefect.states import Cancelling

    process = tiny.start(*FLOW, f"nested={nested}", TINY_PAUSE="60")
    stage = stage_of(tiny, "numbers")
    run = outermost_run(server)
    ask(server, lambda c: c.set_flow_run_state(run.id, Cancelling()))
    took = seconds_until_gone(stage, 5)
    print(f"cancel to end of the stage: {took:.1f} s")
    process.communicate(timeout=30)
    assert outermost_run(server).state.is_cancelled()
    assert tiny.outputs() == {}
    assert tiny.leftovers() == []


@pytest.mark.parametrize("nested", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_flow_process_ends(tiny: Project, number: signal.Signals, nested: int) -> None:
    """However the flow's process ends, its stages end within 5 s."""
    process = tiny.start(*FLOW, f"nested={nested}", TINY_PAUSE="60")
    stage = stage_of(tiny, "numbers")
    process.send_signal(number)
    seconds_until_gone(stage, 5)
    process.communicate(timeout=30)
    assert tiny.outputs() == {}
