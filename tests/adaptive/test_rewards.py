"""Every branch by hand: the numbers beside the cases are worked out on paper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_stories import direct, multi_step, reflection

from interloom.adaptive.rewards import (
    Judged,
    Weights,
    complexity_bonus,
    outcome_reward,
    released_final,
    released_format,
    released_reward,
    step_reward,
    total_reward,
    trajectory_rewards,
)
from interloom.records import Evaluation, Failure

BEST = Evaluation(instruction=5, consistency=5, quality=5, knowledge=5)
WORST = Evaluation(instruction=1, consistency=1, quality=1, knowledge=1)
MIXED = Evaluation(instruction=2, consistency=5, quality=4, knowledge=3)
LOST = Failure(role="judge", reason="timeout")


@pytest.mark.parametrize(
    ("final", "reward"),
    [(BEST, 1.0), (WORST, 0.2), (MIXED, 0.7), (None, 0.0)],
)
def test_outcome_is_the_mean_of_the_axes_times_a_fifth(final, reward):
    assert outcome_reward(final) == reward


def test_step_reward_is_the_mean_over_all_intermediate_texts():
    assert step_reward(Judged(BEST, True, 3, reflections=(1.0, 0.0), steps=(0.5,))) == 0.5
    assert step_reward(Judged(BEST, True, 1)) is None
    with pytest.raises(ValueError, match="not within"):
        step_reward(Judged(BEST, True, 1, steps=(1.5,)))


@pytest.mark.parametrize(
    ("judged", "reward"),
    [
        (Judged(BEST, True, 2, reflections=(1.0,)), 1.0),  # .7 + .1 + .2
        (Judged(BEST, False, 2, reflections=(1.0,)), 0.9),  # .7 + .2
        (Judged(MIXED, True, 3, steps=(0.5, 0.5)), 0.69),  # .7·.7 + .1 + .2·.5
        (Judged(None, False, 0), 0.0),
        (Judged(None, True, 0, reflections=(0.0,)), 0.1),
        (Judged(BEST, True, 1), 1.0),  # (.7 + .1)/.8: no text, so no term
        (Judged(BEST, False, 1), 0.875),  # .7/.8
        (Judged(MIXED, True, 1), 0.7375),  # (.49 + .1)/.8
        (Judged(LOST, True, 1), None),
        (Judged(BEST, True, 2, reflections=(1.0, LOST)), None),
        (Judged(BEST, True, 2, steps=(LOST,)), None),
    ],
)
def test_total(judged, reward):
    assert total_reward(judged) == (None if reward is None else pytest.approx(reward))


def test_weights_can_be_changed():
    judged = Judged(BEST, True, 2, reflections=(0.0,))
    assert total_reward(judged, Weights(outcome=0.5, form=0.5, steps=0.0)) == 1.0


@pytest.mark.parametrize(
    ("totals", "images", "bonus"),
    [
        ([1.0, 1.0, 0.5], [2, 4, 1], [1.0, 0.5, 0.0]),  # N* = 2 among the two best
        ([1.0, 0.95, 0.94], [3, 1, 1], [1 / 3, 1.0, 0.0]),  # exactly ε below competes
        ([0.6, 0.6, 0.6], [2, 2, 2], [1.0, 1.0, 1.0]),  # all equal: no difference
        ([0.2], [3], [1.0]),  # alone it is its own best
        ([None, 0.7, 0.7], [1, 2, 4], [0.0, 1.0, 0.5]),  # who was not judged does not compete
        ([None, None], [1, 2], [0.0, 0.0]),
        ([0.1, 0.1], [0, 2], [0.0, 1.0]),  # without a picture in no competitive set
        ([0.0, 0.0], [0, 0], [0.0, 0.0]),
    ],
)
def test_bonus_in_one_group(totals, images, bonus):
    paid = complexity_bonus(totals, images, ["g"] * len(totals))
    assert paid == pytest.approx(bonus)


def test_the_papers_bonus_pays_for_failing_quickly_and_the_gated_one_does_not():
    totals, images, nobody = [0.4, 0.4], [1, 4], [False, False]
    assert complexity_bonus(totals, images, "gg") == [1.0, 0.25]
    assert complexity_bonus(totals, images, "gg", success=nobody) == [0.0, 0.0]
    # A failure within ε of a success neither is paid nor sets N*.
    paid = complexity_bonus([0.98, 1.0, 1.0], [1, 2, 4], "ggg", success=[False, True, True])
    assert paid == [0.0, 1.0, 0.5]


def test_groups_need_not_be_contiguous():
    assert complexity_bonus([1.0, 0.3, 1.0, 0.3], [2, 2, 4, 1], "abab") == [1.0, 0.5, 0.5, 1.0]


@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.floats(0, 1)), st.integers(0, 6), st.booleans()),
        min_size=1, max_size=8,
    )
)  # fmt: skip
def test_the_bonus_never_reverses_the_order_of_images(rows):
    totals, images, success = (list(column) for column in zip(*rows, strict=True))
    paid = complexity_bonus(totals, images, ["g"] * len(rows), success=success)
    assert all(0 <= bonus <= 1 for bonus in paid)
    pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if paid[i] and paid[j]]
    assert all((paid[i] >= paid[j]) == (images[i] <= images[j]) for i, j in pairs)
    assert all(success[i] for i in range(len(rows)) if paid[i])


@pytest.mark.parametrize(
    ("judged", "reward"),
    [
        (Judged(BEST, True, 1, form=1.0), 1.0),  # (.4 + .1)/.5
        (Judged(WORST, True, 1, form=1.0), 0.2),  # .1/.5
        (Judged(BEST, True, 3, steps=(0.5,), form=0.5), 0.75),  # (.4 + .15 + .05)/.8
        (Judged(BEST, True, 2, reflections=(0.5,), form=1.0), 6 / 7),  # (.4 + .1 + .1)/.7
        (Judged(BEST, True, 4, steps=(1.0,), reflections=(1.0,), form=1.0), 1.0),
        (Judged(None, False, 0, form=0.0), 0.0),
        (Judged(BEST, True, 2, reflections=(LOST,), form=1.0), None),
    ],
)
def test_released_composition(judged, reward):
    assert released_reward(judged) == (None if reward is None else pytest.approx(reward, abs=1e-6))


def test_released_final_rescales_each_axis():
    assert released_final(MIXED) == pytest.approx(0.4 * 0.25 + 0.25 + 0.2 * 0.75 + 0.15 * 0.5)
    assert released_final(None) == 0.0


@pytest.mark.parametrize(
    ("segments", "score"),
    [
        (direct().segments(), 1.0),
        (reflection().segments(), 1.0),
        (multi_step().segments(), 1.0),
        ([b"G"], 0.75),  # no text block
        ([b"G", "<evaluate>x"], 0.5),  # nor balanced tags
        ([b"G", b"G", "<evaluate>x</evaluate>"], 0.75),  # nothing led to the second picture
        ([b"G", "<evaluate>x</evaluate><step_1>y</step>"], 0.75),  # does not end with a picture
        (["<step_1>y</step>"], 0.5),  # no picture
        ([], 0.0),
    ],
)
def test_released_format(segments, score):
    assert released_format(segments) == score


def test_final_rewards_of_two_groups():
    judged = [
        Judged(BEST, True, 1, success=True),
        Judged(BEST, True, 4, success=True, steps=(1.0,)),
        Judged(MIXED, True, 2, reflections=(0.0,)),
        Judged(MIXED, True, 1),
        Judged(LOST, True, 1),
    ]
    paper = trajectory_rewards(judged, ["a", "a", "b", "b", "b"])
    assert paper.total == pytest.approx([1.0, 1.0, 0.59, 0.7375, None])
    assert paper.final == pytest.approx([2.0, 1.25, 0.59, 1.7375, None])
    gated = trajectory_rewards(judged, ["a", "a", "b", "b", "b"], bonus="gated")
    assert gated.final == pytest.approx([2.0, 1.25, 0.59, 0.7375, None])
    plain = trajectory_rewards(judged, "aabbb", composition="released", bonus="none")
    assert plain.bonus == [0.0] * 5 and plain.final == plain.total
