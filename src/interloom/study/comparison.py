"""Two systems over seeds and items, paired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from interloom.benchmarks.statistics import DRAWS, LEVEL, Estimate, percentile_interval

Scores = Mapping[int, Mapping[str, float]]
"""Scores 0-100 by seed and item."""


@dataclass(frozen=True)
class Comparison:
    """``better − worse``, with the mean of each side and of each seed's difference."""

    ours: str
    theirs: str
    our_mean: float
    their_mean: float
    difference: Estimate
    by_seed: dict[int, float]


def compared(ours: str, our_scores: Scores, theirs: str, their_scores: Scores) -> Comparison:
    """The paired difference. Seeds are drawn again first, then the items within each: what another
    training would have given is part of the interval.

    >>> one = compared("b", {1: {"x": 3.0}, 2: {"x": 5.0}}, "a", {1: {"x": 1.0}, 2: {"x": 1.0}})
    >>> one.difference.value, one.by_seed
    (3.0, {1: 2.0, 2: 4.0})

    Raises:
        ValueError: a seed is missing on one side, or has no item in common.
    """
    pairs = _pairs(ours, our_scores, theirs, their_scores)
    our_mean, their_mean = _mean(pairs)
    draws = _draws(pairs)
    return Comparison(
        ours,
        theirs,
        our_mean,
        their_mean,
        percentile_interval(our_mean - their_mean, draws[:, 0] - draws[:, 1], _count(pairs)),
        {seed: float((both[:, 0] - both[:, 1]).mean()) for seed, both in pairs.items()},
    )


def times(ours: str, our_scores: Scores, theirs: str, their_scores: Scores) -> Estimate:
    """How many times theirs our mean is; drawn again as in ``compared``.

    In a draw in which theirs is nothing it is infinitely many times.

    Raises:
        ValueError: as ``compared``.
    """
    pairs = _pairs(ours, our_scores, theirs, their_scores)
    our_mean, their_mean = _mean(pairs)
    draws = _draws(pairs)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.divide(our_mean, their_mean)
        drawn = np.nan_to_num(draws[:, 0] / draws[:, 1], nan=np.inf, posinf=np.inf)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    return Estimate(float(value), float(low), float(high), _count(pairs))


Pairs = Mapping[int, np.ndarray]
"""By seed: (items, 2), our score and theirs."""


def _pairs(ours: str, our_scores: Scores, theirs: str, their_scores: Scores) -> Pairs:
    if our_scores.keys() != their_scores.keys() or not our_scores:
        raise ValueError(f"{ours} and {theirs} have not the same seeds")
    pairs: dict[int, np.ndarray] = {}
    for seed in sorted(our_scores):
        shared = sorted(our_scores[seed].keys() & their_scores[seed].keys())
        if not shared:
            raise ValueError(f"{ours} and {theirs} have no item of seed {seed} in common")
        pairs[seed] = np.array(
            [(our_scores[seed][item], their_scores[seed][item]) for item in shared]
        )
    return pairs


def _count(pairs: Pairs) -> int:
    return sum(len(both) for both in pairs.values())


def _mean(pairs: Pairs) -> tuple[float, float]:
    """Both sides' means over the seeds' means."""
    ours, theirs = np.mean([both.mean(0) for both in pairs.values()], axis=0)
    return float(ours), float(theirs)


def _draws(pairs: Pairs) -> np.ndarray:
    """Both means of resampled studies. A seed that is drawn twice has its items drawn twice, each
    time anew."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(pairs), (len(pairs), DRAWS))
    draws = np.zeros((DRAWS, 2))
    for place in chosen:
        for number, both in enumerate(pairs.values()):
            drawn = np.flatnonzero(place == number)
            items = rng.integers(0, len(both), (len(drawn), len(both)))
            draws[drawn] += both[items].mean(1) / len(pairs)
    return draws
