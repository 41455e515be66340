"""The stages ``evaluate`` and ``report``, run for real on models that know nothing."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
from benchmark_params import small_settings

from interloom.benchmarks import evaluate, report
from interloom.benchmarks.graded import Graded
from interloom.runner import StageRun
from interloom.stages import find_stage


def open_stage(root: Path, name: str) -> StageRun:
    work, aside = root / "work" / name, root / "aside" / name
    work.mkdir(parents=True, exist_ok=True)
    aside.mkdir(parents=True, exist_ok=True)
    return StageRun(find_stage(name), root, work, aside, None)


def test_every_cell_is_generated_graded_and_reported(models_project: Path):
    stage = open_stage(models_project, "evaluate")
    evaluate.run(small_settings(), stage)
    out = stage.out("evaluation")
    summary = json.loads((out / "summary.json").read_text())
    assert len(summary["cells"]) == 18 and len(summary["differences"]) == 15
    metrics = json.loads(stage.out("metrics").read_text())
    assert set(metrics) == {"ueval", "wise", "rise"} and set(metrics["wise"]) >= {
        "full-rl",
        "oracle",
    }
    rows = list(csv.DictReader(stage.out("scores").read_text().splitlines()))
    assert len(rows) == 18 and all(float(row["low"]) <= float(row["score"]) for row in rows)
    # Models that know nothing make no plan; that is a score of zero, and not an unjudged item.
    blank = next(
        c for c in summary["cells"] if (c["benchmark"], c["system"]) == ("rise", "full-rl")
    )
    assert blank["run"]["without_plan"] == 1.0 and blank["unjudged"] == 0
    oracle = next(
        c for c in summary["cells"] if (c["benchmark"], c["system"]) == ("ueval", "oracle")
    )
    assert oracle["parts"]["text"] == 100 and oracle["run"]["images_per_request"] > 1

    (models_project / "outputs/evaluation").symlink_to(out)
    page = open_stage(models_project, "report")
    report.run(small_settings(), page)
    html = (page.out("report") / "index.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', html), "the page must need no other file"
    for said in ("planner-sft → full-sft", "pocket-verifier", "data:image/png;base64,", "<svg"):
        assert said in html, said
    assert "| full-rl |" in (page.out("report") / "report.md").read_text()
    assert {p.name for p in (page.out("report") / "plots").iterdir()} >= {"scores.csv"}


def test_a_killed_evaluation_goes_on_where_it_was(
    models_project: Path, monkeypatch: pytest.MonkeyPatch
):
    chosen = small_settings(benchmarks=["wise", "rise"], systems=["generator", "oracle"])
    whole = open_stage(models_project, "evaluate")
    evaluate.run(chosen, whole)
    expected = json.loads((whole.out("evaluation") / "summary.json").read_text())

    again = StageRun(whole._spec, models_project, whole.work / "b", whole.work / "aside", None)
    again.work.mkdir()
    fill, filled = evaluate.fill_cell, []

    def killed(folder: Path, *rest: Any, **named: Any) -> None:
        filled.append(folder)
        if len(filled) == 3:
            folder.mkdir(parents=True)
            (folder / "half-written.png").write_bytes(b"x")
            raise KeyboardInterrupt
        fill(folder, *rest, **named)

    monkeypatch.setattr(evaluate, "fill_cell", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(chosen, again)
    monkeypatch.setattr(evaluate, "fill_cell", fill)
    evaluate.run(chosen, again)
    got = json.loads((again.out("evaluation") / "summary.json").read_text())
    for summary in (expected, got):
        for cell in summary["cells"]:
            cell["run"].pop("seconds")
    assert got == expected
    assert not list(again.out("evaluation").rglob("half-written.png"))
    folder = again.out("evaluation") / "wise" / "oracle"
    assert Graded.read(folder / "graded.json").protocol.startswith("wise/legacy")


def test_systems_in_another_order_compare_other_neighbours(models_project: Path):
    stage = open_stage(models_project, "evaluate")
    evaluate.run(small_settings(benchmarks=["wise"], systems=["oracle", "generator"]), stage)
    summary = json.loads((stage.out("evaluation") / "summary.json").read_text())
    assert [(d["from"], d["to"]) for d in summary["differences"]] == [("oracle", "generator")]
