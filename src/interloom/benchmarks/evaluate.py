"""Stage ``evaluate``: grade what the systems made, from where stage ``generate`` wrote it.

Nothing is generated here: answers lie in each benchmark's own layout, and each is graded by its
judge and formula. A killed stage goes on with the first cell that was not graded; a remote judge's
answers are kept whatever happens.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from interloom import cast
from interloom.benchmarks import evidence, graders
from interloom.benchmarks.editions import Edition, Grader
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.statistics import Estimate
from interloom.runner import StageRun
from interloom.settings.evaluation import AskedSettings
from interloom.settings.file import Settings


@dataclass(frozen=True)
class Cell:
    """A graded cell; ``made_of`` says what the system is."""

    benchmark: str
    system: str
    graded: Graded
    made_of: str


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    grade(settings, settings.evaluate, settings.evaluate.systems, stage)


def grade(
    settings: Settings, options: AskedSettings, systems: Sequence[str], stage: StageRun
) -> None:
    """Grade all cells that a section asks for, and write the stage's outputs."""
    remotes = cast.remotes(settings.remote, stage)
    editions = list(graders.editions_of(options, settings))
    grader = graders.open_grader(settings, remotes, editions)
    if grader.chat is not None:
        for line in graders.summary(graders.estimates(settings, Path.cwd(), options, systems)):
            stage.log(f"at most {line}")
    cells: list[Cell] = []
    out = stage.out("evaluation")
    out.mkdir(parents=True)
    bar = stage.progress(len(editions) * len(systems), "grading")
    with bar:
        for edition in editions:
            evidence.write_requests(edition.requests, out / edition.name)
            for system in systems:
                cells.append(grade_cell(edition, system, grader, stage))
                folder = out / edition.name / system
                folder.mkdir()
                cells[-1].graded.save(folder / "graded.json")
                bar.advance()
    same = graders.is_training_judge(settings.grading, settings.teacher)
    write_outputs(cells, stage, settings, options, training_judge=same)


def grade_cell(edition: Edition, system: str, grader: Grader, stage: StageRun) -> Cell:
    """Grade a cell's answers unless that was done before a kill."""
    answers = stage.dep("answers") / edition.name / system
    kept = stage.work / edition.name / f"{system}.json"
    if kept.exists():
        graded = Graded.read(kept)
    else:
        graded = edition.grade(answers, grader)
        figures = json.loads((answers / "run.json").read_text(encoding="utf-8"))
        graded = replace(graded, run=figures, data=edition.data)
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        graded.save(part)
        part.replace(kept)
    stage.metrics({f"{edition.name}/{system}": graded.overall.value})
    stage.log(f"{edition.name} × {system}: {graded.overall}{unjudged_note(graded.unjudged)}")
    told = json.loads((answers / "system.json").read_text(encoding="utf-8"))
    return Cell(edition.name, system, graded, told["made of"])


MOST_UNJUDGED = 0.02
"""Share of unjudged judge calls above which a table says so."""


def unjudged_note(share: float) -> str:
    """
    >>> unjudged_note(0.02), unjudged_note(0.031)
    ('', ' (3.1 % unjudged)')
    """
    return "" if share <= MOST_UNJUDGED else f" ({share:.1%} unjudged)".replace("%", " %")


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


def write_outputs(
    cells: Sequence[Cell],
    stage: StageRun,
    settings: Settings,
    options: AskedSettings,
    *,
    training_judge: bool,
) -> None:
    """Summary, metrics, plot and tables of the stage."""
    summary = {
        "profile": settings.profile,
        "seed": settings.seed,
        "training_judge": training_judge,
        "systems": {cell.system: cell.made_of for cell in cells},
        "cells": [
            {
                "benchmark": cell.benchmark,
                "system": cell.system,
                "protocol": cell.graded.protocol,
                "judge": cell.graded.judge,
                "data": cell.graded.data,
                "source": {**options.data}.get(cell.benchmark, "pocket edition"),
                "overall": asdict(cell.graded.overall),
                "parts": cell.graded.parts,
                "unjudged": cell.graded.unjudged,
                "run": cell.graded.run,
            }
            for cell in cells
        ],
        "differences": differences(cells),
    }
    out = stage.out("evaluation")
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    metrics: dict[str, dict[str, float]] = {}
    for cell in cells:
        entry = metrics.setdefault(cell.benchmark, {})
        entry[cell.system] = round(cell.graded.overall.value, 4)
    stage.out("metrics").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n", "utf-8")
    rows = [_row(cell) for cell in cells]
    _write_scores(stage.out("scores"), rows)
    stage.table("scores", rows)
    stage.table("differences", summary["differences"])


def _row(cell: Cell) -> dict[str, str | int]:
    """A line of the table of scores."""
    overall: Estimate = cell.graded.overall
    numbers = {"score": overall.value, "low": overall.low, "high": overall.high}
    return {
        "benchmark": cell.benchmark,
        "system": cell.system,
        **{name: f"{value:.4f}" for name, value in numbers.items()},
        "items": overall.n,
        "unjudged": f"{cell.graded.unjudged:.4f}",
        "protocol": cell.graded.protocol,
        "judge": cell.graded.judge,
        "data": cell.graded.data,
    }


def _write_scores(path: Path, rows: Sequence[dict[str, str | int]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
