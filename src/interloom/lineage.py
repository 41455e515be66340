"""Where a registered model comes from, kept with it, and the commands that make it again.

Every model folder has a folder ``lineage``::

    lineage.json        git commit, digests of all that was read, metrics, versions of packages
    dvc.lock            as it was: the digest of every file on the way
    params.yaml         as it was
    uncommitted.patch   what was changed but not committed, if anything was

``restore`` puts this into a fresh clone, ``dvc repro`` makes everything anew, and ``compare`` holds
what came out against what was recorded.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import yaml

from interloom.digests import digest
from interloom.errors import InterloomError
from interloom.provenance import OWN_OUTPUTS, git, provenance
from interloom.records import Record

FOLDER = "lineage"
FILE = "lineage.json"
LOCK, PARAMS, PATCH = "dvc.lock", "params.yaml", "uncommitted.patch"
ABOUT_THE_RUN = frozenset({"calls_known"})
"""Figures in metrics files that tell how a run went and not what came out."""


class Lineage(Record):
    """What ``lineage.json`` says."""

    commit: str
    branch: str
    repository: str
    """What to clone: the remote ``origin``, else the repository's own path; without credentials."""
    subfolder: str
    """The project's place in its repository; empty at the top."""
    dirty: bool
    untracked: tuple[str, ...]
    """Files that git does not know: they are not in the patch."""
    has_makefile: bool
    pull: tuple[str, ...]
    """The ``*.dvc`` files: data that no stage makes."""
    targets: tuple[str, ...]
    """The stages to reproduce."""
    read: dict[str, str]
    """Digest of everything that the registration read, by path."""
    disagrees: tuple[str, ...]
    """Paths among them that ``dvc.lock`` has another digest for."""
    datasets: dict[str, str]
    """Digest of every dataset and of what it was made from, by path."""
    metrics: dict[str, dict[str, float]]
    """Figures by metrics file."""
    packages: dict[str, str]
    python: str


# --- recording ------------------------------------------------------------------------------------


def record(root: Path, folder: Path, *, read: Sequence[Path], datasets: Sequence[Path]) -> None:
    """Write the lineage of what is being registered in the project ``root`` to ``folder``.

    Args:
        read: everything that the registered models are made from.
        datasets: those of them that are training data.
    """
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    graph, lock = _Graph(root), _lock(root)
    digests = {_relative(path, root): digest(path) for path in read}
    sets = [_relative(path, root) for path in datasets]
    way = [*sets, *(out for maker in graph.above(sets) for out in graph.outs(maker))]
    targets = graph.last(list(digests))
    stages = [*graph.above(list(digests)), *targets]
    found = provenance(root)
    status = git("-C", str(root), "status", "--porcelain", "--", ".").splitlines()
    lineage = Lineage(
        commit=found["mlflow.source.git.commit"],
        branch=found["mlflow.source.git.branch"],
        repository=_repository(root),
        subfolder=git("-C", str(root), "rev-parse", "--show-prefix").rstrip("/"),
        dirty=found["interloom.git_dirty"] == "true",
        untracked=tuple(line[3:] for line in status if line.startswith("??") and not _own(line)),
        has_makefile=(root / "Makefile").exists(),
        pull=tuple(git("-C", str(root), "ls-files", "*.dvc").split()),
        targets=targets,
        read=digests,
        disagrees=tuple(path for path, md5 in digests.items() if lock.get(path, md5) != md5),
        datasets={path: digest(root / path) for path in sorted(set(way)) if (root / path).exists()},
        metrics={path: _figures(root / path) for path in graph.metrics(stages)},
        packages=json.loads(found["interloom.packages"]),
        python=found["interloom.python"],
    )
    (part / FILE).write_text(lineage.model_dump_json(indent=1) + "\n", encoding="utf-8")
    for name in (LOCK, PARAMS):
        if (root / name).exists():
            shutil.copyfile(root / name, part / name)
    if lineage.dirty and lineage.commit != "none":
        own = [f":!{path}" for path in OWN_OUTPUTS]
        patch = f"--output={part / PATCH}"
        git("-C", str(root), "diff", "HEAD", "--binary", patch, "--", ".", *own)
    part.rename(folder)


def _own(line: str) -> bool:
    """Whether a line of ``git status`` is about a file that the pipeline writes itself."""
    return line[3:].rstrip("/").split("/")[0] in OWN_OUTPUTS


def _relative(path: Path, root: Path) -> str:
    return path.resolve().relative_to(root.resolve()).as_posix()


def _repository(root: Path) -> str:
    url = git("-C", str(root), "remote", "get-url", "origin")
    if not url:
        return git("-C", str(root), "rev-parse", "--show-toplevel")
    return without_secrets(url)


def without_secrets(url: str) -> str:
    """A URL without the user part, in which tokens stand; other texts as they are.

    >>> without_secrets("https://ana:secret@example.org/x.git")
    'https://example.org/x.git'
    >>> without_secrets("git@example.org:x.git")
    'git@example.org:x.git'
    """
    parts = urlsplit(url)
    if parts.scheme == "ssh" and not parts.password:
        return url
    if not parts.scheme or "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _figures(path: Path) -> dict[str, float]:
    """Numbers of a metrics file by dotted name, but for those about the run; none without it."""
    if not path.exists():
        return {}
    return dict(_leaves(json.loads(path.read_text(encoding="utf-8"))))


def _leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(values, Mapping):
        for name, value in values.items():
            if name not in ABOUT_THE_RUN:
                yield from _leaves(value, f"{prefix}.{name}" if prefix else name)
    elif isinstance(values, int | float):
        yield prefix, float(values)


def _lock(root: Path) -> dict[str, str]:
    """Digest by path of every output in ``dvc.lock`` and in the ``*.dvc`` files of the project."""
    found: dict[str, str] = {}
    if (root / LOCK).exists():
        content = yaml.safe_load((root / LOCK).read_text(encoding="utf-8"))
        for stage in content.get("stages", {}).values():
            found |= {out["path"]: out["md5"] for out in stage.get("outs", [])}
    return found


class _Graph:
    """Who makes what, as ``dvc.yaml`` has it."""

    def __init__(self, root: Path) -> None:
        content = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))
        self._stages: dict[str, dict[str, Any]] = content["stages"]

    def outs(self, stage: str) -> list[str]:
        """Its outputs; of a matrix the folder that holds all of its cells' outputs."""
        return [_around(path) for path in _paths(self._stages[stage].get("outs"))]

    def metrics(self, stages: Sequence[str]) -> list[str]:
        """Metrics files of the stages, each once."""
        all_of_them = [p for s in stages for p in _paths(self._stages[s].get("metrics"))]
        return list(dict.fromkeys(all_of_them))

    def makers(self, paths: Sequence[str]) -> list[str]:
        """The stages that make the paths, directly."""
        return [name for name in self._stages if _touch(self.outs(name), paths)]

    def above(self, paths: Sequence[str]) -> list[str]:
        """The stages that make what the paths are made from, all the way up, not the makers."""
        found: set[str] = set()
        todo = self.makers(paths)
        while todo:
            deps = _paths(self._stages[todo.pop()].get("deps"))
            fresh = [name for name in self.makers(deps) if name not in found]
            found.update(fresh)
            todo += fresh
        return [name for name in self._stages if name in found]

    def last(self, paths: Sequence[str]) -> tuple[str, ...]:
        """Makers that no other maker needs: reproducing these reproduces all."""
        above = set(self.above(paths))
        return tuple(name for name in self.makers(paths) if name not in above)


def _paths(listed: Sequence[str | Mapping[str, Any]] | None) -> list[str]:
    """Paths of a list in ``dvc.yaml``, whose entries may carry options."""
    return [one if isinstance(one, str) else next(iter(one)) for one in listed or ()]


def _around(path: str) -> str:
    """
    >>> _around("outputs/answers/${item.value}"), _around("outputs/x.parquet")
    ('outputs/answers', 'outputs/x.parquet')
    """
    return path.partition("/${")[0]


def _touch(outs: Sequence[str], paths: Sequence[str]) -> bool:
    return any(PurePosixPath(path).is_relative_to(out) for out in outs for path in paths)


# --- using ----------------------------------------------------------------------------------------


def load(folder: Path) -> Lineage:
    """The lineage in a folder that ``record`` wrote."""
    return Lineage.model_validate_json((folder / FILE).read_text(encoding="utf-8"))


def commands(lineage: Lineage, uri: str, tracking: str) -> list[str]:
    """The shell commands that rebuild model ``uri``, whose MLflow is at ``tracking``.

    Raises:
        InterloomError: it was registered outside of git.
    """
    if lineage.commit == "none":
        raise InterloomError(f"{uri} was registered outside of git: there is nothing to clone")
    folder = "rebuilt-" + uri.removeprefix("models:/").replace("/", "-").replace("@", "-")
    place = f"{folder}/{lineage.subfolder}" if lineage.subfolder else folder
    mlflow = f"MLFLOW_TRACKING_URI='{tracking}' interloom lineage {uri}"
    made = [
        f"git clone {lineage.repository} {folder}",
        f"cd {place}",
        f"git checkout --quiet {lineage.commit}",
    ]
    if lineage.has_makefile:
        made.append("# in another environment: make install && . .venv/bin/activate")
    made.append(f"{mlflow} --restore")
    if lineage.pull:
        made.append(f"dvc pull {' '.join(lineage.pull)}")
    return [*made, f"dvc repro {' '.join(lineage.targets)}", f"{mlflow} --compare"]


def restore(folder: Path, root: Path) -> list[str]:
    """Put ``dvc.lock`` and uncommitted changes of a lineage folder into the clone ``root``.

    Raises:
        InterloomError: the clone is at another commit, or was changed.
    """
    lineage = load(folder)
    here = git("-C", str(root), "rev-parse", "HEAD")
    if here != lineage.commit:
        raise InterloomError(f"{root} is at {here[:12]}: `git checkout {lineage.commit}` first")
    own = [f":!{path}" for path in OWN_OUTPUTS]
    if git("-C", str(root), "status", "--porcelain", "--untracked-files=no", "--", ".", *own):
        raise InterloomError(f"{root} has uncommitted changes: restore in a fresh clone")
    done = []
    if (folder / LOCK).exists():
        shutil.copyfile(folder / LOCK, root / LOCK)
        done.append(f"{LOCK} is as it was when the model was registered")
    if (folder / PATCH).exists():
        top = git("-C", str(root), "rev-parse", "--show-toplevel")
        git("-C", top, "apply", str(folder / PATCH))
        if not git(
            "-C", str(root), "status", "--porcelain", "--untracked-files=no", "--", ".", *own
        ):
            raise InterloomError(f"{folder / PATCH} does not apply: see `git apply --check`")
        done.append("uncommitted changes are applied")
    return done


def compare(lineage: Lineage, root: Path, tolerance: float) -> list[tuple[str, bool, str]]:
    """What came out in ``root`` against what was recorded: (thing, same, words).

    Datasets must have the same digest, figures be the same within ``tolerance`` (relative, and
    absolute for figures near 0). Models are compared by their figures only.
    """
    rows = []
    for path, md5 in lineage.datasets.items():
        found = digest(root / path) if (root / path).exists() else "not there"
        rows.append((path, found == md5, md5 if found == md5 else f"{md5} → {found}"))
    for path, figures in lineage.metrics.items():
        now = _figures(root / path)
        differing = [
            f"{name} {figures.get(name)} → {now.get(name)}"
            for name in sorted(figures.keys() | now.keys())
            if not _near(figures.get(name), now.get(name), tolerance)
        ]
        words = "; ".join(differing) or f"{len(figures)} figures, within {tolerance:g}"
        rows.append((path, not differing, words))
    return rows


def _near(one: float | None, other: float | None, tolerance: float) -> bool:
    if one is None or other is None:
        return False
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
