"""Rewards of a trajectory (SAIR §3.3), pure functions over what was judged.

========== =========================================================================
R_o        mean of the final picture's four axes, each × 0.2
R_f        1 if the trajectory is a story (``story.parse_story``), else 0
R_s        mean validity in [0, 1] of its failure analyses, plans and sub-steps
R_total    0.7·R_o + 0.1·R_f + 0.2·R_s
R_final    R_total + N*/N_i for the competitive ones of a group, R_total for the others
========== =========================================================================

A group's trajectories answer one request. Competitive are those with R_total ≥ max − ε; N* is the
fewest pictures among them. The paper pays this bonus in groups where nobody succeeded as well, and
so pays for failing in few pictures; ``gated`` pays it to trajectories that succeeded only.

The paper does not say what R_s is where there is no such text (a direct answer). Counted as 0 it
would put every direct answer 0.2 behind, out of reach of ε; so the term is dropped and the others
are scaled up, as the released composition does with absent terms.

``released`` is the composition of the authors' code, which has no bonus: ``0.40·final + 0.30·step +
0.10·format + 0.20·reflection`` with absent terms dropped.

**An analyzer call that failed is no number**: the trajectory's rewards are ``None`` and it is left
out of its group, also as a competitor.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from interloom.adaptive.story import read_blocks
from interloom.records import AXES, Evaluation, Failure, Segment

Composition = Literal["paper", "released"]
Bonus = Literal["paper", "gated", "none"]
RELEASED_AXES = {"instruction": 0.40, "consistency": 0.25, "quality": 0.20, "knowledge": 0.15}


@dataclass(frozen=True, slots=True)
class Weights:
    """How R_total is mixed; the defaults are the paper's."""

    outcome: float = 0.7
    form: float = 0.1
    steps: float = 0.2


@dataclass(frozen=True, slots=True)
class Judged:
    """One trajectory as judged.

    ``final`` is ``None`` where nothing was drawn. ``reflections`` and ``steps`` are validities in
    [0, 1] of its texts. ``form`` is the released format score; the paper's R_f is ``valid``.
    """

    final: Evaluation | Failure | None
    valid: bool
    images: int
    success: bool = False
    reflections: tuple[float | Failure, ...] = ()
    steps: tuple[float | Failure, ...] = ()
    form: float = 0.0

    @property
    def unjudged(self) -> bool:
        """Whether a call about it failed."""
        return any(isinstance(x, Failure) for x in (self.final, *self.reflections, *self.steps))


def outcome_reward(final: Evaluation | None) -> float:
    """R_o: the mean of the four axes × 0.2; 0 where nothing was drawn.

    >>> outcome_reward(Evaluation(instruction=5, consistency=5, quality=4, knowledge=4))
    0.9
    >>> outcome_reward(None)
    0.0
    """
    if final is None:
        return 0.0
    return round(sum(0.2 * getattr(final, axis) for axis in AXES) / len(AXES), 6)


def step_reward(judged: Judged) -> float | None:
    """R_s: the mean validity of the intermediate texts; ``None`` where there is none.

    Raises:
        ValueError: a validity outside [0, 1].
    """
    return _mean((*judged.reflections, *judged.steps))


def _mean(validities: Sequence[float | Failure]) -> float | None:
    numbers = [value for value in validities if not isinstance(value, Failure)]
    if any(not 0 <= value <= 1 for value in numbers):
        raise ValueError(f"validities {numbers} are not within 0–1")
    return sum(numbers) / len(numbers) if numbers else None


def _weighted(terms: Sequence[tuple[float, float | None]]) -> float:
    """Weighted mean of the terms that are there, on the scale that all weights together have."""
    there = [(weight, value) for weight, value in terms if value is not None]
    total, present = sum(w for w, _ in terms), sum(w for w, _ in there)
    # Rounded, so that equal rewards are equal bit for bit.
    return round(sum(w * v for w, v in there) * total / present, 6) if present else 0.0


def total_reward(judged: Judged, weights: Weights | None = None) -> float | None:
    """R_total of the paper; ``None`` where a call failed.

    >>> fine = Evaluation(instruction=5, consistency=5, quality=5, knowledge=5)
    >>> total_reward(Judged(fine, valid=True, images=2, reflections=(0.5,)))
    0.9
    >>> total_reward(Judged(fine, valid=True, images=1))
    1.0
    >>> total_reward(Judged(Failure(role="judge", reason="timeout"), valid=True, images=1))
    """
    weights = weights or Weights()
    if judged.unjudged:
        return None
    assert not isinstance(judged.final, Failure)
    return _weighted(
        [
            (weights.outcome, outcome_reward(judged.final)),
            (weights.form, float(judged.valid)),
            (weights.steps, step_reward(judged)),
        ]
    )


def released_final(final: Evaluation | None) -> float:
    """The released outcome: weighted axes, each rescaled to [0, 1] by (x − 1)/4.

    >>> released_final(Evaluation(instruction=5, consistency=1, quality=3, knowledge=1))
    0.5
    """
    if final is None:
        return 0.0
    return round(sum(w * (getattr(final, axis) - 1) / 4 for axis, w in RELEASED_AXES.items()), 6)


def released_format(segments: Sequence[Segment]) -> float:
    """The released format score: a quarter each for a text block, a picture, balanced tags, and
    ending with a picture while a text leads to every picture.

    The released stories have no evaluations and begin with a thought; ours begin with a picture and
    end with its evaluation, so the first picture needs no text and the last evaluation is left out.

    >>> released_format([b"...", "<evaluate>scores: ...</evaluate>"])
    1.0
    >>> released_format(["a red sun"])
    0.0
    """
    blocks, problem = read_blocks(segments)
    tags = [block.tag for block in blocks]
    pictures = [place for place, tag in enumerate(tags) if tag == "image"]
    ends = bool(pictures) and all(tag == "evaluate" for tag in tags[pictures[-1] + 1 :])
    led_to = all(place and tags[place - 1] != "image" for place in pictures[1:])
    checks = (len(pictures) < len(tags), bool(pictures), problem is None, ends and led_to)
    return sum(checks) / 4 if tags else 0.0


def released_reward(judged: Judged) -> float | None:
    """The released composition; ``None`` where a call failed.

    >>> fine = Evaluation(instruction=5, consistency=5, quality=5, knowledge=5)
    >>> released_reward(Judged(fine, valid=True, images=3, steps=(1.0, 0.0), form=1.0))
    0.8125
    """
    if judged.unjudged:
        return None
    assert not isinstance(judged.final, Failure)
    return _weighted(
        [
            (0.40, released_final(judged.final)),
            (0.30, _mean(judged.steps)),
            (0.10, judged.form),
            (0.20, _mean(judged.reflections)),
        ]
    )


def complexity_bonus(
    totals: Sequence[float | None],
    images: Sequence[int],
    groups: Sequence[Hashable],
    *,
    success: Sequence[bool] | None = None,
    epsilon: float = 0.05,
) -> list[float]:
    """N*/N_i inside each group's competitive set, 0 outside of it.

    Args:
        totals: R_total, ``None`` for trajectories that could not be judged.
        images: pictures of each trajectory; one without any is in no competitive set.
        groups: which request each trajectory answers. A group must be whole.
        success: if given, only trajectories that succeeded are paid, or set N*.

    >>> complexity_bonus([1.0, 0.97, 0.5], [4, 2, 1], ["a", "a", "a"])
    [0.5, 1.0, 0.0]
    >>> complexity_bonus([0.3, 0.3], [2, 1], ["a", "a"], success=[False, False])
    [0.0, 0.0]
    """
    members: defaultdict[Hashable, list[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    bonus = [0.0] * len(totals)
    for places in members.values():
        numbers = {i: total for i in places if (total := totals[i]) is not None}
        if not numbers:
            continue
        least = max(numbers.values()) - epsilon - 1e-9
        competitive = [
            i
            for i, total in numbers.items()
            if total >= least and images[i] > 0 and (success is None or success[i])
        ]
        fewest = min((images[i] for i in competitive), default=0)
        for i in competitive:
            bonus[i] = fewest / images[i]
    return bonus


@dataclass(frozen=True, slots=True)
class Rewards:
    """The parts and the sums, each as long as the batch; ``None`` where a call failed."""

    total: list[float | None]
    bonus: list[float]
    final: list[float | None]


def trajectory_rewards(
    judged: Sequence[Judged],
    groups: Sequence[Hashable],
    *,
    composition: Composition = "paper",
    bonus: Bonus = "paper",
    weights: Weights | None = None,
    epsilon: float = 0.05,
) -> Rewards:
    """R_final of whole groups by the named composition and bonus."""
    if composition == "released":
        totals = [released_reward(one) for one in judged]
    else:
        totals = [total_reward(one, weights) for one in judged]
    paid = [0.0] * len(judged)
    if bonus != "none":
        success = [one.success for one in judged] if bonus == "gated" else None
        images = [one.images for one in judged]
        paid = complexity_bonus(totals, images, groups, success=success, epsilon=epsilon)
    final = [
        None if total is None else round(total + extra, 6)
        for total, extra in zip(totals, paid, strict=True)
    ]
    return Rewards(totals, paid, final)
