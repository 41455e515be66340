from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import PlayedJudge
from model_server import picture

from interloom.benchmarks import rise
from interloom.benchmarks.rise import Grades, Item
from interloom.errors import InterloomError

CAUSAL, LOGICAL = Item("c", "causal", "x"), Item("l", "logical", "x")
FREE = Item("f", "temporal", "x", consistency_free=True)


@pytest.mark.parametrize(
    ("item", "grades", "correct", "percent"),
    [
        (CAUSAL, Grades(5, 5, 5), True, 100),
        (CAUSAL, Grades(5, 5, 4), False, 95),  # 0.3·5 + 0.5·5 + 0.2·4 = 4.8
        (CAUSAL, Grades(4, 5, 5), False, 92.5),
        (CAUSAL, Grades(1, 1, 1), False, 0),  # halved to 0.5, floor 1
        (CAUSAL, Grades(5, 1, 5), False, 12.5),  # 3.0 halved to 1.5
        (LOGICAL, Grades(5, 5, 1), True, 100),
        (LOGICAL, Grades(4, 5, 5), False, 92.5),
        (LOGICAL, Grades(5, 1, 5), False, 2.5),  # 2.2 halved to 1.1
        (FREE, Grades(1, 5, 5), True, 100),
        (FREE, Grades(1, 4, 5), False, 80),  # 0.8·4 + 0.2·5 = 4.2
    ],
)
def test_items_by_hand(item: Item, grades: Grades, correct: bool, percent: float):
    assert rise.is_correct(item, grades) is correct
    assert rise.weighted(item, grades) == pytest.approx(percent)


def test_overall_is_over_items_and_not_over_categories():
    items = [Item(str(i), "causal", "x") for i in range(3)] + [LOGICAL]
    best, worst = Grades(5, 5, 5), Grades(1, 1, 1)
    scores = rise.score(items, {"0": best, "1": best, "2": worst, "l": worst})
    assert scores.overall == 50
    assert scores.categories == {"causal": pytest.approx(200 / 3), "logical": 0}


def test_unjudged_items_are_left_out_and_counted():
    scores = rise.score([CAUSAL, LOGICAL], {"c": Grades(5, 5, 5), "l": None})
    assert (scores.overall, scores.unjudged) == (100, 0.5)
    with pytest.raises(InterloomError, match="no item"):
        rise.score([CAUSAL], {"c": None})
    with pytest.raises(InterloomError, match="not been graded"):
        rise.score([CAUSAL], {})


def test_mistakes_are_refused():
    with pytest.raises(InterloomError, match="unknown category 'other'"):
        Item("1", "other", "x")
    with pytest.raises(ValueError, match="1 to 5"):
        Grades(0, 5, 5)


grade = st.integers(1, 5)


@given(st.sampled_from([CAUSAL, LOGICAL, FREE]), grade, grade, grade)
def test_weighted_is_bounded_and_rises_with_reasoning(item: Item, c: int, r: int, p: int):
    value = rise.weighted(item, Grades(c, r, p))
    assert 0 <= value <= 100
    if r < 5:
        assert rise.weighted(item, Grades(c, r + 1, p)) > value


def published(folder: Path, **changes: object) -> Path:
    for name in ("a", "r"):
        (folder / f"{name}.png").write_bytes(picture())
    record = {"index": "causal_1", "category": "causal_reasoning", "instruction": "drop it",
              "image": "a.png", "reference": "it is broken"}  # fmt: skip
    (folder / "rise.json").write_text(json.dumps([record | changes]))
    return folder


def test_published_records_are_read(tmp_path: Path):
    (item,) = rise.load(published(tmp_path))
    assert (item.category, item.reference_text, item.references) == ("causal", "it is broken", ())
    assert not item.consistency_free, "a missing value is false, and not true"
    for said, free in ((None, False), (0, False), (1, True), (True, True)):
        (item,) = rise.load(published(tmp_path, consistency_free=said, reference_img="r.png"))
        assert (item.consistency_free, len(item.references)) == (free, 1)
    for change, said in (
        ({"consistency_free": "no"}, "'consistency_free' is 'no'"),
        ({"image": "b.png"}, r"b\.png is not there"),
        ({"category": "odd"}, "unknown category 'odd'"),
    ):
        with pytest.raises(InterloomError, match=said):
            rise.load(published(tmp_path, **change))


def test_a_judge_is_asked_about_the_axes_that_count(tmp_path: Path):
    items = [Item(one.index, one.category, "x", one.consistency_free, picture()) for one in
             (CAUSAL, LOGICAL, FREE)]  # fmt: skip
    assert [rise.axes(item) for item in items] == [
        ("reasoning", "consistency", "plausibility"),
        ("reasoning", "consistency"),
        ("reasoning", "plausibility"),
    ]
    for item in items[:2]:
        path = tmp_path / "images" / item.category / f"{item.index}.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(picture("blue"))
    judge = PlayedJudge(*({"reasoning": "", "grade": n} for n in (5, 4, 3, 2, 1)))
    grades = rise.judged(items, tmp_path, judge)
    assert grades == {"c": Grades(4, 5, 3), "l": Grades(1, 2, rise.SKIPPED), "f": Grades(1, 1, 1)}
    assert [len(c.images) for c in judge.asked] == [2, 2, 1, 2, 2], "plausibility: the result alone"
    bad = PlayedJudge({"reasoning": "", "grade": 6})
    assert rise.judged(items, tmp_path, bad)["c"] is None
