"""Stages ``generate``, ``evaluate``, ``report``, run for real on models that know nothing."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from benchmark_params import small_params, small_settings

from interloom.benchmarks import answers, evaluate, generate, report
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.report import markdown
from interloom.errors import InterloomError
from interloom.runner import StageRun
from interloom.settings.file import Settings, settings_from
from interloom.stages import cells, find_stage


def open_stage(root: Path, name: str) -> StageRun:
    work, aside = root / "work" / name, root / "aside" / name
    for folder in (work, aside):  # as the runner leaves them when it begins
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    return StageRun(find_stage(name), root, work, aside, None)


def generated(root: Path, settings: Settings) -> None:
    """Run every cell of the matrix and put the answers where the next stage looks for them."""
    for cell in cells(find_stage("generate"), settings):
        stage = open_stage(root, cell.name)
        generate.run(settings, stage)
        place = root / cell.outs["answers"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(stage.out("answers"))


def evaluated(root: Path, settings: Settings) -> StageRun:
    stage = open_stage(root, "evaluate")
    evaluate.run(settings, stage)
    place = root / "outputs/evaluation"
    place.unlink(missing_ok=True)
    place.symlink_to(stage.out("evaluation"))
    return stage


def test_every_cell_is_generated_graded_and_reported(models_project: Path):
    settings = small_settings()
    generated(models_project, settings)
    stage = evaluated(models_project, settings)
    out = stage.out("evaluation")
    summary = json.loads((out / "summary.json").read_text())
    assert len(summary["cells"]) == 18 and len(summary["differences"]) == 15
    assert summary["training_judge"] is True
    assert summary["systems"]["full-rl"].startswith("planner planner-sft, critic critic-rl")
    metrics = json.loads(stage.out("metrics").read_text())
    assert set(metrics) == {"ueval", "wise", "rise"}
    assert set(metrics["wise"]) >= {"full-rl", "oracle"}
    rows = list(csv.DictReader(stage.out("scores").read_text().splitlines()))
    assert len(rows) == 18 and all(float(row["low"]) <= float(row["score"]) for row in rows)
    assert {row["judge"] for row in rows} == {"pocket-verifier"}
    assert len({row["data"] for row in rows}) == 3, "a digest for each benchmark's items"
    # Models that know nothing make no plan; that is a score of zero, and not an unjudged item.
    found = {(c["benchmark"], c["system"]): c for c in summary["cells"]}
    blank, oracle = found["rise", "full-rl"], found["ueval", "oracle"]
    assert blank["run"]["without_plan"] == 1.0 and blank["unjudged"] == 0
    assert oracle["parts"]["text"] == 100 and oracle["run"]["images_per_request"] > 1
    # The layouts that the benchmarks' own scripts read.
    told = models_project / "outputs/answers"
    assert (told / "ueval/oracle/answers.json").is_file()
    assert list((told / "wise/generator").glob("*.png"))
    assert list((told / "rise/oracle/images").glob("*/*.png"))

    page = open_stage(models_project, "report")
    report.run(settings, page)
    html = (page.out("report") / "index.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', html), "the page must need no other file"
    for said in ("planner-sft → full-sft", "pocket-verifier", "data:image/png;base64,", "<svg"):
        assert said in html, said
    assert "| full-rl |" in (page.out("report") / "report.md").read_text()
    assert {p.name for p in (page.out("report") / "plots").iterdir()} >= {"scores.csv"}


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells that are generated from now on."""
    calls: list[str] = []
    fill: Callable[..., None] = answers.fill

    def noted(folder: Path, requests: Any, system: Any, *rest: Any, **named: Any) -> None:
        calls.append(f"{folder.parents[1].name}/{system.name}")
        fill(folder, requests, system, *rest, **named)

    monkeypatch.setattr(answers, "fill", noted)
    return calls


SMALL: dict[str, Any] = {"benchmarks": ["wise"], "systems": ["generator", "oracle"]}


def test_a_killed_generation_goes_on_where_it_was(
    models_project: Path, filled: list[str], monkeypatch: pytest.MonkeyPatch
):
    settings = small_settings(**SMALL)
    fill = answers.fill

    def killed(folder: Path, requests: Any, system: Any, *rest: Any, **named: Any) -> None:
        if system.name == "oracle":
            (folder / "half-written.png").write_bytes(b"x")
            raise KeyboardInterrupt
        fill(folder, requests, system, *rest, **named)

    monkeypatch.setattr(answers, "fill", killed)
    with pytest.raises(KeyboardInterrupt):
        generate.run(settings, open_stage(models_project, "generate@wise"))
    monkeypatch.setattr(answers, "fill", fill)
    again = StageRun(
        find_stage("generate@wise"),
        models_project,
        models_project / "w",
        models_project / "a",
        None,
    )
    again.work.mkdir()
    generate.run(settings, again)
    assert filled == ["generate@wise/generator", "generate@wise/oracle"]
    out = again.out("answers")
    assert not list(out.rglob("half-written.png"))
    assert {path.name for path in out.iterdir()} == {"generator", "oracle"}


def test_only_the_cells_that_changed_are_generated(models_project: Path, filled: list[str]):
    settings = small_settings(**SMALL | {"systems": ["full-rl", "full-sft", "oracle"]})
    generated(models_project, settings)
    first = list(filled)
    filled.clear()
    generated(models_project, settings)
    assert (len(first), filled) == (3, [])
    weights = models_project / "outputs/models/critic-rl/config.json"
    weights.write_text(weights.read_text() + "\n")  # another model as far as anyone can tell
    generated(models_project, settings)
    assert filled == ["generate@wise/full-rl"]
    filled.clear()
    generated(models_project, small_settings(**SMALL | {"systems": ["oracle"], "items": 12}))
    assert filled == ["generate@wise/oracle"], "other questions"
    kept = models_project / ".interloom/cache/generate@wise/cells"
    assert [path.name for path in kept.iterdir()] == ["oracle"], "systems that left are forgotten"


def test_a_killed_grading_goes_on_and_gives_the_same(
    models_project: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = small_settings(**SMALL)
    generated(models_project, settings)
    whole = json.loads(
        (evaluated(models_project, settings).out("evaluation") / "summary.json").read_text()
    )
    graded: list[str] = []
    grade = evaluate.Edition.grade

    def killed(self: Any, folder: Path, grader: Any) -> Graded:
        graded.append(folder.name)
        if len(graded) == 2:
            raise KeyboardInterrupt
        return grade(self, folder, grader)

    monkeypatch.setattr(evaluate.Edition, "grade", killed)
    again = StageRun(
        find_stage("evaluate"), models_project, models_project / "w", models_project / "a", None
    )
    again.work.mkdir()
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(settings, again)
    again = StageRun(again._spec, models_project, again.work, models_project / "b", None)
    evaluate.run(settings, again)
    assert graded == ["generator", "oracle", "oracle"]
    assert json.loads((again.out("evaluation") / "summary.json").read_text()) == whole


def test_systems_in_another_order_compare_other_neighbours(models_project: Path):
    settings = small_settings(benchmarks=["wise"], systems=["oracle", "generator"])
    generated(models_project, settings)
    stage = evaluated(models_project, settings)
    summary = json.loads((stage.out("evaluation") / "summary.json").read_text())
    assert [(d["from"], d["to"]) for d in summary["differences"]] == [("oracle", "generator")]


def test_the_other_four_benchmarks_and_systems_of_ones_own(models_project: Path):
    raw = small_params()
    generator = raw["models"]["generator"] | {"steps": 2}
    raw["evaluate"] |= {
        "benchmarks": ["comm", "geneval", "kris", "omnicontext"],
        "more_systems": {
            "oracle-once": {
                "planner": "teacher", "critic": "none", "generator": "generator", "max_attempts": 1,
            },
            "two-steps": {
                "planner": "none", "critic": "none", "generator": generator, "max_attempts": 1,
            },
        },
        "systems": ["two-steps", "oracle-once"],
    }  # fmt: skip
    settings = settings_from(raw, "test")
    generated(models_project, settings)
    stage = evaluated(models_project, settings)
    summary = json.loads((stage.out("evaluation") / "summary.json").read_text())
    assert len(summary["cells"]) == 8
    assert summary["systems"]["two-steps"] == "diffusers data/generator alone"
    assert "T_max 1" in summary["systems"]["oracle-once"]
    assert {cell["unjudged"] for cell in summary["cells"]} == {0.0}
    told = models_project / "outputs/answers"
    for path in (
        "comm/oracle-once/task3/0000/results.json",
        "geneval/oracle-once/00000/metadata.jsonl",
        "geneval/oracle-once/00000/samples/0000.png",
        "omnicontext/oracle-once/fullset/single_object/single_object_0000.png",
    ):
        assert (told / path).is_file(), path
    assert list((told / "kris/oracle-once").glob("*/*.jpg"))
    assert "| two-steps |" in markdown(summary)


def test_systems_that_are_not_known_are_refused():
    for change, said in (
        ({"systems": ["best"]}, "no system 'best'; systems: generator, zero-shot"),
        ({"more_systems": {"oracle": {"registered": "models:/a@b"}}}, "take another name"),
        ({"more_systems": {"mine": {"registered": "models:/a"}}}, "more_systems.mine"),
        ({"data": {"wisdom": "x"}}, "wisdom"),
    ):
        with pytest.raises(InterloomError, match=said):
            small_settings(**change)
