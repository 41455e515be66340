"""Bootstrap intervals over items: how far a score or a difference can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean and its percentile bootstrap interval. ``n`` is the number of items behind it."""

    value: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


def stratified_mean(
    strata: Mapping[str, Sequence[float]],
    weights: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
) -> Estimate:
    """Weighted mean of the strata's means (a benchmark's mean over its tasks), with its interval.

    Items are drawn again within their stratum, so that every draw has the benchmark's own
    composition.

    Args:
        strata: values per task; none may be empty.
        weights: per task, scaled to sum to one; equal by default.

    Raises:
        ValueError: no strata, or an empty one.
    """
    if not strata:
        raise ValueError("no strata to average")
    total = sum(weights[name] if weights else 1.0 for name in strata)
    draws = np.zeros(DRAWS)
    value = 0.0
    rng = np.random.default_rng(seed)
    for name in sorted(strata):
        values = np.asarray(strata[name], float)
        if not len(values):
            raise ValueError(f"stratum {name!r} has no values")
        share = (weights[name] if weights else 1.0) / total
        value += float(values.mean()) * share
        chosen = rng.integers(0, len(values), (DRAWS, len(values)))
        draws += values[chosen].mean(1) * share
    return percentile_interval(value, draws, sum(len(values) for values in strata.values()))


def mean(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """Mean over items with its interval.

    >>> mean([1.0, 1.0, 1.0])
    Estimate(value=1.0, low=1.0, high=1.0, n=3)
    """
    return stratified_mean({"": values}, seed=seed)


def grouped(
    values: Mapping[str, float], strata: Mapping[str, str] | None
) -> dict[str, list[float]]:
    """Values by stratum, items in the order of their ids."""
    groups: dict[str, list[float]] = {}
    for item in sorted(values):
        groups.setdefault(strata[item] if strata is not None else "", []).append(values[item])
    return groups


def paired_difference(
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    strata: Mapping[str, str] | None = None,
    weights: Mapping[str, float] | None = None,
    *,
    seed: int = 0,
) -> Estimate:
    """``ours − theirs`` over the items that both have, resampled as pairs.

    Pairing takes out what makes an item hard for everyone; the interval is far narrower than that
    of two independent means.

    Args:
        ours, theirs: value by item id.
        strata: task by item id; the mean is then over task means, by ``weights``.

    Raises:
        ValueError: no item in common.
    """
    shared = ours.keys() & theirs.keys()
    if not shared:
        raise ValueError("the two systems have no item in common")
    differences = {item: ours[item] - theirs[item] for item in shared}
    return stratified_mean(grouped(differences, strata), weights, seed=seed)


def percentile_interval(value: float, draws: np.ndarray, n: int) -> Estimate:
    tail = (1 - LEVEL) / 2
    low, high = (float(q) for q in np.quantile(draws, (tail, 1 - tail)))
    return Estimate(value, low, high, n)
