"""Judges over the wire: costs known before, retries, unjudged, and never the training's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_params import small_params
from model_server import (
    MODEL,
    Asked,
    Said,
    gemini,
    openai,
    remotes,
    serving,
)

from interloom import loop
from interloom.backends.ledger import Ledger
from interloom.backends.pocket import PocketTeacher
from interloom.benchmarks import graders
from interloom.benchmarks.editions import Edition, open_edition, spread
from interloom.benchmarks.evaluate import unjudged_note
from interloom.benchmarks.graders import Estimate, estimates, open_grader, summary
from interloom.benchmarks.validation import Renderer
from interloom.errors import InterloomError
from interloom.settings.file import Settings, settings_from


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "k")


def settings_for(backend: str = "openai", model: str = MODEL, **changes: Any) -> Settings:
    raw = small_params(systems=["generator", "oracle"], **changes)
    raw["grading"] |= {"backend": backend, "model": model, "allow_training_judge": False}
    if backend != "pocket":
        raw["remote"][backend]["prices"][MODEL] = {"input": 1.0, "output": 10.0, "image": 0.0}
    return settings_from(raw, "test")


def answered(edition: Edition, folder: Path) -> Path:
    oracle = PocketTeacher()
    made = loop.run(edition.requests, oracle, Renderer(), oracle, max_attempts=1, seed=1)
    edition.write(folder, made, with_text=True)
    return folder


WISE = {"reasoning": "", "consistency": 2, "realism": 2, "aesthetic_quality": 1}


@pytest.mark.parametrize(("backend", "say"), [("openai", openai), ("gemini", gemini)])
def test_a_chat_model_judges_a_pocket_edition(tmp_path: Path, backend: Any, say: Any):
    settings = settings_for(backend)
    edition = open_edition("wise", settings.evaluate, 7)
    answered(edition, tmp_path / "out")
    with serving(say(WISE)) as server:
        grader = open_grader(settings, remotes(tmp_path, backend, server.url))
        graded = edition.grade(tmp_path / "out", grader)
        again = edition.grade(tmp_path / "out", grader)
        assert len(server.asked) == len(edition.items) == edition.calls()
        body = server.asked[0].body.decode()
        assert edition.items[0].prompt in body or json.dumps(edition.items[0].prompt)[1:-1] in body
        assert "aesthetic_quality" in body, "the answer's form is part of the question"
    assert graded == again, "kept answers cost nothing"
    assert graded.overall.value == pytest.approx(95)  # (0.7·2 + 0.2·2 + 0.1·1) / 2
    assert (graded.judge, graded.protocol) == (MODEL, "wise/legacy, pocket edition 1")
    assert graded.unjudged == 0


def test_what_stays_without_an_answer_is_unjudged_and_said(tmp_path: Path):
    """One question is answered badly for ever, all others at the second try."""
    settings = settings_for(items=12)
    edition = open_edition("wise", settings.evaluate, 7)
    answered(edition, tmp_path / "out")
    first = json.dumps(edition.items[0].prompt)[1:-1]
    seen: set[str] = set()

    def answer(asked: Asked) -> Said:
        text = asked.body.decode()
        if first in text:
            return openai({"consistency": "very"})
        key = str(hash(asked.json["messages"][1]["content"][0]["text"]))
        if key not in seen:
            seen.add(key)
            return openai({"reasoning": "", "consistency": 3, "realism": 2, "aesthetic_quality": 2})
        return openai(WISE)

    with serving(answer) as server:
        opened = remotes(tmp_path, "openai", server.url, tries=3)
        graded = edition.grade(tmp_path / "out", open_grader(settings, opened))
    assert graded.unjudged == pytest.approx(1 / 12)
    assert str(edition.items[0].prompt_id) not in graded.items
    assert len(graded.items) == 11 and graded.overall.value == pytest.approx(95)
    assert unjudged_note(graded.unjudged) == " (8.3 % unjudged)"


def test_the_trainings_judge_is_refused_unless_it_is_allowed():
    raw = small_params()
    assert graders.is_training_judge(
        settings_from(raw, "t").grading, settings_from(raw, "t").teacher
    )
    graders.check_judges(settings_from(raw, "t").grading, settings_from(raw, "t").teacher)
    raw["grading"]["allow_training_judge"] = False
    settings = settings_from(raw, "t")
    with pytest.raises(InterloomError, match=r"teacher\.judge_model.*allow_training_judge: true"):
        graders.check_judges(settings.grading, settings.teacher)
    raw["grading"] |= {"backend": "gemini", "model": "gemini-2.5-pro"}
    other = settings_from(raw, "t")
    graders.check_judges(other.grading, other.teacher)


def test_estimates_tell_calls_and_costs_before_anything_is_called(tmp_path: Path):
    settings = settings_for(benchmarks=["wise", "rise", "ueval"], items=12)
    guessed = {
        one.benchmark: one
        for one in estimates(settings, tmp_path, settings.evaluate, settings.evaluate.systems)
    }
    assert guessed["wise"].calls == 12 * 2
    # Three axes of eight items, two of the logical ones.
    assert guessed["rise"].calls == (9 * 3 + 3 * 2) * 2
    assert guessed["wise"].usd == pytest.approx(24 * (2500 * 1.0 + 400 * 10.0) / 1e6)
    assert guessed["wise"].minutes == pytest.approx(24 / 500)
    ledger = Ledger(tmp_path / ".interloom/ledger.sqlite")
    ledger.add("openai", MODEL, "evaluate", calls=12, failures=2, usd=5.0)
    ledger.add("openai", MODEL, "trajectories", calls=1, usd=100.0)
    ledger.close()
    known = {
        one.benchmark: one
        for one in estimates(settings, tmp_path, settings.evaluate, settings.evaluate.systems)
    }
    assert known["wise"].usd == pytest.approx(24 * 0.5), "what such calls have cost so far"
    lines = summary(list(known.values()))
    assert lines[-1].startswith("altogether") and len(lines) == 4
    assert "US$" in Estimate("a", 1, 2, 3.0, 4.0).line()


def test_the_exact_judge_costs_nothing_and_knows_its_own_world_alone(tmp_path: Path):
    settings = settings_for("pocket", "pocket-verifier-2")
    assert {
        one.calls
        for one in estimates(settings, tmp_path, settings.evaluate, settings.evaluate.systems)
    } == {0}
    (tmp_path / "wise.json").write_text(json.dumps([
        {"Prompt": "a", "Explanation": "b", "Category": "c", "Subcategory": "d", "prompt_id": n}
        for n in range(1, 1001, 50)
    ]))  # fmt: skip
    options = settings.evaluate.model_copy(update={"data": {"wise": str(tmp_path / "wise.json")}})
    edition = open_edition("wise", options, 7)
    answered(edition, tmp_path / "out")
    with pytest.raises(InterloomError, match="the exact verifier knows its own world alone"):
        edition.grade(tmp_path / "out", open_grader(settings, remotes(tmp_path, "openai")))


def test_the_real_geneval_is_read_and_judged_by_model_or_detector(tmp_path: Path):
    from interloom.benchmarks import geneval

    options = settings_for(items=12, data={"geneval": str(geneval.shipped())}).evaluate
    edition = open_edition("geneval", options, 7)
    assert len(edition.items) == 12 and len(edition.requests) == 48 == edition.calls()
    assert {item.tag for item in edition.items} == set(geneval.TAGS)
    answered(edition, tmp_path / "out")  # blank pages: nobody here understands the prompts
    with serving(openai({"reasoning": "", "correct": True})) as server:
        grader = open_grader(settings_for(), remotes(tmp_path, "openai", server.url))
        graded = edition.grade(tmp_path / "out", grader)
    assert "chat model instead of a detector" in graded.protocol
    assert graded.overall.value == 0 and not server.asked, "what was not drawn is wrong"

    class Nothing:
        name = "nothing"

        def detect(self, pictures: Any, wanted: Any) -> list[Any]:
            return [[] for _ in pictures]

    found = edition.grade(tmp_path / "out", graders.Grader(grader.options, None, Nothing()))
    assert found.protocol == "geneval/six-tag-mean, nothing as detector (transformers)"


def test_a_model_without_a_price_is_refused(tmp_path: Path):
    settings = settings_for(model="unknown")
    with pytest.raises(InterloomError, match=r"remote\.openai\.prices: no price for unknown"):
        estimates(settings, tmp_path, settings.evaluate, settings.evaluate.systems)


def test_all_tasks_are_there_in_a_part_of_a_benchmark():
    tasks = ["a"] * 6 + ["b"] * 2 + ["c"]
    assert spread(range(9), tasks, 5) == [0, 1, 6, 7, 8]
    assert spread(range(9), tasks, 100) == list(range(9))
