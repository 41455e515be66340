"""What all flows do: run their stages, die with them, and stop when cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled

from flows import child
from flows.stage import fetch_data, make_plan, project_folder, run_stages, watch_for_cancel


def run_group(
    own: Sequence[str],
    *,
    project: str | None,
    stages: list[str] | None,
    timeout_minutes: float | None,
    retries: int | None,
    force: bool,
) -> dict[str, str] | State[Any]:
    """Run those of a flow's ``own`` stages that are wanted; what came of each, or ``Cancelled``."""
    plan = make_plan(
        project_folder(project), timeout_minutes=timeout_minutes, retries=retries, force=force
    )
    names = [name for name in own if stages is None or name in stages]

    def work() -> dict[str, str]:
        fetch_data(plan)
        return run_stages(names, plan)

    return until_cancelled(work)


def until_cancelled(work: Callable[[], dict[str, str]]) -> dict[str, str] | State[Any]:
    """Do the work of a flow; ``Cancelled`` if it ended because someone cancelled the run."""
    with _cancellable():
        try:
            return work()
        except Exception:
            if child.stopping.is_set():
                return Cancelled(message="cancelled; the stages' processes are ended")
            raise


@contextmanager
def _cancellable() -> Iterator[None]:
    """Inside, the flow run's cancellation ends all children.

    Every sub-flow takes the signals, as Prefect sets its own handler whenever a flow run begins;
    only the outermost flow watches its state.
    """
    if flow_run.parent_flow_run_id is not None:
        with child.children_end_with_us():
            yield
        return
    child.stopping.clear()
    stop = threading.Event()
    watcher = threading.Thread(
        target=watch_for_cancel, args=(str(flow_run.id), stop), name="watch-cancel", daemon=True
    )
    watcher.start()
    try:
        with child.children_end_with_us():
            yield
    finally:
        stop.set()
