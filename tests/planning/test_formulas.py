"""The formulas: their own examples, and limits that hold whatever the numbers."""

from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from interloom.planning import formulas

amounts = st.floats(min_value=1, max_value=1e6)


def test_the_examples_are_right() -> None:
    done = doctest.testmod(formulas)
    assert done.failed == 0 and done.attempted >= 9


@given(amounts, amounts)
def test_training_takes_three_or_four_times_a_forward_pass(
    parameters: float, tokens: float
) -> None:
    once = formulas.forward_flop(parameters, tokens)
    for recompute, times in ((False, 3), (True, 4)):
        flop = formulas.training_flop(parameters, tokens, trained=parameters, recompute=recompute)
        assert abs(flop / once - times) < 1e-9
    frozen = formulas.training_flop(parameters, tokens, trained=0, recompute=False)
    assert abs(frozen / once - 2) < 1e-9


@given(amounts, amounts, st.integers(min_value=1, max_value=64))
def test_waiting_is_between_what_cannot_overlap_and_all(
    rewards: float, rollouts: float, parts: int
) -> None:
    waited = formulas.waiting_seconds(rewards, rollouts, parts=parts)
    assert rewards / parts - 1e-9 <= waited <= rewards + 1e-9
    # Work cannot be done before both are done.
    assert rollouts + waited >= rewards - 1e-6


@given(st.integers(min_value=1, max_value=500), st.integers(min_value=1, max_value=64))
def test_a_larger_batch_never_takes_longer_over_weights(answers: int, batch: int) -> None:
    def took(size: int) -> float:
        return formulas.decoding_seconds(
            answers, 10, batch=size, weights=1e9, cache=0, bandwidth=1e12
        )

    assert took(batch + 1) <= took(batch)
