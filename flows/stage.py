"""One DVC stage as a Prefect task: log lines, progress, artifacts, timeout, retries."""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows import child
from flows.artifacts import ProgressArtifacts, publish, publish_picture
from flows.display import Display
from interloom.errors import InterloomError
from interloom.progress import RUN_PREFIX, from_event, from_picture
from interloom.settings.file import load_settings
from interloom.settings.operation import LimitSettings, OrchestrationSettings
from interloom.stages import StageSpec, all_cells, find_stage, upstream
from interloom.tracking import this_process

USER_ERROR = re.compile(r"failed to run: .*, exited with 2$")
UP_TO_DATE = re.compile(r"^Stage '.*' didn't change, skipping$")
HINTS = re.compile(
    r"^(To track the changes|\s+git add|To enable auto staging|\s+dvc config core.autostage"
    r"|Use `dvc push`|Generating lock file|Updating lock file)"
)
"""What DVC says after every stage and nobody needs in a flow's log."""
RESTORED = re.compile(r"^Stage '.*' is cached - skipping run")

display = Display()
"""What the terminal shows; silent unless the launcher opened it."""


class StageFailedError(RuntimeError):
    """A stage ended with an error; the message has its last lines."""


class UserError(StageFailedError):
    """A stage refused its input or settings: trying again changes nothing."""


@dataclass(frozen=True)
class Limits:
    """What one stage may take, and how often it is tried again."""

    timeout_seconds: float
    retries: int


@dataclass(frozen=True)
class Plan:
    """How the stages of a flow run are to be executed."""

    root: Path
    usual: Limits
    single: Mapping[str, Limits]
    """Of stages for which they are not the usual ones."""
    retry_delay_seconds: float
    parallel: int
    force: bool

    def limits(self, name: str) -> Limits:
        """Those of a stage."""
        return self.single.get(name, self.usual)


def make_plan(
    root: Path,
    *,
    timeout_minutes: float | None = None,
    retries: int | None = None,
    force: bool = False,
) -> Plan:
    """The plan of the params file (section ``orchestration``), with what the caller overrides.

    What the caller says holds for every stage.
    """
    wanted: OrchestrationSettings = load_settings(root / "params.yaml").orchestration

    def limits(section: LimitSettings) -> Limits:
        minutes = section.timeout_minutes if timeout_minutes is None else timeout_minutes
        return Limits(60 * minutes, section.retries if retries is None else retries)

    return Plan(
        root=root,
        usual=limits(wanted),
        single={find_stage(name).name: limits(one) for name, one in wanted.stages.items()},
        retry_delay_seconds=wanted.retry_delay_seconds,
        parallel=wanted.parallel_stages,
        force=force,
    )


def project_folder(project: str | None) -> Path:
    """The project that a flow works on: as given, else the present folder."""
    root = Path(project) if project else Path.cwd()
    if not (root / "dvc.yaml").is_file():
        raise InterloomError(f"{root} has no dvc.yaml: give the project folder")
    return root


def run_stages(names: Sequence[str], plan: Plan) -> dict[str, str]:
    """Run the stages in the order of their graph; what came of each, by name.

    A matrix's cells are run each by itself. Stages that do not need each other run side by side, at
    most ``plan.parallel`` at once. After a failure those that do not need the failed one still run;
    then its error is raised.
    """
    runner = ThreadPoolTaskRunner(max_workers=plan.parallel)
    cells = all_cells(names, load_settings(plan.root / "params.yaml"))
    futures: dict[str, PrefectFuture[Any]] = {}
    with runner:
        for name in cells:
            above = {up.name for up in upstream(find_stage(name))}
            before = [known for cell, known in futures.items() if cell.partition("@")[0] in above]
            run = stage_task.with_options(
                name=name,
                task_run_name=name,
                retries=plan.limits(name).retries,
                retry_delay_seconds=plan.retry_delay_seconds,
            )
            futures[name] = runner.submit(
                run, parameters={"name": name, "plan": plan}, wait_for=before
            )
        wait(list(futures.values()))
    failed = [future for future in futures.values() if not future.state.is_completed()]
    for future in sorted(failed, key=lambda future: future.state.type.value):  # CRASHED, FAILED …
        if not future.state.is_pending():
            future.result()
    return {name: str(future.state.name) for name, future in futures.items()}


def _may_retry(task: Any, task_run: Any, state: State[Any]) -> bool:
    """Not while cancelling, and not what a user must mend."""
    error = state.result(raise_on_failure=False)
    return not child.stopping.is_set() and not isinstance(error, UserError | InterruptedError)


@task(retry_condition_fn=_may_retry, persist_result=False)
def stage_task(name: str, plan: Plan) -> State[Any]:
    """Run ``dvc repro -s NAME``; completed, or ``Cached`` if DVC found it up to date."""
    spec = find_stage(name)
    listener = _Listener(spec)
    command = ["dvc", "repro", "-s", name, *(["-f"] if plan.force else [])]
    display.begin(name)
    began = time.monotonic()
    try:
        status = child.run_child(
            command,
            cwd=plan.root,
            env=_environment(),
            timeout=plan.limits(name).timeout_seconds,
            on_line=listener.hear,
        )
    except (TimeoutError, InterruptedError):
        display.end(name, "killed")
        raise
    if status:
        display.end(name, "failed")
        raise listener.failure(status)
    if listener.cached:
        display.end(name, "up to date")
        return Completed(name="Cached", message=f"{name} is up to date")
    seconds = time.monotonic() - began
    publish(spec, plan.root, seconds, listener.run_id)
    display.end(name, "done")
    return Completed(message=f"{name} took {seconds:.1f} s")


class _Listener:
    """Sorts a stage's output into log lines, progress and the reason of a failure."""

    def __init__(self, spec: StageSpec) -> None:
        self._spec, self._log = spec, get_run_logger()
        self._last: list[str] = []
        self._progress = ProgressArtifacts(spec.name)
        self.run_id = ""
        self.cached = False
        self._user_error = False

    def hear(self, line: str) -> None:
        report = from_event(line)
        if report is not None:
            display.report(report)
            self._progress.show(report)
            return
        picture = from_picture(line)
        if picture is not None:
            publish_picture(self._spec.name, *picture)
            return
        if line.startswith(RUN_PREFIX):
            self.run_id = line.removeprefix(RUN_PREFIX)
            return
        if UP_TO_DATE.match(line) or RESTORED.match(line):
            self.cached = True
        if USER_ERROR.search(line):
            self._user_error = True
        if line.strip() and not HINTS.match(line):
            self._last = [*self._last[-19:], line]
            self._log.info(line)
            display.line(self._spec.name, line)

    def failure(self, status: int) -> StageFailedError:
        """The error of a child that ended with ``status``."""
        reasons = [line for line in self._last if line.startswith("interloom: ")]
        text = "\n".join(reasons or self._last[-12:])
        kind = UserError if self._user_error else StageFailedError
        return kind(f"stage {self._spec.name} failed (dvc exit status {status}):\n{text}")


def _environment() -> dict[str, str]:
    """What the child is told about the flow that runs it."""
    me = this_process()
    here = {
        "INTERLOOM_PROGRESS": "events",
        "INTERLOOM_LIFECYCLE_ID": str(flow_run.root_flow_run_id or flow_run.id),
        "INTERLOOM_LIFECYCLE_PROCESS": f"{me.pid}:{me.created}",
        "INTERLOOM_FLOW_RUN_ID": str(flow_run.id),
        "INTERLOOM_FLOW_RUN_NAME": str(flow_run.name),
        "INTERLOOM_FLOW_RUN_URL": str(flow_run.ui_url or ""),
        "PYTHONUNBUFFERED": "1",
        # Bars of libraries, drawn over and over, are noise in a log; stages report themselves.
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    # The environment of this very Python first: `interloom` and `dvc` are found beside it.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, **here}


def fetch_data(plan: Plan) -> None:
    """Bring the shipped data into a fresh clone; nothing to do if it is there."""
    if (plan.root / "data").is_dir() or not (plan.root / "data.dvc").is_file():
        return
    log = get_run_logger()
    dvc = shutil.which("dvc", path=_environment()["PATH"])
    assert dvc is not None, "dvc is a dependency"
    status = child.run_child(
        [dvc, "pull", "data.dvc"],
        cwd=plan.root,
        env=_environment(),
        timeout=plan.usual.timeout_seconds,
        on_line=log.info,
    )
    if status:
        raise InterloomError("`dvc pull data.dvc` failed: see the lines above")


def watch_for_cancel(run_id: str, stop: threading.Event) -> None:
    """End the children when someone cancels this flow run in the UI.

    A worker kills the process of a cancelled run, but a run started from a terminal has no worker.
    """
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        while not stop.wait(1.0):
            state = client.read_flow_run(run_id).state  # type: ignore[arg-type]
            if state is not None and (state.is_cancelling() or state.is_cancelled()):
                child.end_all()
                return
