"""Stage ``evaluate``: systems × benchmarks, generation and grading apart, resumable by cell.

A cell is one system on one benchmark. Its answers are written in the benchmark's own layout and
graded from there, so that other scripts can grade them too. Calls of shared models (all SFT
systems share a planner) are made once: they are kept in the stage's work folder by content, which
is also what makes a killed stage resume.
"""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch

from interloom import cast, loop
from interloom.benchmarks import pocket_rise, pocket_ueval, pocket_wise
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.statistics import Estimate
from interloom.benchmarks.systems import MODELS, System, loader
from interloom.cache import CallCache
from interloom.construct import store
from interloom.records import Request, Trajectory
from interloom.roles import Generator
from interloom.runner import StageRun
from interloom.settings import EvaluateSettings, Settings, SystemName


class Edition(Protocol):
    """What a benchmark's module offers (``pocket_ueval`` and its neighbours)."""

    NAME: str

    @staticmethod
    def requests(count: int, seed: int) -> list[Request]:
        """The benchmark's items as requests; the same for every system."""
        ...

    @staticmethod
    def write(folder: Path, trajectories: Sequence[Trajectory], *, with_text: bool) -> None:
        """Write what a system made, in the benchmark's own layout."""
        ...

    @staticmethod
    def grade(folder: Path, count: int, seed: int) -> Graded:
        """Grade what lies in the folder."""
        ...


EDITIONS: dict[str, Any] = {
    edition.NAME: edition for edition in (pocket_ueval, pocket_wise, pocket_rise)
}


@dataclass(frozen=True)
class Cell:
    """A graded cell and where its answers lie."""

    benchmark: str
    system: SystemName
    graded: Graded


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    options = settings.evaluate
    if options.threads:
        torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folders = {name: stage.dep(name) for name in MODELS}
    cache = CallCache(stage.work / "calls.sqlite")
    remotes = cast.remotes(settings.remote, stage)
    make = loader(settings.models, settings.teacher, options, folders, device, remotes, cache)
    chosen = settings.models.generator_named(settings.evaluate.generator)
    generator: list[Generator] = []  # loaded for the first cell that has to be generated
    cells: list[Cell] = []
    for benchmark in options.benchmarks:
        for system in options.systems:
            folder = stage.work / benchmark / system
            if not (folder / "graded.json").exists():
                if not generator:
                    generator.append(cast.generator(chosen, remotes, cache))
                fill_cell(
                    folder,
                    benchmark,
                    make(system),
                    stage,
                    generator=generator[0],
                    options=options,
                    seed=settings.seed,
                )
            cells.append(Cell(benchmark, system, Graded.read(folder / "graded.json")))
            stage.metrics({f"{benchmark}/{system}": cells[-1].graded.overall.value})
    cache.close()
    write_outputs(cells, stage, settings.profile)


def fill_cell(
    folder: Path,
    benchmark: str,
    system: System,
    stage: StageRun,
    *,
    generator: Generator,
    options: EvaluateSettings,
    seed: int,
) -> None:
    """Generate a cell's answers unless they are there, then grade them."""
    edition = EDITIONS[benchmark]
    if not (folder / "run.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        requests = edition.requests(options.items, seed)
        started = time.monotonic()
        with stage.progress(len(requests), f"{benchmark} × {system.name}") as bar:
            trajectories = loop.run(
                requests,
                system.planner,
                generator,
                system.critic,
                max_attempts=system.max_attempts,
                seed=seed,
                slots=len(requests),
                retries=0,  # the agents repeat what they cannot read themselves
                on_progress=lambda _: bar.advance(),
            )
        edition.write(folder, trajectories, with_text=system.name != "generator")
        store.write_shards(trajectories, folder / "trajectories", shard_rows=500, about={})
        figures = run_figures(trajectories, time.monotonic() - started)
        (folder / "run.json").write_text(json.dumps(figures), encoding="utf-8")
    graded = edition.grade(folder, options.items, seed)
    graded.run.update(json.loads((folder / "run.json").read_text(encoding="utf-8")))
    graded.save(folder / "graded.json")
    stage.log(f"{benchmark} × {system.name}: {graded.overall}")


def run_figures(trajectories: Sequence[Trajectory], seconds: float) -> dict[str, float]:
    """How the answers came about, per request."""
    count = len(trajectories)
    attempts = [a for t in trajectories for trace in t.steps for a in trace.attempts]
    images = sum(attempt.image is not None for attempt in attempts)
    return {
        "requests": float(count),
        "images_per_request": images / count,
        "steps_per_request": sum(len(t.steps) for t in trajectories) / count,
        "without_plan": sum(t.plan is None for t in trajectories) / count,
        "failed_calls": float(sum(attempt.failure is not None for attempt in attempts)),
        "seconds": seconds,
    }


def differences(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Paired differences of neighbouring systems on each benchmark."""
    rows = []
    for before, after in pairwise(cells):
        if before.benchmark == after.benchmark:
            difference = after.graded.minus(before.graded)
            rows.append(
                {"benchmark": after.benchmark, "from": before.system, "to": after.system}
                | asdict(difference)
            )
    return rows


def write_outputs(cells: Sequence[Cell], stage: StageRun, profile: str) -> None:
    """Cells, summary, metrics and plot of the stage."""
    out = stage.out("evaluation")
    out.mkdir(parents=True)
    for cell in cells:
        shutil.copytree(
            stage.work / cell.benchmark / cell.system, out / cell.benchmark / cell.system
        )
    summary = {
        "profile": profile,
        "cells": [
            {
                "benchmark": cell.benchmark,
                "system": cell.system,
                "protocol": cell.graded.protocol,
                "judge": cell.graded.judge,
                "overall": asdict(cell.graded.overall),
                "parts": cell.graded.parts,
                "unjudged": cell.graded.unjudged,
                "run": cell.graded.run,
            }
            for cell in cells
        ],
        "differences": differences(cells),
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    metrics: dict[str, dict[str, float]] = {}
    for cell in cells:
        entry = metrics.setdefault(cell.benchmark, {})
        entry[cell.system] = round(cell.graded.overall.value, 4)
    stage.out("metrics").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n", "utf-8")
    _write_scores(stage.out("scores"), cells)


def _write_scores(path: Path, cells: Sequence[Cell]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["benchmark", "system", "score", "low", "high", "items", "unjudged"])
        for cell in cells:
            overall: Estimate = cell.graded.overall
            numbers = (overall.value, overall.low, overall.high)
            shown = (*(f"{n:.4f}" for n in numbers), overall.n, f"{cell.graded.unjudged:.4f}")
            writer.writerow([cell.benchmark, cell.system, *shown])
