from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
