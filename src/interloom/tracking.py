"""What happened in a stage, noted for MLflow without importing MLflow.

Importing MLflow takes seconds and writing to it can fail or hang, so the stage only appends events
to a file (the *spool*), and a process of its own (``tracker.py``, one per lifecycle) follows the
file and writes to the tracking server while the stage works. That process also sees when the stage
was killed, and says so in the run; no run stays "running" for ever.

The parent of the run is the lifecycle: the one named by ``INTERLOOM_LIFECYCLE_ID`` (the Prefect
flow sets it), else the enclosing ``dvc`` process, else none.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from interloom.dvc_state import home
from interloom.errors import InterloomError
from interloom.settings.operation import TrackingSettings

Status = Literal["FINISHED", "FAILED", "KILLED"]
SHELLS = frozenset({"sh", "bash", "dash", "zsh", "fish", "ksh"})
LIFECYCLE_VARIABLE = "INTERLOOM_LIFECYCLE_ID"
OWNER_VARIABLE = "INTERLOOM_LIFECYCLE_PROCESS"
SPOOL = ".interloom/spool"
LOCK = "tracker.lock"
PROBLEM = "problem.txt"
TRACKER_RESTARTS = 2
TRACKER_PATIENCE = 2.0
"""Seconds without a result after which a stage makes sure that a tracker runs."""
VARIABLE_TAGS = {
    "INTERLOOM_FLOW_RUN_ID": "prefect.flow_run_id",
    "INTERLOOM_FLOW_RUN_NAME": "prefect.flow_run_name",
    "INTERLOOM_FLOW_RUN_URL": "prefect.flow_run_url",
    "DVC_STAGE": "dvc.stage",
    "DVC_EXP_NAME": "dvc.experiment",
}
"""Environment variables that become tags when they are set."""


@dataclass(frozen=True)
class DataFile:
    """A file or folder that a stage read or wrote, with DVC's digest of it."""

    name: str
    path: str
    md5: str
    context: Literal["dep", "code", "out"]


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    created: float

    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < 1
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def this_process() -> Process:
    """The process that asks."""
    import psutil

    return Process(os.getpid(), psutil.Process().create_time())


def enclosing_dvc() -> Process | None:
    """The ``dvc`` process that runs this stage: the nearest ancestor that is not a shell."""
    if "DVC_STAGE" not in os.environ:
        return None
    import psutil

    for parent in psutil.Process().parents():
        if parent.name() not in SHELLS:
            return Process(parent.pid, parent.create_time())
    return None


def lifecycle_id() -> str | None:
    """The lifecycle that this process belongs to; none if the stage stands alone."""
    named = os.environ.get(LIFECYCLE_VARIABLE)
    if named:
        return named
    dvc = enclosing_dvc()
    return f"dvc-{socket.gethostname()}-{dvc.pid}-{dvc.created:.0f}" if dvc else None


def lifecycle_owner() -> Process | None:
    """The process that the lifecycle lives in: the flow's, else ``dvc``; none for a lone stage."""
    named = os.environ.get(OWNER_VARIABLE)
    if named:
        pid, created = named.split(":")
        return Process(int(pid), float(created))
    return enclosing_dvc()


def tracking_uri(settings: TrackingSettings, root: Path) -> str:
    """Where runs go: the environment's ``MLFLOW_TRACKING_URI``, else the setting.

    A relative SQLite path is taken from the project folder (``dvc_state.home``). For PostgreSQL the
    driver is named, because the installed one is psycopg2 and SQLAlchemy 2.1 takes
    ``postgresql://`` for psycopg 3.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or settings.uri
    for plain in ("postgresql://", "postgres://"):
        if uri.startswith(plain):
            return "postgresql+psycopg2://" + uri.removeprefix(plain)
    scheme = "sqlite:///"
    if uri.startswith(scheme) and not uri.startswith(scheme + "/"):
        return scheme + str(home(root) / uri.removeprefix(scheme))
    return uri


@dataclass(frozen=True)
class Span:
    """A piece of work in a trace; a picture in ``inputs`` or ``outputs`` is a ``data:`` URL."""

    name: str
    kind: Literal["AGENT", "CHAIN", "LLM", "TOOL", "EVALUATOR"]
    began: float
    ended: float
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    error: str = ""
    parts: tuple[Span, ...] = ()


class Recorder:
    """The stage's end of its spool. ``close`` must be called once."""

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder, self._root = folder, root
        self._file = (folder / "events.jsonl").open("a", encoding="utf-8", buffering=1)
        self._artifacts = 0
        self.sent: str | None = None
        """The MLflow run, once all of it is written."""
        start_tracker(root)

    def metrics(self, values: Mapping[str, float], step: int | None) -> None:
        """Numbers at a step; not-a-number is kept, MLflow stores it."""
        numbers = {name: float(value) for name, value in values.items()}
        self._write("metrics", values=numbers, step=step)

    def log(self, text: str) -> None:
        """A line of the run's ``log.txt``."""
        self._write("log", text=text)

    def artifact(self, path: Path, folder: str) -> None:
        """A copy of a file or folder as it is now."""
        self._artifacts += 1
        copy = self._folder / "artifacts" / str(self._artifacts) / path.name
        copy.parent.mkdir(parents=True)
        if path.is_dir():
            shutil.copytree(path, copy)
        else:
            shutil.copy2(path, copy)
        self._write("artifact", path=str(copy), folder=folder)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A table of the run, all rows with the first one's columns."""
        columns = {column: [row[column] for row in rows] for column in (rows[0] if rows else ())}
        self._write("table", name=name, columns=columns)

    def trace(self, span: Span, tags: Mapping[str, str]) -> None:
        """A tree of spans for the run's traces; its pictures become attachments."""
        self._artifacts += 1
        path = self._folder / "traces" / f"{self._artifacts}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(asdict(span)), encoding="utf-8")
        self._write("trace", path=str(path), tags=dict(tags))

    def run_id(self, timeout: float = 120.0) -> str:
        """The MLflow run of this stage; waits until the tracker has made it."""
        file = self._folder / "run_id"
        problem = self._wait(file.exists, timeout)
        if problem:
            raise InterloomError(f"MLflow gives no run: {problem}")
        return file.read_text(encoding="utf-8")

    def close(
        self,
        status: Status,
        *,
        error: str = "",
        outs: tuple[DataFile, ...] = (),
        metrics: Mapping[str, float] | None = None,
        timeout: float = 120.0,
    ) -> str | None:
        """Note the end and wait until everything is written; a complaint if that failed.

        What was not written stays in the spool and is sent later.
        """
        self._write(
            "end",
            status=status,
            error=error,
            outs=[asdict(out) for out in outs],
            metrics=dict(metrics or {}),
        )
        self._file.close()
        known = self._folder / "run_id"

        def written() -> bool:
            with suppress(FileNotFoundError):  # gone with the folder
                self.sent = known.read_text(encoding="utf-8")
            return not self._folder.exists()

        return self._wait(written, timeout)

    def _wait(self, done: Callable[[], bool], timeout: float) -> str | None:
        """Wait for the tracker; a complaint if it has a problem, or is not done in time."""
        kept = "`interloom track` sends the record later"
        end = time.monotonic() + timeout
        asked, restarts = time.monotonic(), 0
        while not done():
            problem = self._folder / PROBLEM
            if problem.exists():
                return f"{problem.read_text(encoding='utf-8')}; {kept}"
            if time.monotonic() > end:
                return f"MLflow has not answered for {timeout:.0f} s; {kept}"
            if time.monotonic() - asked > TRACKER_PATIENCE and restarts < TRACKER_RESTARTS:
                # The old one may have ended just before this stage.
                asked, restarts = time.monotonic(), restarts + bool(start_tracker(self._root))
            time.sleep(0.02)
        return None

    def _write(self, event: str, **values: Any) -> None:
        self._file.write(json.dumps({"event": event, "time": time.time(), **values}) + "\n")


def start_tracker(root: Path) -> subprocess.Popen[bytes] | None:
    """Start the project's tracker unless one is there.

    In a session of its own, as it must outlive a kill of the stage's process group.
    """
    spool = root / SPOOL
    spool.mkdir(parents=True, exist_ok=True)
    with (spool / LOCK).open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None
    with (spool / "tracker.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "interloom.tracker", str(spool)],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def open_recorder(
    root: Path,
    settings: TrackingSettings,
    *,
    stage: str,
    summary: str,
    params: Mapping[str, Any],
    inputs: tuple[DataFile, ...],
    tags: Mapping[str, str],
) -> Recorder:
    """Begin the record of a stage execution; ``params`` are flat, ``inputs`` what it reads."""
    note = f"{summary[:1].upper()}{summary[1:]}."
    if url := os.environ.get("INTERLOOM_FLOW_RUN_URL"):
        note += f"\n\n[Flow run in Prefect]({url})"
    found = {tag: os.environ[name] for name, tag in VARIABLE_TAGS.items() if name in os.environ}
    owner = lifecycle_owner()
    start = {
        "event": "start",
        "root": str(root.resolve()),
        "time": time.time(),
        "process": asdict(this_process()),
        "owner": asdict(owner or this_process()),
        "stage": stage,
        "lifecycle": lifecycle_id(),
        "uri": tracking_uri(settings, root),
        "experiment": settings.experiment,
        "params": dict(params),
        "inputs": [asdict(item) for item in inputs],
        "tags": {"mlflow.note.content": note, **found, **tags},
    }
    # The tracker sees folders that end in the host's name, so this one appears when it is whole.
    name = f"{time.time():.3f}-{stage}-{uuid.uuid4().hex[:8]}"
    project = home(root)
    fresh = project / SPOOL / f"{name}.new"
    fresh.mkdir(parents=True)
    (fresh / "events.jsonl").write_text(json.dumps(start) + "\n", encoding="utf-8")
    folder = fresh.rename(fresh.with_name(f"{name}-{socket.gethostname()}"))
    return Recorder(folder, project)


def send_kept(root: Path) -> str:
    """Send records that stayed behind; says what came of it."""
    tracker = start_tracker(root)
    if tracker is None:
        return "a tracker is at work already"
    if tracker.wait():
        return f"MLflow did not take some records; see {root / SPOOL / 'tracker.log'}"
    return "nothing is waiting any more"
