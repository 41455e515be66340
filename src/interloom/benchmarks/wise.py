"""WISE: knowledge-laden text-to-image in six categories, two protocols that are never mixed.

``legacy`` (what InterleaveThinker reports): consistency, realism and aesthetic quality, 0–2 each;
``WiScore = (0.7·C + 0.2·R + 0.1·A) / 2``; overall with weights 0.4, 0.167, 0.133, 0.1, 0.1, 0.1.
``verified`` (the repository's default since 2026-04): one binary verdict; overall =
0.4·culture + 0.12·each other. Both need all six categories. A failed judge call is unjudged, never
a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from interloom.errors import InterloomError

Protocol = Literal["legacy", "verified"]
CATEGORIES: tuple[str, ...] = ("culture", "time", "space", "biology", "physics", "chemistry")
LEGACY_LAST_ID: dict[str, int] = dict(zip(CATEGORIES, (400, 567, 700, 800, 900, 1000), strict=True))
VERIFIED_LAST_ID: dict[str, int] = dict(
    zip(CATEGORIES, (400, 520, 640, 760, 880, 1000), strict=True)
)
LEGACY_WEIGHTS: dict[str, float] = dict(
    zip(CATEGORIES, (0.4, 0.167, 0.133, 0.1, 0.1, 0.1), strict=True)
)
VERIFIED_WEIGHTS: dict[str, float] = dict(
    zip(CATEGORIES, (0.4, 0.12, 0.12, 0.12, 0.12, 0.12), strict=True)
)


@dataclass(frozen=True)
class Item:
    """One prompt, in the published layout."""

    prompt_id: int
    prompt: str
    category: str
    explanation: str = ""
    subcategory: str = ""


@dataclass(frozen=True)
class Legacy:
    """One image's legacy grades, integers 0–2."""

    consistency: int
    realism: int
    aesthetic: int

    def __post_init__(self) -> None:
        for name in ("consistency", "realism", "aesthetic"):
            value = getattr(self, name)
            if value not in (0, 1, 2):
                raise ValueError(f"{name} = {value!r}: WISE's legacy grades are 0, 1 or 2")


@dataclass(frozen=True)
class Scores:
    """All 0–1. ``items`` holds the score of every judged item by prompt id."""

    protocol: Protocol
    overall: float
    categories: dict[str, float]
    items: dict[int, float]
    unjudged: float


def category_of(prompt_id: int, protocol: Protocol = "legacy") -> str:
    """The category that a prompt id belongs to.

    >>> category_of(568), category_of(568, "verified")
    ('space', 'space')
    >>> category_of(500), category_of(530), category_of(530, "verified")
    ('time', 'time', 'space')

    Raises:
        InterloomError: not within 1–1000.
    """
    last_ids = LEGACY_LAST_ID if protocol == "legacy" else VERIFIED_LAST_ID
    for category, last in last_ids.items():
        if 1 <= prompt_id <= last:
            return category
    raise InterloomError(f"WISE prompt id {prompt_id} is not within 1–1000")


def wiscore(grades: Legacy) -> float:
    """``(0.7·C + 0.2·R + 0.1·A) / 2`` in [0, 1].

    >>> wiscore(Legacy(2, 1, 0))
    0.8
    """
    total = 0.7 * grades.consistency + 0.2 * grades.realism + 0.1 * grades.aesthetic
    return round(total / 2, 9)


def legacy_scores(
    grades: Mapping[int, Legacy | None], categories: Mapping[int, str] | None = None
) -> Scores:
    """Legacy scores of graded prompts; ``None`` is an unjudged one.

    Args:
        categories: category by prompt id; by default from the published id ranges.

    Raises:
        InterloomError: a category without any judged item.
    """
    values = {i: wiscore(g) for i, g in grades.items() if g is not None}
    chosen = categories or {i: category_of(i) for i in grades}
    return _scores("legacy", values, chosen, LEGACY_WEIGHTS, len(grades))


def verified_scores(
    grades: Mapping[int, bool | None], categories: Mapping[int, str] | None = None
) -> Scores:
    """Verified scores of graded prompts; arguments and errors as for ``legacy_scores``."""
    values = {i: float(g) for i, g in grades.items() if g is not None}
    chosen = categories or {i: category_of(i, "verified") for i in grades}
    return _scores("verified", values, chosen, VERIFIED_WEIGHTS, len(grades))


def _scores(
    protocol: Protocol,
    values: Mapping[int, float],
    categories: Mapping[int, str],
    weights: Mapping[str, float],
    asked: int,
) -> Scores:
    by_category: dict[str, list[float]] = {category: [] for category in CATEGORIES}
    for prompt_id, value in values.items():
        by_category[categories[prompt_id]].append(value)
    empty = [category for category, found in by_category.items() if not found]
    if empty:
        raise InterloomError(f"WISE needs all six categories; none judged in {empty}")
    means = {category: _mean(found) for category, found in by_category.items()}
    overall = sum(weights[category] * value for category, value in means.items())
    return Scores(protocol, overall, means, dict(values), 1 - len(values) / asked)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
