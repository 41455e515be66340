"""The flow, DVC and MLflow see a stage in pods as they see it here."""

from __future__ import annotations

import signal
import sys

import pytest
from flows_server import ask, newest_run
from kube_project import OnCluster
from tiny_project.project import HERE, Project, wait_for

pytestmark = pytest.mark.timeout(900)
FLOW = (sys.executable, str(HERE / "tiny_flow.py"))


@pytest.fixture
def flowing(on_cluster: OnCluster, prefect_server_env: dict[str, str]) -> OnCluster:
    project = on_cluster.project
    on_cluster.project = Project(project.root, project.env | prefect_server_env)
    return on_cluster


def test_a_killed_flow_is_restarted_and_finds_its_job(
    flowing: OnCluster, prefect_server_env: dict[str, str]
) -> None:
    from mlflow.tracking import MlflowClient
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    flowing.project.set_params(tracking={"enabled": True})
    flowing.image(TINY_PAUSE="1")
    first = flowing.project.start(*FLOW)
    wait_for(flowing.jobs, seconds=250)
    flowing.hold()
    flowing.wait_for_squares()
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    [job] = flowing.jobs()
    assert "deletionTimestamp" not in job["metadata"]
    second = flowing.project.start(*FLOW)
    assert second.stdout is not None
    for line in second.stdout:
        if "is there already" in line:
            break
    flowing.hold(False)
    out, _ = second.communicate(timeout=200)
    assert second.returncode == 0, out
    assert "'squares': 'Completed', 'total': 'Completed'" in out
    [after] = flowing.jobs()
    assert after["metadata"]["uid"] == job["metadata"]["uid"]

    run = newest_run(prefect_server_env)

    def said() -> list[str]:
        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
        return [log.message for log in ask(prefect_server_env, lambda c: c.read_logs(wanted))]

    # The server writes them when it has time.
    wait_for(lambda: "[squares pod 0] squares: starting at 0" in said(), seconds=100, every=1)
    client = MlflowClient(f"sqlite:///{flowing.project.root}/mlflow.db")
    experiment = client.get_experiment_by_name("interloom")
    assert experiment is not None
    runs = {
        item.data.tags["dvc.stage"]: item
        for item in client.search_runs([experiment.experiment_id])
        if "dvc.stage" in item.data.tags
    }
    squares, total = runs["squares"], runs["total"]
    tag = "mlflow.source.git.commit"
    assert squares.info.status == "FINISHED"
    assert squares.data.tags[tag] == total.data.tags[tag]
    labels = after["metadata"]["labels"]
    assert labels["interloom/mlflow-run"] == squares.info.run_id
    assert labels["interloom/lifecycle"] == str(run.id)


def test_a_flow_cancelled_in_the_ui_deletes_its_job(
    flowing: OnCluster, prefect_server_env: dict[str, str]
) -> None:
    from prefect.states import Cancelling

    process = flowing.project.start(*FLOW)
    wait_for(flowing.jobs, seconds=250)
    flowing.hold()
    wait_for(lambda: flowing.pods("Running"), seconds=100)
    run = newest_run(prefect_server_env)
    ask(prefect_server_env, lambda c: c.set_flow_run_state(run.id, Cancelling()))
    out, _ = process.communicate(timeout=60)
    wait_for(lambda: not flowing.jobs(), seconds=30)
    assert flowing.pods() == [], out
    assert newest_run(prefect_server_env).state.is_cancelled()
