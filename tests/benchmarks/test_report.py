"""The page: everything that a score rests on is said, and tables sort in a browser."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from executor import Executor

from interloom import loop
from interloom.backends.pocket import PocketTeacher
from interloom.benchmarks import pocket_wise, report_page
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.report import markdown
from interloom.construct import store

CHROMIUM = shutil.which("chromium")
SYSTEMS = {"generator": "diffusers x alone", "full-rl": "planner a, critic b", "oracle": "teacher"}


def summary(unjudged: float = 0.0, training_judge: bool = False) -> dict[str, Any]:
    run = {"requests": 12.0, "images_per_request": 1.5, "steps_per_request": 1.0,
           "without_plan": 0.0, "failed_calls": 0.0, "seconds": 3.0}  # fmt: skip

    def cell(benchmark: str, system: str, value: float) -> dict[str, Any]:
        return {
            "benchmark": benchmark, "system": system, "protocol": f"{benchmark}/p1",
            "judge": "judge-2026", "data": "d1ge5t" * 6, "source": "pocket edition",
            "overall": {"value": value, "low": value - 1, "high": value + 1, "n": 12},
            "parts": {"culture": value}, "unjudged": unjudged, "run": run,
        }  # fmt: skip

    values = dict(zip(SYSTEMS, (9.5, 60.0, 100.0), strict=True))
    return {
        "profile": "pocket", "seed": 7, "training_judge": training_judge, "systems": SYSTEMS,
        "cells": [cell(b, s, v) for b in ("wise", "kris") for s, v in values.items()],
        "differences": [{"benchmark": "wise", "from": "generator", "to": "full-rl",
                         "value": 50.5, "low": 40.0, "high": 60.0, "n": 12}],
    }  # fmt: skip


def test_every_score_says_what_it_rests_on():
    html = report_page.scores_section(summary())
    for said in ("wise/p1", "judge-2026", "d1ge5td1ge5t", "9.5 <small>[8.5, 10.5]", "another scale",
                 "planner a, critic b", "pocket edition"):  # fmt: skip
        assert said in html, said
    assert html.count("class=paper>47.0") == 1, "the paper's WISE, and none for KRIS-Bench"
    for said in ("wise/p1; judge judge-2026", "seed 7; 12 items"):
        assert said in report_page.parts_section(summary()), said
    text = markdown(summary())
    assert "| wise | wise/p1 | judge-2026 | pocket edition | d1ge5td1ge5t | 12 | 0.0% |" in text
    assert "| full-rl | 60.0 [59.0, 61.0] | 60.0 [59.0, 61.0] |" in text


def test_more_than_two_percent_unjudged_is_said():
    assert "unjudged)" not in report_page.scores_section(summary(0.02))
    assert "(2.1 % unjudged)" in report_page.scores_section(summary(0.021))


def test_the_trainings_judge_is_told():
    own = "The judge that scored the training data and gave the rewards also grades here."
    for made in (
        report_page.heading(summary(training_judge=True)),
        markdown(summary(training_judge=True)),
    ):
        assert own in made
    assert own not in report_page.heading(summary())


def test_worst_best_and_random_items_are_shown():
    scores = {f"{n:02d}": float(n) for n in range(10)}
    groups = report_page.chosen_items(scores, 7, 1)
    assert (groups["worst"], groups["best"]) == (["00", "01"], ["09", "08"])
    assert len(groups["random"]) == 3 and not set(groups["random"]) & {"00", "01", "09", "08"}
    assert report_page.chosen_items(scores, 7, 1) == groups
    assert report_page.chosen_items({"a": 1.0}, 7, 1) == {"worst": ["a"], "best": [], "random": []}
    assert report_page.chosen_items(scores, 0, 1) == {}


def test_geneval_pictures_belong_to_their_prompt():
    assert report_page.item_of("geneval/00003/0001", "geneval") == "00003"
    assert report_page.item_of("kris/biology/2", "kris") == "biology/2"


def test_the_gallery_shows_pictures_plan_critique_and_score(tmp_path: Path):
    oracle = PocketTeacher()
    asked = pocket_wise.requests(12, 7)
    made = loop.run(asked, oracle, Executor(), oracle, max_attempts=1, seed=1)
    for system in ("generator", "full-rl"):
        store.write_shards(
            made, tmp_path / "a/wise" / system / "trajectories", shard_rows=9, about={}
        )
    names = [request.id.removeprefix("wise/") for request in asked]
    folder = tmp_path / "e/wise/full-rl"
    folder.mkdir(parents=True)
    items = {name: 10.0 * place for place, name in enumerate(names)}
    Graded("p", "j", items, dict.fromkeys(names, ""), {}, {}, 0.0).save(folder / "graded.json")
    one = summary() | {"cells": [c for c in summary()["cells"] if c["benchmark"] == "wise"]}
    html = report_page.gallery_section(tmp_path / "e", tmp_path / "a", one, 3)
    assert "wise, full-rl" in html, "the last system that is no oracle"
    assert html.count("<article") == 3 == html.count("data:image/png")
    for said in (
        f"{asked[0].id}: 0 of 100",
        f"{asked[-1].id}: 110 of 100",
        "plan: 1 step",
        "critic",
    ):
        assert said in html, said


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_click_sorts_a_table(tmp_path: Path):
    from playwright.sync_api import sync_playwright

    file = tmp_path / "index.html"
    body = report_page.scores_section(summary()) + report_page.differences_section(summary())
    file.write_text(report_page.document(body), encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(file.as_uri())

        def first_column() -> list[str]:
            return page.locator("table").first.locator("tbody td:first-child").all_inner_texts()

        head = page.locator("table").first.locator("th")
        assert first_column() == ["generator", "full-rl", "oracle"]
        head.nth(1).click()
        assert first_column() == ["oracle", "full-rl", "generator"], "100 comes before 9.5"
        head.nth(1).click()
        assert first_column() == ["generator", "full-rl", "oracle"]
        head.nth(2).click()
        assert first_column()[-1] == "oracle", "the paper has no figure for it: last"
        head.nth(0).press("Enter")
        assert first_column() == ["full-rl", "generator", "oracle"], "words from A"
        # Tables scroll by themselves: the page is as wide as the phone.
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
    assert errors == []
