"""RISEBench: reasoning-informed editing, 360 items in four categories.

Appearance consistency, reasoning and visual plausibility, 1–5 each. An item is *correct* when all
are 5; logical items look at consistency and reasoning, ``consistency_free`` items skip
consistency. Accuracy is per category and micro over all items. The weighted score (0.3, 0.5, 0.2)
is reported beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from interloom.errors import InterloomError

PROTOCOL = "risebench/all-five"
CATEGORIES = ("temporal", "causal", "spatial", "logical")


@dataclass(frozen=True)
class Item:
    """One edit, in the published layout. A missing ``consistency_free`` means false.

    (The official script reads a missing value as true: a known fault, not repeated here.)
    """

    index: str
    category: str
    instruction: str
    consistency_free: bool = False

    def __post_init__(self) -> None:
        if self.category not in CATEGORIES:
            raise InterloomError(
                f"RISE item {self.index}: unknown category {self.category!r}; "
                f"categories: {', '.join(CATEGORIES)}"
            )


@dataclass(frozen=True)
class Grades:
    """One edited image's grades, integers 1–5."""

    consistency: int
    reasoning: int
    plausibility: int

    def __post_init__(self) -> None:
        for name in ("consistency", "reasoning", "plausibility"):
            value = getattr(self, name)
            if value not in (1, 2, 3, 4, 5):
                raise ValueError(f"{name} = {value!r}: RISE's grades are 1 to 5")


@dataclass(frozen=True)
class Scores:
    """Accuracies and weighted scores 0–100; ``items`` holds 100 or 0 for every judged item."""

    overall: float
    weighted: float
    categories: dict[str, float]
    items: dict[str, float]
    unjudged: float


def is_correct(item: Item, grades: Grades) -> bool:
    """All fives on the axes that count for the item.

    >>> is_correct(Item("1", "logical", ""), Grades(5, 5, 1))
    True
    >>> is_correct(Item("2", "causal", "", consistency_free=True), Grades(1, 5, 5))
    True
    """
    axes = [grades.reasoning]
    if not item.consistency_free:
        axes.append(grades.consistency)
    if item.category != "logical":
        axes.append(grades.plausibility)
    return all(axis == 5 for axis in axes)


def weighted(item: Item, grades: Grades) -> float:
    """The weighted score in percent: ``25·(s − 1)``; halved (floor 1) if reasoning is 1.

    >>> weighted(Item("1", "causal", ""), Grades(5, 3, 5))
    75.0
    >>> weighted(Item("1", "causal", ""), Grades(5, 1, 5))
    12.5
    """
    cons, reas, plaus = grades.consistency, grades.reasoning, grades.plausibility
    if item.category == "logical":
        value = 0.3 * cons + 0.7 * reas
    elif item.consistency_free:
        value = 0.8 * reas + 0.2 * plaus
    else:
        value = 0.3 * cons + 0.5 * reas + 0.2 * plaus
    if reas == 1:
        value = max(1.0, value / 2)
    return round(25 * (value - 1), 9)


def score(items: Sequence[Item], grades: Mapping[str, Grades | None]) -> Scores:
    """Accuracy per category, micro accuracy and mean weighted score; ``None`` is unjudged.

    Raises:
        InterloomError: an item without an entry, or nothing judged at all.
    """
    correct: dict[str, float] = {}
    points: list[float] = []
    by_category: dict[str, list[float]] = {}
    for item in items:
        if item.index not in grades:
            raise InterloomError(f"RISE item {item.index} has not been graded")
        graded = grades[item.index]
        if graded is None:
            continue
        correct[item.index] = 100.0 * is_correct(item, graded)
        points.append(weighted(item, graded))
        by_category.setdefault(item.category, []).append(correct[item.index])
    if not correct:
        raise InterloomError("RISE: no item could be judged")
    return Scores(
        overall=_mean(list(correct.values())),
        weighted=_mean(points),
        categories={name: _mean(values) for name, values in by_category.items()},
        items=correct,
        unjudged=1 - len(correct) / len(items),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
