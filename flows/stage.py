"""One DVC stage as a Prefect task: log lines, progress, artifacts, timeout, retries."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows import child
from flows.display import Display
from interloom.errors import InterloomError
from interloom.progress import Report, from_event
from interloom.settings import OrchestrationSettings, load_settings
from interloom.stages import StageSpec, all_cells, find_stage, upstream
from interloom.tracking import this_process

PROGRESS_SECONDS = 2.0
"""Least time between two updates of a progress artifact."""
PICTURE_BYTES = 300_000
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
class Plan:
    """How the stages of a flow run are to be executed."""

    root: Path
    timeout_seconds: float
    retries: int
    retry_delay_seconds: float
    parallel: int
    force: bool


def make_plan(
    root: Path,
    *,
    timeout_minutes: float | None = None,
    retries: int | None = None,
    force: bool = False,
) -> Plan:
    """The plan of the params file (section ``orchestration``), with what the caller overrides."""
    wanted: OrchestrationSettings = load_settings(root / "params.yaml").orchestration
    return Plan(
        root=root,
        timeout_seconds=60
        * (wanted.timeout_minutes if timeout_minutes is None else timeout_minutes),
        retries=wanted.retries if retries is None else retries,
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
                retries=plan.retries,
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
            timeout=plan.timeout_seconds,
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
    _publish(spec, plan.root, seconds)
    display.end(name, "done")
    return Completed(message=f"{name} took {seconds:.1f} s")


class _Listener:
    """Sorts a stage's output into log lines, progress and the reason of a failure."""

    def __init__(self, spec: StageSpec) -> None:
        self._spec, self._log = spec, get_run_logger()
        self._last: list[str] = []
        self._artifacts: dict[str, tuple[Any, float]] = {}
        self.cached = False
        self._user_error = False

    def hear(self, line: str) -> None:
        report = from_event(line)
        if report is not None:
            display.report(report)
            self._show(report)
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

    def _show(self, report: Report) -> None:
        """Keep one progress artifact per counted piece of work."""
        if not report.total:
            return
        percent = min(100.0, 100 * report.done / report.total)
        known = self._artifacts.get(report.what)
        now = time.monotonic()
        if known is None:
            key = _key(self._spec.name, report.what)
            artifact = create_progress_artifact(percent, key=key, description=report.line())
            self._artifacts[report.what] = (artifact, now)
        elif report.done >= report.total or now - known[1] >= PROGRESS_SECONDS:
            update_progress_artifact(known[0], percent, description=report.line())
            self._artifacts[report.what] = (known[0], now)


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
    }
    # The environment of this very Python first: `interloom` and `dvc` are found beside it.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, **here}


def _publish(spec: StageSpec, root: Path, seconds: float) -> None:
    """Result artifacts of a stage: numbers, files, a link to the MLflow run's place, pictures."""
    import yaml

    rows: list[dict[str, Any]] = [{"what": "seconds", "value": f"{seconds:.1f}"}]
    for path in spec.metrics.values():
        numbers = json.loads((root / path).read_text(encoding="utf-8"))
        rows += [{"what": key, "value": str(value)} for key, value in _leaves(numbers)]
    create_table_artifact(rows, key=_key(spec.name, "result"), description=spec.summary)
    lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))
    outs = lock["stages"].get(spec.name, {}).get("outs", [])
    files = [
        {"path": out["path"], "md5": out["md5"], "bytes": str(out["size"]),
         "files": str(out.get("nfiles", 1))}
        for out in outs
    ]  # fmt: skip
    create_table_artifact(
        files, key=_key(spec.name, "files"), description="outputs as DVC has them"
    )
    mlflow = os.environ.get("INTERLOOM_MLFLOW_URL", "http://127.0.0.1:5000")
    create_link_artifact(mlflow, link_text="runs in MLflow (`interloom ui`)",
                         key=_key(spec.name, "mlflow"))  # fmt: skip
    for picture in _pictures(spec, root):
        encoded = base64.b64encode(picture.read_bytes()).decode()
        create_image_artifact(
            f"data:image/png;base64,{encoded}", key=_key(spec.name, picture.stem),
            description=str(picture.relative_to(root)),
        )  # fmt: skip


def _pictures(spec: StageSpec, root: Path) -> list[Path]:
    """At most three small pictures right in the stage's output folders."""
    found = [path for out in spec.outs.values() for path in sorted((root / out).glob("*.png"))]
    return [path for path in found if path.stat().st_size <= PICTURE_BYTES][:3]


def _leaves(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(values, dict):
        return [leaf for key, value in values.items() for leaf in _leaves(value, f"{prefix}{key}.")]
    return [(prefix.rstrip("."), values)]


def _key(*words: str) -> str:
    """An artifact key: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


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
        timeout=plan.timeout_seconds,
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
