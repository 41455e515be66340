from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interloom.construct.selection import (
    LOSSES,
    ScoredStep,
    Thresholds,
    balance,
    balanced_size,
    filter_steps,
    split_by_variance,
    step_loss,
)

LIMITS = Thresholds(low=4, high=7, tolerance=0.5)


@pytest.mark.parametrize(
    ("scores", "loss"),
    [
        ((9.0,), None),
        ((7.0, 7.2), None),
        ((9.0, 8.0, 8.4), "falling"),
        ((9.0, 8.0, 8.6), None),  # dips, but stays high throughout
        ((2.0, 5.0, 9.0), None),
        ((2.0, 5.0, 4.8, 9.0), None),  # a dip within the tolerance
        ((6.5,), "stagnant"),
        ((6.0, 6.4), "stagnant"),
        ((2.0, 3.9), "low"),
        ((3.9,), "low"),
        ((8.0, 3.0), "falling"),
        ((3.0, 9.0, 2.0, 8.0), "degraded"),
        ((9.0, None), "call-failed"),
        ((None,), "call-failed"),
    ],
)
def test_step_loss(scores: tuple[float | None, ...], loss: str | None):
    assert step_loss(scores, LIMITS) == loss


def step(key: str, scores: tuple[float, ...], judgments: tuple[bool, ...]) -> ScoredStep:
    return ScoredStep(key, scores, judgments)


def many(count: int, seed: int = 0) -> list[ScoredStep]:
    """Steps as the closed loop makes them: mostly passed at once, else after failures."""
    rng = random.Random(seed)
    steps: list[ScoredStep] = []
    for number in range(count):
        fails = rng.choices((0, 1, 2, 3), (6, 2, 1, 1))[0]
        scores = [*sorted(rng.uniform(1, 7) for _ in range(fails)), rng.uniform(7.5, 10)]
        steps.append(step(str(number), tuple(scores), (False,) * fails + (True,)))
    return steps


def test_filter_counts_every_reason():
    steps = [step(str(i), s, (True,) * len(s)) for i, s in enumerate(((9.0,), (1.0,), (8.0, 2.0)))]
    kept, losses = filter_steps(steps, LIMITS)
    assert [s.key for s in kept] == ["0"] and losses == {"low": 1, "falling": 1}
    assert set(losses) <= set(LOSSES)
    failed = ScoredStep("x", (9.0, None), (True, True))
    kept, losses = filter_steps([*steps, failed], None)
    assert len(kept) == 3 and losses == {"call-failed": 1}


@pytest.mark.parametrize("majority", [0.5, 0.55, None])
def test_split_meets_the_ratio_after_balancing(majority: float | None):
    steps = many(2000)
    sft, rl, cut = split_by_variance(steps, ratio=2, majority=majority)
    assert {s.key for s in sft} | {s.key for s in rl} == {s.key for s in steps}
    assert min(s.variance for s in rl) >= cut >= max(s.variance for s in sft)
    sizes = []
    for part in (sft, rl):
        rows = {f"{s.key}/{i}": j for s in part for i, j in enumerate(s.judgments)}
        kept = rows if majority is None else balance(rows, majority=majority, seed=0)[0]
        sizes.append(len(kept))
    assert sizes[0] / sizes[1] == pytest.approx(2, abs=0.05)


def test_split_does_not_depend_on_the_order_of_steps():
    steps = many(200)
    shuffled = random.Random(1).sample(steps, len(steps))
    one, two = (split_by_variance(s, ratio=2, majority=0.5) for s in (steps, shuffled))
    assert {s.key for s in one[1]} == {s.key for s in two[1]}


def test_split_of_nothing():
    assert split_by_variance([], ratio=2, majority=0.5) == ([], [], 0.0)


@given(
    st.dictionaries(st.text(max_size=4), st.booleans(), max_size=60),
    st.sampled_from([0.5, 0.55, 0.6]),
    st.integers(0, 5),
)
def test_balance(judgments: dict[str, bool], majority: float, seed: int):
    kept, lost = balance(judgments, majority=majority, seed=seed)
    assert len(kept) + sum(lost.values()) == len(judgments)
    assert kept == balance(dict(reversed(judgments.items())), majority=majority, seed=seed)[0]
    true = sum(judgments[row] for row in kept)
    assert max(true, len(kept) - true) <= majority * len(kept) + 1e-6
    fewer = min(sum(judgments.values()), len(judgments) - sum(judgments.values()))
    assert min(true, len(kept) - true) == fewer, "the smaller side stays whole"


def test_balanced_size_of_one_sided_data_is_nothing():
    assert balanced_size(10, 0, 0.6) == 0
