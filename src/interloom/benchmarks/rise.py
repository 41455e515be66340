"""RISEBench: reasoning-informed editing, 360 items in four categories.

Appearance consistency, reasoning and visual plausibility, 1–5 each. An item is *correct* when all
are 5; logical items look at consistency and reasoning, ``consistency_free`` items skip
consistency. Accuracy is per category and micro over all items. The weighted score (0.3, 0.5, 0.2)
is reported beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from interloom.backends.remote_roles import Form
from interloom.benchmarks import judging, published
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.judging import Asked, ChatJudge
from interloom.errors import InterloomError
from interloom.records import Request, Trajectory

NAME = "rise"
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
    image: bytes = b""
    """The picture to edit."""
    references: tuple[bytes, ...] = ()
    """Pictures of a right result; may be empty."""
    reference_text: str = ""
    """What a right result shows; may be empty."""
    subtask: str = ""

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


# --- published layout -----------------------------------------------------------------------------


def load(path: Path) -> list[Item]:
    """Items of the published file, with their pictures.

    Raises:
        InterloomError: naming the file and the record.
    """
    folder = published.folder_of(path)
    return [_item(record, folder, where) for where, record in published.records(path)]


def _item(record: Mapping[str, Any], folder: Path, where: str) -> Item:
    free = record.get("consistency_free")
    if free is not None and not isinstance(free, bool | int):
        raise InterloomError(f"{where}: field 'consistency_free' is {free!r}, not true or false")
    references = (
        *published.several(record.get("reference_img")),
        *published.several(record.get("reasoning_img")),
    )
    said = record.get("reference_txt") or record.get("reference") or ""
    return Item(
        index=str(published.field(record, "index", where, (str, int))),
        category=_category(published.field(record, "category", where, str)),
        instruction=published.field(record, "instruction", where, str),
        consistency_free=bool(free),
        image=published.picture(record.get("image"), folder, where),
        references=tuple(published.picture(name, folder, where) for name in references),
        reference_text=str(said),
        subtask=record.get("subtask") or "",
    )


def _category(name: str) -> str:
    """``temporal_reasoning`` is called ``temporal`` here."""
    return name.removesuffix("_reasoning")


def requests(items: Sequence[Item]) -> list[Request]:
    """The items as requests that bring their picture."""
    return [
        Request(
            id=f"{NAME}/{item.index}",
            text=item.instruction,
            images=(item.image,),
            kind="continuation",
            category=item.category,
            subcategory=item.subtask,
        )
        for item in items
    ]


def write(folder: Path, trajectories: Sequence[Trajectory], *, with_text: bool) -> None:
    """``images/{category}/{index}.png``: the last picture of each sequence."""
    for trajectory in trajectories:
        image = published.last_image(trajectory)
        if image is not None:
            index = trajectory.request.id.removeprefix(f"{NAME}/")
            path = folder / "images" / trajectory.request.category / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)


def image_of(item: Item, folder: Path) -> bytes | None:
    """The picture that a system made for an item."""
    path = folder / "images" / item.category / f"{item.index}.png"
    return path.read_bytes() if path.exists() else None


# --- judging --------------------------------------------------------------------------------------

Axis = Literal["consistency", "reasoning", "plausibility"]
SKIPPED = 5
"""Stands for an axis that does not count for an item, and so is not asked about."""


class GradeForm(Form):
    """What the judge answers about one axis."""

    reasoning: str
    grade: judging.Five


def axes(item: Item) -> tuple[Axis, ...]:
    """The axes that accuracy or weighted score of an item need."""
    wanted: list[Axis] = ["reasoning"]
    if not item.consistency_free or item.category == "logical":
        wanted.append("consistency")
    if item.category != "logical":
        wanted.append("plausibility")
    return tuple(wanted)


def calls(item: Item) -> int:
    """Judge calls that an item takes at most."""
    return len(axes(item))


def judged(items: Sequence[Item], folder: Path, judge: ChatJudge) -> dict[str, Grades | None]:
    """Ask a chat model about every axis; an item without a picture gets the lowest grades."""
    asked: list[Asked] = []
    for item in items:
        image = image_of(item, folder)
        if image is None:
            continue
        texts = {"instruction": item.instruction, "reference": item.reference_text or "(none)"}
        pictures = {"before": [item.image], "after": [image], "references": item.references}
        for axis in axes(item):
            shown = {"after": [image]} if axis == "plausibility" else pictures
            question = judging.conversation(NAME, axis, texts, shown)
            asked.append(Asked(item.index, axis, question, GradeForm))
    said = judging.ask_all(judge, asked)
    return {item.index: _grades(item, said) for item in items}


def _grades(item: Item, said: judging.Answers) -> Grades | None:
    if (item.index, "reasoning") not in said:
        return Grades(1, 1, 1)
    found: dict[str, int] = {}
    for axis in axes(item):
        answer = judging.answer_of(said, item.index, axis, GradeForm)
        if answer is None:
            return None
        found[axis] = answer.grade
    return Grades(
        found.get("consistency", SKIPPED), found["reasoning"], found.get("plausibility", SKIPPED)
    )


def graded(
    items: Sequence[Item], grades: Mapping[str, Grades | None], *, protocol: str, judge: str
) -> Graded:
    """The benchmark's figures as a cell keeps them."""
    scores = score(items, grades)
    return Graded(
        protocol=protocol,
        judge=judge,
        items=scores.items,
        strata={item.index: "" for item in items},  # micro average
        weights={},
        parts={"weighted": scores.weighted, **scores.categories},
        unjudged=scores.unjudged,
    )
