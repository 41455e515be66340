"""Which steps become critic data: filtering, SFT/RL split by variance, balancing (§3.3).

Everything here works on scores and judgments alone, so that 100,000 steps with their images need
no more memory than their numbers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import pvariance
from typing import Literal, get_args

from interloom.seeding import derive_seed

Loss = Literal["call-failed", "low", "falling", "degraded", "stagnant"]
LOSSES: tuple[Loss, ...] = get_args(Loss)


@dataclass(frozen=True, slots=True)
class ScoredStep:
    """One step of a trajectory: overall score (0–10) and judgment of every iteration, in order.

    ``scores`` is ``None`` for an iteration whose judge or critic gave no answer.
    """

    key: str
    scores: tuple[float | None, ...]
    judgments: tuple[bool, ...]

    @property
    def variance(self) -> float:
        """Population variance of the iteration scores; 0 for a single iteration."""
        values = [score for score in self.scores if score is not None]
        return pvariance(values) if len(values) > 1 else 0.0


@dataclass(frozen=True)
class Thresholds:
    """Scores 0–10. ``low``: never above it is persistently low. ``high``: never below it is stable.

    A change of at most ``tolerance`` is no change.
    """

    low: float
    high: float
    tolerance: float


def step_loss(scores: Sequence[float | None], limits: Thresholds | None) -> Loss | None:
    """Why a step is dropped; ``None`` keeps it because its scores rise or stay high.

    Without limits (the "unfiltered" ablation) only steps with a failed call go.

    >>> limits = Thresholds(low=4, high=7, tolerance=0.5)
    >>> [step_loss(s, limits) for s in ((3, 6, 9), (9,), (8, 9, 8))]
    [None, None, None]
    >>> [step_loss(s, limits) for s in ((8, 3), (3, 9, 2, 8), (2, 3), (5, 5), (None, 9))]
    ['falling', 'degraded', 'low', 'stagnant', 'call-failed']
    """
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        return "call-failed"
    if limits is None:
        return None
    if max(known) < limits.low:
        return "low"
    if known[-1] < known[0] - limits.tolerance:
        return "falling"
    if min(known) >= limits.high:
        return None
    fell = any(b < max(known[:i]) - limits.tolerance for i, b in enumerate(known[1:], 1))
    rose = known[-1] > known[0] + limits.tolerance
    return "degraded" if fell else None if rose else "stagnant"


def balanced_size(true: int, false: int, majority: float) -> int:
    """Rows left when the larger side is cut to the share ``majority`` (0.5: equal sides).

    >>> balanced_size(300, 60, 0.5), balanced_size(300, 60, 0.6), balanced_size(5, 5, 0.6)
    (120, 150, 10)
    """
    fewer, more = sorted((true, false))
    return fewer + min(more, int(fewer * majority / (1 - majority) + 1e-9))


def split_by_variance(
    steps: Sequence[ScoredStep],
    *,
    ratio: float,
    majority: float | None,
    given: tuple[int, int] = (0, 0),
) -> tuple[list[ScoredStep], list[ScoredStep], float]:
    """High variance → RL, low → SFT, cut where the sizes come nearest to ``ratio`` (SFT:RL).

    The paper balances the judgments after the split. Low-variance steps are mostly passed at once,
    so their balancing costs more rows; the cut is therefore made on the sizes *after* balancing.

    Args:
        majority: what balancing will cut the larger side to; ``None`` if it is left out.
        given: true and false judgments that are for SFT anyway.

    Returns:
        SFT steps, RL steps (both in the given order) and the variance at the cut.
    """

    def size(counts: list[int]) -> int:
        return sum(counts) if majority is None else balanced_size(counts[0], counts[1], majority)

    def count(step: ScoredStep) -> list[int]:
        return [sum(step.judgments), len(step.judgments) - sum(step.judgments)]

    # Equal variances are ordered by key, so that the cut does not depend on the order of shards.
    order = sorted(steps, key=lambda step: (-step.variance, step.key))
    rl = [0, 0]
    sft = [sum(counts) for counts in zip(given, *map(count, steps), strict=True)]
    best = (float("inf"), 0)
    for taken, step in enumerate(order, 1):
        for side, rows in enumerate(count(step)):
            rl[side] += rows
            sft[side] -= rows
        miss = abs(size(sft) - ratio * size(rl))
        best = min(best, (miss, taken))
    chosen = {step.key for step in order[: best[1]]}
    cut = order[best[1] - 1].variance if chosen else 0.0
    return (
        [step for step in steps if step.key not in chosen],
        [step for step in steps if step.key in chosen],
        cut,
    )


def balance(
    judgments: Mapping[str, bool], *, majority: float, seed: int
) -> tuple[set[str], dict[str, int]]:
    """Resample so that neither judgment is above the share ``majority``.

    Rows of the larger side are drawn without replacement: no row is ever doubled. Which rows stay
    depends on their ids and the seed alone.

    Returns:
        Ids that stay, and how many went by judgment.
    """
    sides = {
        value: sorted(row for row, judged in judgments.items() if judged is value)
        for value in (True, False)
    }
    size = balanced_size(len(sides[True]), len(sides[False]), majority)
    more = len(sides[True]) >= len(sides[False])
    wanted = size - len(sides[not more])
    kept = set(sides[not more])
    kept.update(random.Random(derive_seed(seed, "balance")).sample(sides[more], wanted))
    lost = len(sides[more]) - wanted
    return kept, {f"surplus-{str(more).lower()}": lost} if lost else {}


def filter_steps(
    steps: Sequence[ScoredStep], limits: Thresholds | None
) -> tuple[list[ScoredStep], Counter[str]]:
    """The steps that are kept, and how many steps went for which reason of ``step_loss``."""
    kept: list[ScoredStep] = []
    losses: Counter[str] = Counter()
    for step in steps:
        loss = step_loss(step.scores, limits)
        if loss is None:
            kept.append(step)
        else:
            losses[loss] += 1
    return kept, losses
