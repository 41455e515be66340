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
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from interloom.backends.remote_roles import Form
from interloom.benchmarks import judging, published
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.judging import Asked, ChatJudge
from interloom.errors import InterloomError
from interloom.records import Request, Trajectory

NAME = "wise"
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


# --- published layout -----------------------------------------------------------------------------


def load(path: Path, protocol: Protocol = "legacy") -> list[Item]:
    """Items of the published files; the category follows from the prompt id.

    Raises:
        InterloomError: naming the file and the record.
    """
    return [_item(record, where, protocol) for where, record in published.records(path)]


def _item(record: Mapping[str, Any], where: str, protocol: Protocol) -> Item:
    prompt_id = published.field(record, "prompt_id", where, int)
    return Item(
        prompt_id=prompt_id,
        prompt=published.field(record, "Prompt", where, str),
        category=category_of(prompt_id, protocol),
        explanation=record.get("Explanation") or "",
        subcategory=record.get("Subcategory") or "",
    )


def requests(items: Sequence[Item]) -> list[Request]:
    """The items as requests."""
    return [
        Request(
            id=f"{NAME}/{item.prompt_id}",
            text=item.prompt,
            category=item.category,
            subcategory=item.subcategory,
        )
        for item in items
    ]


def write(folder: Path, trajectories: Sequence[Trajectory], *, with_text: bool) -> None:
    """``{prompt_id}.png``: the last picture of each sequence. Texts are not part of WISE."""
    folder.mkdir(parents=True, exist_ok=True)
    for trajectory in trajectories:
        image = published.last_image(trajectory)
        if image is not None:
            prompt_id = trajectory.request.id.removeprefix(f"{NAME}/")
            (folder / f"{prompt_id}.png").write_bytes(image)


def image_of(item: Item, folder: Path) -> bytes | None:
    """The picture that a system made for an item."""
    path = folder / f"{item.prompt_id}.png"
    return path.read_bytes() if path.exists() else None


# --- judging --------------------------------------------------------------------------------------

Two = Annotated[int, Field(ge=0, le=2)]


class LegacyForm(Form):
    """What the judge answers under the legacy protocol."""

    reasoning: str
    consistency: Two
    realism: Two
    aesthetic_quality: Two


class VerifiedForm(Form):
    """What the judge answers under the verified protocol."""

    reasoning: str
    correct: bool


def calls(item: Item) -> int:
    """Judge calls that an item takes at most."""
    return 1


def judged(
    items: Sequence[Item], folder: Path, judge: ChatJudge, protocol: Protocol
) -> dict[int, Legacy | bool | None]:
    """Ask a chat model about every picture in ``folder``.

    Without a picture the system failed, not the judge: lowest grades, and no call.
    """
    form = LegacyForm if protocol == "legacy" else VerifiedForm
    asked: list[Asked] = []
    for item in items:
        image = image_of(item, folder)
        if image is not None:
            texts = {"prompt": item.prompt, "explanation": item.explanation}
            question = judging.conversation(NAME, protocol, texts, {"picture": [image]})
            asked.append(Asked(str(item.prompt_id), "", question, form))
    said = judging.ask_all(judge, asked)
    grades: dict[int, Legacy | bool | None] = {}
    for item in items:
        key = (str(item.prompt_id), "")
        answer = said.get(key)
        if key not in said:
            grades[item.prompt_id] = Legacy(0, 0, 0) if protocol == "legacy" else False
        elif isinstance(answer, LegacyForm):
            grades[item.prompt_id] = Legacy(
                answer.consistency, answer.realism, answer.aesthetic_quality
            )
        else:
            grades[item.prompt_id] = answer.correct if isinstance(answer, VerifiedForm) else None
    return grades


def graded(
    items: Sequence[Item],
    grades: Mapping[int, Legacy | bool | None],
    *,
    protocol: str,
    judge: str,
) -> Graded:
    """The benchmark's figures as a cell keeps them; the grades' kind tells the protocol.

    Raises:
        InterloomError: a category without a judged item, or grades of both protocols.
    """
    legacy = {i: g for i, g in grades.items() if g is None or isinstance(g, Legacy)}
    verified = {i: g for i, g in grades.items() if g is None or isinstance(g, bool)}
    categories = {item.prompt_id: item.category for item in items}
    if len(verified) == len(grades) and any(g is not None for g in verified.values()):
        scores, weights = verified_scores(verified, categories), VERIFIED_WEIGHTS
    elif len(legacy) == len(grades):
        scores, weights = legacy_scores(legacy, categories), LEGACY_WEIGHTS
    else:
        raise InterloomError("WISE: grades of the legacy and the verified protocol do not mix")
    return Graded(
        protocol=protocol,
        judge=judge,
        items={str(i): 100 * value for i, value in scores.items.items()},
        strata={str(item.prompt_id): item.category for item in items},
        weights=dict(weights),
        parts={name: 100 * value for name, value in scores.categories.items()},
        unjudged=scores.unjudged,
    )
