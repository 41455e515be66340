"""prefect.yaml for real: deployed, scheduled, picked up by a worker, cancelled through it."""

from __future__ import annotations

import re
import shutil
import time
from datetime import UTC, datetime, timedelta

import pytest
from flows_server import ask, seconds_until_gone, stage_of
from tiny_project.project import HERE, REPOSITORY, Project, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def deployed(project: Project, prefect_server_env: dict[str, str]) -> Project:
    """The tiny project with this repository's prefect.yaml, whose flow is the tiny one."""
    text = (REPOSITORY / "prefect.yaml").read_text(encoding="utf-8")
    text = text.replace("flows/lifecycle.py:lifecycle", "tiny_flow.py:tiny")
    (project.root / "prefect.yaml").write_text(text)
    shutil.copy(HERE / "tiny_flow.py", project.root)
    env = prefect_server_env | {"INTERLOOM_PROJECT": str(project.root)}
    there = Project(project.root, project.env | env)
    there.run("prefect", "work-pool", "create", "interloom", "--type", "process", "--overwrite")
    there.run("prefect", "--no-prompt", "deploy", "--name", "nightly")
    return there


def test_worker_picks_up_a_scheduled_run_and_obeys_cancel(
    deployed: Project, prefect_server_env: dict[str, str]
) -> None:
    from prefect.states import Cancelling, Scheduled

    deployment = ask(
        prefect_server_env, lambda client: client.read_deployment_by_name("tiny/nightly")
    )
    assert [schedule.schedule.cron for schedule in deployment.schedules] == ["0 2 * * *"]
    soon = datetime.now(UTC) + timedelta(seconds=2)
    run = ask(
        prefect_server_env,
        lambda client: client.create_flow_run_from_deployment(
            deployment.id, state=Scheduled(scheduled_time=soon)
        ),
    )
    worker = deployed.start(
        *("prefect", "worker", "start", "--pool", "interloom"), PREFECT_WORKER_QUERY_SECONDS="2"
    )

    def state(identity: object) -> str:
        return ask(prefect_server_env, lambda client: client.read_flow_run(identity)).state_name

    try:
        wait_for(lambda: state(run.id) == "Completed", seconds=120, every=1)
        assert len(deployed.outputs()) == 6
        deployed.set_params(prompts={"count": 40}, trajectories={"shard_rows": 77})
        (deployed.root / "tiny_flow.py").write_text(
            "import os\nos.environ['TINY_PAUSE'] = '1'\n"
            + re.sub(r"from __future__.*\n", "", (HERE / "tiny_flow.py").read_text())
        )
        second = ask(
            prefect_server_env,
            lambda client: client.create_flow_run_from_deployment(deployment.id),
        )
        wait_for(lambda: state(second.id) == "Running", seconds=90, every=1)
        time.sleep(1)
        stage = stage_of(deployed, "squares")
        began = time.monotonic()
        ask(
            prefect_server_env,
            lambda client: client.set_flow_run_state(second.id, Cancelling()),
        )
        seconds_until_gone(stage, 5)
        print(f"cancel to end of the stage: {time.monotonic() - began:.1f} s")
        wait_for(lambda: state(second.id) == "Cancelled", seconds=30, every=0.5)
        assert deployed.leftovers() == []
    finally:
        worker.terminate()
        worker.communicate(timeout=60)
