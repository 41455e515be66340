"""A stage's files by DVC: what it reads goes to its pods by digest, what it wrote comes back so.

Both ends use a throwaway DVC repository beside the files, with one ``.dvc`` file for each thing and
the project's remote, so the project's own ``dvc.lock`` is written by nobody but its own ``dvc``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from interloom.atomic import declare_whole
from interloom.digests import digest
from interloom.errors import InterloomError
from interloom.tracking import DataFile

OPTIONS = frozenset(["url", "endpointurl", "region", "use_ssl", "version_aware", "jobs",
                     "allow_anonymous_login", "read_timeout", "connect_timeout"])  # fmt: skip
"""Options of a DVC remote that pods are told; credentials come from Secrets."""


class TransferError(RuntimeError):
    """DVC could not pull or push; it may work another time."""


@dataclass(frozen=True)
class Tracked:
    """What DVC tracks: a thing that a stage reads, or the folder that it lies in."""

    path: str
    md5: str


@dataclass(frozen=True)
class Inputs:
    """What the caller says to a stage's pods about their files."""

    stage: str
    key: str
    kind: Literal["volume", "dvc"]
    files: tuple[DataFile, ...]
    """Data and code that the stage depends on, with their digests."""
    tracked: Mapping[str, Tracked]
    """By the path of each dependency; empty on a shared volume."""
    remote: Mapping[str, str]
    """Options of the DVC remote."""
    products: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """From the file that the caller has written."""
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["files"] = tuple(DataFile(**item) for item in raw["files"])
        raw["tracked"] = {dep: Tracked(**item) for dep, item in raw["tracked"].items()}
        return cls(**raw | {"products": tuple(raw["products"])})

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @property
    def deps(self) -> list[DataFile]:
        """The data among the files."""
        return [item for item in self.files if item.context == "dep"]

    @property
    def first(self) -> bool:
        """Whether this pod has the first process, which writes the outputs."""
        return os.environ.get("JOB_COMPLETION_INDEX", "0") == "0"


def tracked_deps(root: Path, deps: Iterable[DataFile]) -> dict[str, Tracked]:
    """What DVC knows of each dependency, by its path.

    Raises:
        InterloomError: DVC does not track it, or it has changed since.
    """
    known = _known(root)
    found: dict[str, Tracked] = {}
    for dep in deps:
        parts = Path(dep.path).parts
        paths = ["/".join(parts[:end]) for end in range(len(parts), 0, -1)]
        holder = next((path for path in paths if path in known), None)
        if holder is None:
            raise InterloomError(
                f"{dep.path} is in no .dvc file and not in dvc.lock, so pods cannot pull it: make "
                "it with `dvc repro`, or use cluster.data.kind = volume"
            )
        if holder == dep.path and known[holder] != dep.md5:
            raise InterloomError(
                f"{dep.path} has changed since DVC saw it: `dvc repro` its stage, or `dvc commit`"
            )
        found[dep.path] = Tracked(holder, known[holder])
    return found


def _known(root: Path) -> dict[str, str]:
    """Digest of all that DVC tracks in a project, by path."""
    known: dict[str, str] = {}
    for file in root.glob("*.dvc"):
        if file.is_file():
            for out in yaml.safe_load(file.read_text(encoding="utf-8")).get("outs", []):
                known[out["path"]] = out["md5"]
    lock = root / "dvc.lock"
    if lock.exists():
        stages = yaml.safe_load(lock.read_text(encoding="utf-8")).get("stages", {})
        for stage in stages.values():
            for out in stage.get("outs", []):
                known[out["path"]] = out["md5"]
    return known


def remote_options(root: Path, name: str) -> dict[str, str]:
    """The options of a remote of the project, without its credentials; its path made absolute.

    Raises:
        InterloomError: no such remote.
    """
    options = _configuration(root)
    name = name or options.get("core.remote", "")
    prefix = f"remote.{name}."
    found = {
        key.removeprefix(prefix): value
        for key, value in options.items()
        if key.startswith(prefix) and key.removeprefix(prefix) in OPTIONS
    }
    if "url" not in found:
        known = sorted({key.split(".")[1] for key in options if key.startswith("remote.")})
        raise InterloomError(
            f"cluster.data.remote = {name!r} is no remote of DVC here (remotes: "
            f"{', '.join(known) or 'none'}): `dvc remote add`"
        )
    if "://" not in found["url"]:
        found["url"] = str((root / ".dvc" / found["url"]).resolve())
    return found


def _configuration(root: Path) -> dict[str, str]:
    """DVC's settings of a project, of all its configuration files together."""
    lines = (line.partition("=") for line in _dvc(root, "config", "--list").splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def reach(root: Path, remote: str) -> None:
    """Ask a remote what it has of the shipped data, and so whether it can be read at all.

    Raises:
        TransferError: it does not answer, or refuses; with DVC's last lines.
    """
    chosen = ["--remote", remote] if remote else []
    _dvc(root, "status", "--cloud", *chosen, *(file.name for file in sorted(root.glob("*.dvc"))))


def push_deps(root: Path, remote: str, paths: Sequence[str]) -> None:
    """Bring what a stage reads to the remote; what is there already is not sent again."""
    if not paths:
        return
    chosen = ["--remote", remote] if remote else []
    try:
        _dvc(root, "push", "--quiet", *chosen, *paths)
    except TransferError as error:
        raise InterloomError(
            f"what the stage reads cannot be pushed for its pods: {error}"
        ) from None


def fetch(inputs: Inputs, root: Path, params: Path | None) -> None:
    """In a pod: make ``root`` a project folder with everything that the stage reads.

    Raises:
        TransferError: the remote does not give it.
        InterloomError: what came is not what the caller has.
    """
    _repository(root, inputs.remote)
    for tracked in set(inputs.tracked.values()):
        _note(root, tracked.path, tracked.md5)
    if inputs.tracked:
        print(f"pulling {', '.join(inputs.tracked)}", flush=True)
        _dvc(root, "pull", "--quiet", *inputs.tracked)
    for dep in inputs.deps:
        if digest(root / dep.path) != dep.md5:
            raise InterloomError(
                f"{dep.path} is not what the caller has: `dvc repro` its stage, or `dvc commit`"
            )
    if params is not None:
        shutil.copyfile(params, root / "params.yaml")
    (root / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")


def push_products(inputs: Inputs, root: Path) -> None:
    """In a pod: bring what the stage wrote to the remote."""
    print(f"pushing {', '.join(inputs.products)}", flush=True)
    _dvc(root, "add", "--quiet", *inputs.products)
    _dvc(root, "push", "--quiet", *(f"{path}.dvc" for path in inputs.products))


def pull_products(
    root: Path, aside: Path, outs: Mapping[str, str], remote: Mapping[str, str]
) -> None:
    """At the caller: lay the outputs with these digests aside, whole, to be moved into place.

    They come through the project's own cache, where its ``dvc`` then finds them.

    Raises:
        TransferError: the remote does not give them.
    """
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    cache = root / ".dvc" / _configuration(root).get("cache.dir", "cache")
    _repository(aside, remote, cache)
    for path, md5 in outs.items():
        _note(aside, path, md5)
    _dvc(aside, "pull", "--quiet", *outs)
    wrong = [path for path, md5 in outs.items() if digest(aside / path) != md5]
    if wrong:
        raise TransferError(f"{', '.join(wrong)} came with another digest")
    declare_whole(aside, outs)


def _repository(folder: Path, remote: Mapping[str, str], cache: Path | None = None) -> None:
    """A DVC repository that knows one remote."""
    lines = ["[core]", "no_scm = true", "analytics = false", "remote = main"]
    if cache is not None:
        lines += ["[cache]", f"dir = {cache.resolve()}"]
    lines += ["['remote \"main\"']", *(f"{name} = {value}" for name, value in remote.items())]
    (folder / ".dvc").mkdir(exist_ok=True)
    (folder / ".dvc" / "config").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _note(root: Path, path: str, md5: str) -> None:
    """A ``.dvc`` file for what has this digest."""
    file = root / f"{path}.dvc"
    file.parent.mkdir(parents=True, exist_ok=True)
    out = {"md5": md5, "hash": "md5", "path": file.name.removesuffix(".dvc")}
    file.write_text(yaml.safe_dump({"outs": [out]}), encoding="utf-8")


def _dvc(folder: Path, *words: str) -> str:
    """What a ``dvc`` command prints.

    Raises:
        TransferError: it fails; with its last lines.
    """
    hidden = ("DVC_ROOT", "DVC_STAGE")  # of the `dvc repro` that runs this stage
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *words], cwd=folder, env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise TransferError(f"`dvc {words[0]}` failed: {' '.join(said[-3:])}")
    return done.stdout
