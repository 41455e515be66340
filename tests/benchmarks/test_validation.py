"""All seven pocket editions are sound, and ``validate`` finds one that is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from interloom.benchmarks import pocket_geneval, pocket_wise, validation
from interloom.benchmarks.editions import POCKET
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.validation import held_out, validate
from interloom.records import Request

FULL = 200
COUNT, SEED = 24, 7


@pytest.mark.parametrize("name", POCKET)
def test_a_part_of_every_edition_is_sound(name: str):
    assert validate(POCKET[name], COUNT, SEED) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", POCKET)
def test_every_edition_is_sound_at_full_size(name: str):
    edition = POCKET[name]
    assert len(edition.requests(240, SEED)) >= FULL
    assert validate(edition, 240, SEED) == []


@pytest.mark.parametrize("name", POCKET)
def test_there_are_two_hundred_items(name: str):
    assert len(POCKET[name].published(204, SEED)) >= FULL


def changed(**changes: Any) -> Any:
    names = ("NAME", "PROTOCOL", "requests", "write", "grade")
    return SimpleNamespace(**{n: getattr(pocket_wise, n) for n in names} | changes)


def test_an_unsolvable_item_is_found():
    def requests(count: int, seed: int) -> list[Request]:
        good = pocket_wise.requests(count, seed)
        phrase = good[0].text
        return [good[0].model_copy(update={"text": phrase.replace(" at the", " nowhere near the")}),
                *good[1:]]  # fmt: skip

    problems = validate(changed(requests=requests), 6, SEED)
    assert "1: the oracle's answer gets 0.0 of 100" in problems
    assert "1 items end without a picture" in problems


def test_a_judge_that_pays_for_nothing_is_found():
    def grade(folder: Path, count: int, seed: int) -> Graded:
        graded = pocket_wise.grade(folder, count, seed)
        return Graded(**{**vars(graded), "items": dict.fromkeys(graded.items, 100.0)})

    problems = validate(changed(grade=grade), 6, SEED)
    assert len(problems) == 6 and all("a blank picture gets 100.0" in one for one in problems)


def test_questions_that_training_may_ask_and_copies_are_found():
    plain = Request(id="wise/1", text="a red sun at the top left")
    assert not held_out(plain)

    def requests(count: int, seed: int) -> list[Request]:
        return [plain, *pocket_wise.requests(count, seed)[1:-1], plain]

    problems = validation.validate(changed(requests=requests), 6, SEED)
    assert "wise/1: may occur in training" in problems
    assert "wise/1: the same question as wise/1" in problems


def test_geneval_items_are_held_out_by_their_scenes():
    assert all(map(held_out, pocket_geneval.requests(COUNT, SEED)))
