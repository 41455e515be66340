"""Systems answer a benchmark, each in a *cell* of its own; grading is another stage.

A stage that does this is a DVC matrix over benchmarks, and a cell is one system on one benchmark.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from interloom.benchmarks.editions import Edition, open_edition
from interloom.benchmarks.filled import FIGURES, TRAJECTORIES
from interloom.code import code_of
from interloom.construct import store
from interloom.digests import digest
from interloom.records import Request
from interloom.runner import StageRun
from interloom.settings.evaluation import AskedSettings

KEY = "key.json"
SYSTEM = "system.json"
"""What the system is made of, beside its answers."""


class Contestants(Protocol):
    """The systems of a stage, with nothing loaded before the first cell that has to be filled."""

    answered_by: str
    """The module whose code decides a cell's answers: not the judges' and formulas'."""

    def identity(self, name: str) -> dict[str, Any]:
        """All that decides what a system answers to given questions, as plain values."""
        ...

    def described(self, found: dict[str, Any]) -> str:
        """An identity in a line, for people."""
        ...

    def writes_text(self, name: str) -> bool:
        """Whether a system writes text beside its pictures."""
        ...

    def fill(self, folder: Path, name: str, requests: Sequence[Request], *, seed: int) -> None:
        """Let a system answer, and keep its trajectories and ``run.json`` in ``folder``."""
        ...


def answer(
    options: AskedSettings,
    systems: Sequence[str],
    contestants: Contestants,
    stage: StageRun,
    *,
    seed: int,
) -> None:
    """The body of a stage: fill the cells that are not known, and give all of them out."""
    edition = open_edition(stage.value, options, seed)
    cells = stage.cache / "cells"
    forget(cells, systems)
    out = stage.out("answers")
    out.mkdir(parents=True)
    code = code_digest(contestants.answered_by)
    for name in systems:
        system = contestants.identity(name)
        key = {"data": edition.data, "seed": seed, "system": system, "code": code}
        if not is_known(cells / name, key):
            fill(cells / name, key, contestants, name, edition)
        told = {"made of": contestants.described(system), "identity": system}
        give_out(cells / name, out / name, edition, told, with_text=contestants.writes_text(name))
        figures = json.loads((cells / name / FIGURES).read_text(encoding="utf-8"))
        stage.metrics({f"{name}/{figure}": value for figure, value in figures.items()})
        stage.log(f"{stage.value} × {name}: {figures['images_per_request']:.1f} images a request")


def fill(
    folder: Path, key: dict[str, Any], contestants: Contestants, name: str, edition: Edition
) -> None:
    """Let a system answer, and keep its answers with their key."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    contestants.fill(folder, name, edition.requests, seed=key["seed"])
    (folder / KEY).write_text(json.dumps(key, sort_keys=True), encoding="utf-8")  # whole


def is_known(folder: Path, key: dict[str, Any]) -> bool:
    """Whether a cell holds the answers that belong to the key."""
    try:
        kept = json.loads((folder / KEY).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):  # never there, or killed while it was written
        return False
    return kept == json.loads(json.dumps(key))


def give_out(
    cell: Path, folder: Path, edition: Edition, told: dict[str, Any], *, with_text: bool
) -> None:
    """Write a cell's answers to the stage's output, in the benchmark's layout and as they came."""
    trajectories = list(store.read_trajectories(cell / TRAJECTORIES))
    folder.mkdir()
    edition.write(folder, trajectories, with_text=with_text)
    shutil.copytree(cell / TRAJECTORIES, folder / TRAJECTORIES)
    shutil.copy(cell / FIGURES, folder)
    (folder / SYSTEM).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def forget(cells: Path, systems: Sequence[str]) -> None:
    """Remove the cells of systems that are no longer asked for."""
    if cells.is_dir():
        for folder in cells.iterdir():
            if folder.name not in systems:
                shutil.rmtree(folder)


def code_digest(module: str) -> str:
    """Digest of the code that decides answers; empty where the package has no sources."""
    found = [path for path in code_of(module) if Path(path).exists()]
    return store.content(*((path, digest(Path(path))) for path in found))
