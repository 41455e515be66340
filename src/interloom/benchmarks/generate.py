"""Stage ``generate``: every system answers a benchmark; grading is another stage.

The stage is a DVC matrix over ``evaluate.benchmarks``, and a *cell* is one system on one benchmark.
Not every cell is a DVC stage of its own: that would be a process each, and importing the models'
libraries takes ten seconds of CPU, which is longer than most pocket cells take; and systems that
share a planner would each make its calls. So a process answers one benchmark with all systems, and
looks after its cells itself: a cell is kept in ``.interloom/cache`` with the key of all that
decides it (questions, models' digests, settings, code), and is made anew only if the key is another
one. A critic that was trained anew makes its own cells anew, and no other.

Answers are written in the benchmark's own layout, so that other scripts can grade them too.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom import cast
from interloom.benchmarks.editions import Edition, open_edition
from interloom.benchmarks.parts import MODELS, described, identity, parts_of, writes_text
from interloom.cache import CallCache
from interloom.code import code_of
from interloom.construct import store
from interloom.digests import digest
from interloom.runner import StageRun
from interloom.settings import Settings

if TYPE_CHECKING:
    from interloom.benchmarks.answers import Players

ANSWERED_BY = "interloom.benchmarks.answers"
"""The module whose code decides a cell's answers: not the judges' and formulas'."""
KEY = "key.json"
SYSTEM = "system.json"
"""What the system is made of, beside its answers."""


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    options = settings.evaluate
    edition = open_edition(stage.value, options, settings.seed)
    cells = stage.cache / "cells"
    forget(cells, options.systems)
    out = stage.out("answers")
    out.mkdir(parents=True)
    players: list[Players] = []  # opened for the first cell that has to be filled
    code = code_digest()
    for name in options.systems:
        system = identity(name, settings, stage.digest_of, version_of)
        key = {"data": edition.data, "seed": settings.seed, "system": system, "code": code}
        if not is_known(cells / name, key):
            if not players:
                players.append(open_players(settings, stage))
            fill_cell(cells / name, key, players[0], name, edition, stage)
        give_out(cells / name, out / name, edition, settings, name, system)
        figures = json.loads((cells / name / "run.json").read_text(encoding="utf-8"))
        stage.metrics({f"{name}/{figure}": value for figure, value in figures.items()})
        stage.log(f"{stage.value} × {name}: {figures['images_per_request']:.1f} images a request")


def open_players(settings: Settings, stage: StageRun) -> Players:
    """All systems, with nothing loaded yet but the libraries."""
    from interloom.benchmarks.answers import Players

    folders = {name: stage.dep(name) for name in MODELS}
    folders["vlm"] = Path(settings.models.vlm)  # may be a hub's name
    cache = CallCache(stage.work / "calls.sqlite")
    return Players(settings, folders, cast.remotes(settings.remote, stage), cache)


def fill_cell(
    folder: Path,
    key: dict[str, Any],
    players: Players,
    name: str,
    edition: Edition,
    stage: StageRun,
) -> None:
    """Let a system answer, and keep its answers with their key."""
    from interloom.benchmarks import answers

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    system, generator = players.system(name)
    answers.fill(folder, edition.requests, system, generator, stage, seed=key["seed"])
    (folder / KEY).write_text(json.dumps(key, sort_keys=True), encoding="utf-8")  # whole


def is_known(folder: Path, key: dict[str, Any]) -> bool:
    """Whether a cell holds the answers that belong to the key."""
    try:
        kept = json.loads((folder / KEY).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):  # never there, or killed while it was written
        return False
    return kept == json.loads(json.dumps(key))


def give_out(
    cell: Path,
    folder: Path,
    edition: Edition,
    settings: Settings,
    name: str,
    system: dict[str, Any],
) -> None:
    """Write a cell's answers to the stage's output, in the benchmark's layout and as they came."""
    trajectories = list(store.read_trajectories(cell / "trajectories"))
    folder.mkdir()
    text = writes_text(parts_of(name, settings.evaluate))
    edition.write(folder, trajectories, with_text=text)
    shutil.copytree(cell / "trajectories", folder / "trajectories")
    shutil.copy(cell / "run.json", folder)
    told = {"made of": described(system), "identity": system}
    (folder / SYSTEM).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def forget(cells: Path, systems: list[str]) -> None:
    """Remove the cells of systems that are no longer asked for."""
    if cells.is_dir():
        for folder in cells.iterdir():
            if folder.name not in systems:
                shutil.rmtree(folder)


def version_of(uri: str) -> str:
    """The version that a registered model's URI stands for now."""
    from interloom.catalogue import open_catalogue, resolve

    return str(resolve(open_catalogue(Path.cwd()), uri).version)


def code_digest() -> str:
    """Digest of the code that decides answers; empty where the package has no sources."""
    found = [path for path in code_of(ANSWERED_BY) if Path(path).exists()]
    return store.content(*((path, digest(Path(path))) for path in found))
