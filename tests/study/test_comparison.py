from __future__ import annotations

import random

import pytest

from interloom.study.comparison import compared, times


def _scores(seeds: range, shift: float, seed_noise: float) -> dict[int, dict[str, float]]:
    rng = random.Random(0)
    offsets = {seed: rng.gauss(shift, seed_noise) for seed in seeds}
    return {seed: {f"{i}": offsets[seed] + rng.gauss(0, 1) for i in range(40)} for seed in seeds}


def test_a_clear_difference_excludes_zero_and_none_does_not():
    base = {seed: {f"{i}": 0.0 for i in range(40)} for seed in range(5)}
    clear = compared("b", _scores(range(5), 2.0, 0.1), "a", base)
    assert clear.difference.low > 0 and clear.difference.n == 200
    assert len(clear.by_seed) == 5
    none = compared("b", _scores(range(5), 0.0, 1.0), "a", base)
    assert none.difference.low < 0 < none.difference.high


def test_seeds_that_disagree_widen_the_interval():
    base = {seed: {f"{i}": 0.0 for i in range(40)} for seed in range(5)}
    calm = compared("b", _scores(range(5), 1.0, 0.0), "a", base).difference
    wild = compared("b", _scores(range(5), 1.0, 2.0), "a", base).difference
    assert wild.high - wild.low > 2 * (calm.high - calm.low)


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match="same seeds"):
        compared("b", {1: {"x": 1.0}}, "a", {2: {"x": 1.0}})
    with pytest.raises(ValueError, match="no item of seed 1"):
        compared("b", {1: {"x": 1.0}}, "a", {1: {"y": 1.0}})


def test_how_many_times_as_high():
    base = {seed: {f"{i}": 2.0 for i in range(40)} for seed in range(5)}
    thrice = times("b", _scores(range(5), 6.0, 0.1), "a", base)
    assert thrice.value == pytest.approx(3, abs=0.2) and thrice.n == 200
    assert 2.7 < thrice.low < thrice.value < thrice.high < 3.3
    nothing = times("b", base, "a", {seed: dict.fromkeys(base[seed], 0.0) for seed in base})
    assert nothing.value == nothing.low == float("inf")
