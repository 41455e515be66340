"""Runs one stage: outputs are written aside and renamed when whole; a kill leaves nothing broken.

Layout under the project folder::

    .interloom/work/STAGE/KEY/        survives kills: checkpoints of this very input
    .interloom/cache/STAGE/           survives everything: answers found by their whole question
    .interloom/ledger.sqlite          what remote calls have cost
    .interloom/work/STAGE/KEY.new/    outputs being written, under their final relative paths
    .interloom/work/STAGE.lock        held while the stage runs

``KEY`` is a hash of the digests of all dependencies, the code and the params of the stage, so that
a checkpoint is never resumed with other data or settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from interloom import dvc_state, images, ranks
from interloom.atomic import declare_whole, finish, is_whole
from interloom.backends.ledger import LEDGER
from interloom.cache import CACHE
from interloom.code import code_of
from interloom.digests import digest
from interloom.errors import InterloomError
from interloom.faults import told_plainly
from interloom.guards import signals_unwind, stage_lock, watch_parents
from interloom.progress import RUN_PREFIX, Bar, clock, flow_listens, to_picture
from interloom.seeding import seed_everything
from interloom.settings.file import Settings
from interloom.stages import StageSpec, maker
from interloom.tracking import (
    DataFile,
    Recorder,
    Span,
    Status,
    open_recorder,
)

MEMORY = ".interloom/digests.sqlite"
FREE_SECTIONS = frozenset(["profile", "seed", "remote"])
"""What every stage may read: no output depends on how calls to remote backends travel."""
LOGGED_BYTES = 8 << 20
"""Metrics and plots up to this size are also MLflow artifacts."""


class StageRun:
    """What a stage's body may touch: its inputs, its outputs and the record of this execution."""

    def __init__(
        self, spec: StageSpec, root: Path, work: Path, aside: Path, recorder: Recorder | None
    ) -> None:
        self._spec, self._root, self._aside, self._recorder = spec, root, aside, recorder
        self.work = work
        """Folder that survives kills and failures, for caches and checkpoints of this input."""

    @property
    def cache(self) -> Path:
        """Folder that survives success and changed inputs too, for answers that cost money.

        What is kept here must be found by its whole question (model, messages, settings), as
        nothing else tells old answers from new ones.
        """
        folder = dvc_state.home(self._root) / CACHE / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def ledger(self) -> Path:
        """File in which the costs of remote calls are written down."""
        return dvc_state.home(self._root) / LEDGER

    @property
    def name(self) -> str:
        """The stage's name."""
        return self._spec.name

    @property
    def value(self) -> str:
        """What this cell of a matrix is for; empty in other stages."""
        return self._spec.value

    def digest_of(self, dep: str) -> str:
        """Digest of the declared dependency."""
        return digest(self.dep(dep), self._root / MEMORY)

    def dep(self, name: str) -> Path:
        """The declared dependency ``name`` (an output of an earlier stage, or shipped data)."""
        if name not in self._spec.deps:
            raise KeyError(f"stage {self.name} declares no dependency {name!r} in stages.py")
        return self._root / self._spec.deps[name]

    @property
    def deps(self) -> dict[str, Path]:
        """All declared dependencies by name."""
        return {name: self.dep(name) for name in self._spec.deps}

    def out(self, name: str) -> Path:
        """Where to write the declared output, metrics or plot ``name``: a file or folder to create.

        It is renamed into place when the body returns, and removed if it fails.
        """
        if name not in self._spec.products:
            raise KeyError(f"stage {self.name} declares no output {name!r} in stages.py")
        path = self._aside / self._spec.products[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def place(self, name: str) -> Path:
        """Where the declared output will lie in the project, for people."""
        return Path(self._spec.products[name])

    def progress(self, work: Iterable[Any] | int, description: str) -> Bar:
        """Count work: iterate over the result, or use ``with`` and ``advance(n)``."""
        return Bar(self.name, work, description, shown=ranks.rank() == 0)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Numbers for the MLflow run, at a step if they form a curve."""
        if self._recorder is not None:
            self._recorder.metrics(values, step)

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file or folder for the MLflow run, copied as it is now."""
        if self._recorder is not None:
            self._recorder.artifact(path, folder)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A table for the MLflow run, all rows with the same columns."""
        if self._recorder is not None:
            self._recorder.table(name, rows)

    def picture(self, name: str, data: bytes) -> None:
        """A small picture to look at while the lifecycle runs: in the Prefect and MLflow runs."""
        path = self.work / f"{name}.png"
        path.write_bytes(data)
        self.artifact(path, "pictures")
        if flow_listens():
            print(to_picture(name, images.data_url(data)), flush=True)

    def trace(self, span: Span, tags: Mapping[str, str]) -> None:
        """A tree of spans for the MLflow run's traces."""
        if self._recorder is not None:
            self._recorder.trace(span, tags)

    def log(self, text: str) -> None:
        """A line for the terminal, the Prefect log and the MLflow run."""
        if ranks.local_rank() == 0:
            who = f"{self.name}, process {ranks.rank()}" if ranks.rank() else self.name
            print(f"{who}: {text}", flush=True)
        if self._recorder is not None:
            self._recorder.log(text)

    @property
    def run_id(self) -> str | None:
        """The MLflow run of this execution (waits until it exists); none without tracking."""
        return self._recorder.run_id() if self._recorder is not None else None


@dataclass(frozen=True)
class Identity:
    """What makes an execution of a stage the same as another one."""

    params: dict[str, Any]
    inputs: tuple[DataFile, ...]
    key: str

    def work(self, root: Path, stage: str) -> Path:
        """The folder of checkpoints."""
        return root / ".interloom" / "work" / stage / self.key

    def aside(self, root: Path, stage: str) -> Path:
        """Where the outputs are written before they are moved into place."""
        return self.work(root, stage).with_name(f"{self.key}.new")


def identify(
    spec: StageSpec, settings: Settings, root: Path, inputs: tuple[DataFile, ...] | None = None
) -> Identity:
    """The identity of a stage here and now; ``inputs`` if their digests are known already."""
    inputs = _inputs(spec, root) if inputs is None else inputs
    params = {"seed": settings.seed, **_sections(spec, settings)}
    return Identity(params, inputs, _key(spec, params, inputs))


def run_stage(
    spec: StageSpec,
    settings: Settings,
    root: Path,
    *,
    track: bool = True,
    inputs: tuple[DataFile, ...] | None = None,
    keep_work: bool = False,
) -> None:
    """Run one stage in the project folder ``root``.

    In a pod, ``inputs`` are the digests that the caller has found, and ``keep_work`` leaves the
    checkpoints until the outputs are safe. Of several processes (torchrun) the first writes and
    records; the others only compute.

    Raises ``InterloomError`` for missing inputs, a missing body or a body that left an output out;
    for a full disk, missing rights and damaged inputs; whatever else the body raises passes
    through. In every such case the old outputs stand untouched.
    """
    if ranks.rank():
        _assist(spec, settings, root, inputs)
        return
    started = time.monotonic()
    with told_plainly(spec.name, root), stage_lock(root, spec.name), signals_unwind():
        identity = identify(spec, settings, root, inputs)
        params, inputs, key = identity.params, identity.inputs, identity.key
        work, aside = identity.work(root, spec.name), identity.aside(root, spec.name)
        # Several processes go through the body together, if only to find that all is done.
        made = ranks.world() == 1 and is_whole(root, aside)
        resumed = work.exists()
        if not made:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        work.mkdir(parents=True, exist_ok=True)
        dvc_state.keep(root)
        recorder = None
        if track and settings.tracking.enabled:
            tags = {"interloom.profile": settings.profile, "interloom.key": key,
                    "interloom.resumed": str(resumed).lower()}  # fmt: skip
            flat = {"profile": settings.profile, **flatten(params)}
            recorder = open_recorder(
                root,
                settings.tracking,
                stage=spec.name,
                summary=spec.summary,
                params=flat,
                inputs=inputs,
                tags=tags,
            )
            _announce(recorder)
        stage = StageRun(spec, root, work, aside, recorder)
        try:
            watch_parents(_end_like_cancelled)
            if made:
                stage.log("everything was written before the last run was killed")
            else:
                body = _body(spec)
                seed_everything(settings.seed)
                with told_plainly(spec.name, root, {item.path: item.md5 for item in inputs}):
                    body(_only(settings, spec), stage)
                    _check_all_written(spec, root, aside)
                _note_products(spec, aside, recorder)
            digests = finish(root, aside)
        except BaseException as error:
            if not is_whole(root, aside):
                shutil.rmtree(aside, ignore_errors=True)
            _close(recorder, _status(error), started, error=_explain(error))
            raise
        if not keep_work:
            shutil.rmtree(work, ignore_errors=True)
        outs = tuple(
            DataFile(name, path, digests[path], "out") for name, path in spec.products.items()
        )
        _close(recorder, "FINISHED", started, outs=outs)
        print(f"{spec.name}: done in {clock(time.monotonic() - started)}", flush=True)


def _assist(
    spec: StageSpec, settings: Settings, root: Path, inputs: tuple[DataFile, ...] | None
) -> None:
    """Compute with the first process of a distributed stage; write and record nothing."""
    with signals_unwind(), tempfile.TemporaryDirectory() as aside:
        identity = identify(spec, settings, root, inputs)
        work = identity.work(root, spec.name)
        work.mkdir(parents=True, exist_ok=True)
        stage = StageRun(spec, root, work, Path(aside), None)
        body = _body(spec)
        seed_everything(settings.seed)
        body(_only(settings, spec), stage)


def _announce(recorder: Recorder) -> None:
    """In a pod, tell the caller the MLflow run as soon as there is one."""
    if "JOB_COMPLETION_INDEX" not in os.environ:
        return

    def tell() -> None:
        with suppress(InterloomError):  # the end of the stage says what is wrong with MLflow
            print(f"{RUN_PREFIX}{recorder.run_id()}", flush=True)

    threading.Thread(target=tell, name="announce", daemon=True).start()


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys.

    >>> flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3})
    {'a.b': 1, 'a.c.d': 2, 'e': 3}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _sections(spec: StageSpec, settings: Settings) -> dict[str, Any]:
    """The sections that the stage declares, as plain JSON values."""
    return settings.model_dump(mode="json", include=set(spec.sections))


def _only(settings: Settings, spec: StageSpec) -> Settings:
    """Settings without the sections that the stage does not declare, so that DVC sees all it reads.

    Reading another section raises ``AttributeError``.
    """
    kept = FREE_SECTIONS.union(spec.sections)
    return Settings.model_construct(
        _fields_set=set(kept), **{name: value for name, value in settings if name in kept}
    )


def _inputs(spec: StageSpec, root: Path) -> tuple[DataFile, ...]:
    """Digests of all dependencies and of the code behind the stage."""
    memory = root / MEMORY
    found: list[DataFile] = []
    for name, path in spec.deps.items():
        if not (root / path).exists():
            made_by = maker(path)
            how = f"run `dvc repro {made_by.name}`" if made_by else "run `dvc pull data.dvc`"
            raise InterloomError(f"stage {spec.name} needs {path}, which is not there: {how}")
        found.append(DataFile(name, path, digest(root / path, memory), "dep"))
    for path in code_of(spec.module):
        if (root / path).exists():  # installed without sources: nothing to hash
            found.append(DataFile(path, path, digest(root / path), "code"))
    return tuple(found)


def _key(spec: StageSpec, params: Mapping[str, Any], inputs: tuple[DataFile, ...]) -> str:
    said = json.dumps([spec.name, params, [(item.path, item.md5) for item in inputs]])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _body(spec: StageSpec) -> Any:
    try:
        module = import_module(spec.module)
    except ModuleNotFoundError as error:
        if error.name is not None and spec.module.startswith(error.name):
            raise InterloomError(f"stage {spec.name}: there is no module {error.name}") from None
        raise
    return module.run


def _check_all_written(spec: StageSpec, root: Path, aside: Path) -> None:
    """Note what the body wrote as whole; from now on a kill loses nothing."""
    missing = [path for path in spec.products.values() if not (aside / path).exists()]
    if missing:
        raise InterloomError(f"stage {spec.name} ended without writing {', '.join(missing)}")
    memory = root / MEMORY
    declare_whole(aside, {path: digest(aside / path, memory) for path in spec.products.values()})


def _note_products(spec: StageSpec, aside: Path, recorder: Recorder | None) -> None:
    """Metrics files become MLflow metrics; metrics and plots also artifacts, if not huge."""
    if recorder is None:
        return
    for path in spec.metrics.values():
        values = flatten(json.loads((aside / path).read_text(encoding="utf-8")))
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        recorder.metrics({f"final.{name}": value for name, value in numbers.items()}, None)
    for path in (*spec.metrics.values(), *spec.plots.values()):
        if (aside / path).is_file() and (aside / path).stat().st_size <= LOGGED_BYTES:
            recorder.artifact(aside / path, Path(path).parts[0])


def _close(
    recorder: Recorder | None,
    status: Status,
    started: float,
    error: str = "",
    outs: tuple[DataFile, ...] = (),
) -> None:
    if recorder is None:
        return
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    numbers = {
        "system.duration_seconds": time.monotonic() - started,
        "system.cpu_seconds": sum(one.ru_utime + one.ru_stime for one in usage),
        "system.peak_memory_mib": max(one.ru_maxrss for one in usage) / 1024,
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        numbers["system.peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
    complaint = recorder.close(status, error=error, outs=outs, metrics=numbers)
    if complaint:
        print(f"warning: {complaint}", file=sys.stderr, flush=True)
    if recorder.sent is not None and flow_listens():
        print(f"{RUN_PREFIX}{recorder.sent}", flush=True)


def _status(error: BaseException) -> Status:
    return "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"


def _explain(error: BaseException) -> str:
    if isinstance(error, InterloomError):
        return str(error)
    return "".join(traceback.format_exception(error))


def _end_like_cancelled() -> None:
    # No word about it: with the parent its end of the output may be gone, and printing fails.
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
    os._exit(143)
