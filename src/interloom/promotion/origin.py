"""``interloom lineage``: where a registered model comes from, and how to make it again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from interloom import lineage
from interloom.catalogue import Catalogue, aliases, fetch, resolve, shown
from interloom.digests import digest
from interloom.lineage import Lineage
from interloom.provenance import PACKAGES
from interloom.provenance import versions as installed

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@contextmanager
def opened(catalogue: Catalogue, uri: str) -> Iterator[tuple[ModelVersion, Path, Lineage]]:
    """A version, its lineage folder (for as long as this holds) and what it says."""
    version = resolve(catalogue, uri)
    with tempfile.TemporaryDirectory() as place:
        folder = fetch(catalogue, version, lineage.FOLDER, Path(place))
        yield version, folder, lineage.load(folder)


def tell(catalogue: Catalogue, uri: str) -> str:
    """All that leads from a model to what it was made of, and the commands that make it anew."""
    with opened(catalogue, uri) as (version, folder, found):
        exact = f"models:/{version.name}/{version.version}"
        number = str(version.version)
        named = [a for a, v in aliases(catalogue, version.name).items() if v == number]
        lines = [
            f"model      {version.name} version {version.version}"
            + "".join(f" @{alias}" for alias in sorted(named)),
            *_run_lines(catalogue, version),
            *_git_lines(found),
            *_lock_lines(folder, found),
            *_package_lines(found),
            "",
            "datasets (md5 as DVC has it)",
            *(f"  {md5:<36}  {path}" for path, md5 in found.datasets.items()),
            "read by the registration",
            *(f"  {md5:<36}  {path}" for path, md5 in found.read.items()),
            "",
            "rebuild",
        ]
    tracking = catalogue.uri
    if shown(tracking) != tracking:
        tracking = shown(tracking)
        lines.append("  # with the password that is left out here")
    lines += [f"  {command}" for command in lineage.commands(found, exact, tracking)]
    return "\n".join(lines)


def _run_lines(catalogue: Catalogue, version: ModelVersion) -> list[str]:
    from mlflow.exceptions import MlflowException

    if not version.run_id:
        return ["run        none"]
    try:
        run = catalogue.client.get_run(version.run_id)
    except MlflowException as error:
        return [f"run        {version.run_id}: {error.message}"]
    flow = run.data.tags.get("prefect.flow_run_url") or run.data.tags.get("prefect.flow_run_id")
    return [
        f"run        {version.run_id} (experiment {run.info.experiment_id}) by "
        f"{run.data.tags.get('mlflow.user', 'unknown')}",
        *([f"flow run   {flow}"] if flow else []),
    ]


def _git_lines(found: Lineage) -> list[str]:
    state = "as committed"
    if found.dirty:
        state = f"with uncommitted changes, kept in {lineage.PATCH}"
    lines = [f"git        {found.commit} ({found.branch}), {state}"]
    if found.untracked:
        names = ", ".join(found.untracked[:5]) + (" …" if len(found.untracked) > 5 else "")
        lines.append(f"           not in git and so not kept: {names}")
    return lines


def _lock_lines(folder: Path, found: Lineage) -> list[str]:
    lock = folder / lineage.LOCK
    if not lock.exists():
        return ["dvc.lock   none: the stages were run without DVC"]
    words = "agrees with what was read"
    if found.disagrees:
        words = f"has OTHER digests for {', '.join(found.disagrees)}: stages were run without DVC"
    return [f"dvc.lock   md5 {digest(lock)}, {words}"]


def _package_lines(found: Lineage) -> list[str]:
    here = installed(PACKAGES)
    other = [
        f"{name} {then} (here {here.get(name, 'none')})"
        for name, then in found.packages.items()
        if here.get(name) != then
    ]
    return [f"packages   Python {found.python}; " + (", ".join(other) or "all as here")]


def restore(catalogue: Catalogue, uri: str) -> list[str]:
    """Make the project folder, a fresh clone, what it was when the model was registered."""
    with opened(catalogue, uri) as (_, folder, _):
        kept = catalogue.root / ".interloom" / lineage.FOLDER
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept)
        return lineage.restore(kept, catalogue.root)


def compare(catalogue: Catalogue, uri: str, tolerance: float) -> tuple[str, bool]:
    """What the project folder holds now against what the model was made from; whether it is the
    same."""
    with opened(catalogue, uri) as (_, _, found):
        rows = lineage.compare(found, catalogue.root, tolerance)
    lines = [f"{'same   ' if same else 'DIFFERS'}  {path}  {words}" for path, same, words in rows]
    differing = sum(not same for _, same, _ in rows)
    summary = f"{differing} of {len(rows)} differ from" if differing else f"all {len(rows)} as in"
    return "\n".join([*lines, f"{summary} {uri}"]), not differing
