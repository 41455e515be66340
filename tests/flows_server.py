"""Helpers of the tests that talk to a Prefect server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil
from tiny_project.project import Project, wait_for


def ask(server: dict[str, str], question: Callable[[Any], Any]) -> Any:
    """Ask the server through Prefect's own client."""
    from prefect.client.orchestration import SyncPrefectClient

    with SyncPrefectClient(server["PREFECT_API_URL"]) as client:
        return question(client)


def newest_run(server: dict[str, str]) -> Any:
    """The flow run that began last."""
    from prefect.client.schemas.sorting import FlowRunSort

    runs = ask(
        server, lambda c: c.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)
    )
    return runs[0]


def outermost_run(server: dict[str, str]) -> Any:
    """The flow run that began last and is no sub-flow."""
    from prefect.client.schemas.sorting import FlowRunSort

    runs = ask(
        server, lambda c: c.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=5)
    )
    return next(run for run in runs if run.parent_task_run_id is None)


def stage_of(project: Project, name: str) -> psutil.Process:
    """The process of a stage; waits until it works."""
    lock = project.root / f".interloom/work/{name}.lock"

    def works() -> bool:
        return lock.exists() and bool(lock.read_text()) and psutil.pid_exists(int(lock.read_text()))

    wait_for(works, seconds=60)
    time.sleep(0.5)
    return psutil.Process(int(lock.read_text()))


def seconds_until_gone(process: psutil.Process, limit: float) -> float:
    """Seconds that the process still lived; fails after ``limit``."""
    began = time.monotonic()
    wait_for(
        lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE,
        seconds=limit,
        every=0.05,
    )
    return time.monotonic() - began
