"""Two systems over seeds and items, paired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from interloom.benchmarks.statistics import DRAWS, Estimate, percentile_interval

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
    if our_scores.keys() != their_scores.keys() or not our_scores:
        raise ValueError(f"{ours} and {theirs} have not the same seeds")
    differences: dict[int, np.ndarray] = {}
    sides: list[tuple[float, float]] = []
    for seed in sorted(our_scores):
        shared = sorted(our_scores[seed].keys() & their_scores[seed].keys())
        if not shared:
            raise ValueError(f"{ours} and {theirs} have no item of seed {seed} in common")
        a = np.array([our_scores[seed][item] for item in shared])
        b = np.array([their_scores[seed][item] for item in shared])
        differences[seed] = a - b
        sides.append((float(a.mean()), float(b.mean())))
    by_seed = {seed: float(values.mean()) for seed, values in differences.items()}
    count = sum(len(values) for values in differences.values())
    return Comparison(
        ours,
        theirs,
        float(np.mean([a for a, _ in sides])),
        float(np.mean([b for _, b in sides])),
        percentile_interval(float(np.mean(list(by_seed.values()))), _draws(differences), count),
        by_seed,
    )


def _draws(differences: Mapping[int, np.ndarray]) -> np.ndarray:
    """Means of resampled studies. A seed that is drawn twice has its items drawn twice, each time
    anew."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(differences), (len(differences), DRAWS))
    draws = np.zeros(DRAWS)
    for place in chosen:
        for number, values in enumerate(differences.values()):
            drawn = np.flatnonzero(place == number)
            items = rng.integers(0, len(values), (len(drawn), len(values)))
            draws[drawn] += values[items].mean(1) / len(differences)
    return draws
