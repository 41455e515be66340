"""KRIS-Bench: editing by knowledge, 20 folders of three knowledge types.

Visual consistency, visual quality and instruction following, 1–5 each; knowledge plausibility in
the ten knowledge folders too. A grade s counts ``25·(s − 1)``. The average of a group of folders is
the mean of its metrics' averages, as the benchmark has it (``Scores.groups``).

The benchmark's tables have no single overall score. The one here is the unweighted mean of the
three types, each the mean over its items of an item's mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interloom.backends.remote_roles import Form
from interloom.benchmarks import judging, published
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.judging import Asked, ChatJudge
from interloom.errors import InterloomError
from interloom.records import Request, Trajectory

NAME = "kris"
PROTOCOL = "kris-bench/metric-means"
RECORDS = "annotation.json"
METRICS = ("consistency", "quality", "instruction", "knowledge")
DIMENSIONS: dict[str, tuple[str, ...]] = {
    "attribute": (
        "count_change", "color_change", "size_adjustment", "part_completion", "anomaly_correction",
    ),
    "spatial": ("position_movement", "viewpoint_change"),
    "temporal": ("temporal_prediction",),
    "social": ("practical_knowledge", "humanities"),
    "natural": ("biology", "chemistry", "geography", "mathematics", "medicine", "physics"),
    "logical": ("abstract_reasoning", "rule-based_reasoning"),
    "decomposition": ("multi-instruction_execution", "multi-element_composition"),
}  # fmt: skip
"""Folders of each dimension."""
TYPES: dict[str, tuple[str, ...]] = {
    "factual": ("attribute", "spatial", "temporal"),
    "conceptual": ("social", "natural"),
    "procedural": ("logical", "decomposition"),
}
"""Dimensions of each knowledge type."""
KNOWLEDGE = frozenset(
    folder for name in ("social", "natural", "logical") for folder in DIMENSIONS[name]
)
"""The ten folders in which knowledge plausibility is graded."""
CATEGORIES = tuple(folder for folders in DIMENSIONS.values() for folder in folders)


@dataclass(frozen=True)
class Item:
    """One edit; ``key`` is its id within its category."""

    category: str
    key: str
    instruction: str
    images: tuple[bytes, ...] = ()
    """One picture to edit, or the several that are to be composed."""
    reference: bytes | None = None
    explanation: str = ""

    def __post_init__(self) -> None:
        if self.category not in CATEGORIES:
            raise InterloomError(
                f"KRIS-Bench item {self.key}: unknown category {self.category!r}; "
                f"categories: {', '.join(CATEGORIES)}"
            )

    @property
    def id(self) -> str:
        """Unique over all categories."""
        return f"{self.category}/{self.key}"

    @property
    def dimension(self) -> str:
        """The group of folders that the category belongs to."""
        return next(name for name, folders in DIMENSIONS.items() if self.category in folders)

    @property
    def type(self) -> str:
        """``factual``, ``conceptual`` or ``procedural``."""
        return next(name for name, parts in TYPES.items() if self.dimension in parts)

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is graded of it."""
        return METRICS if self.category in KNOWLEDGE else METRICS[:3]


@dataclass(frozen=True)
class Grades:
    """One picture's grades, integers 1–5; ``knowledge`` only where it is graded."""

    consistency: int
    quality: int
    instruction: int
    knowledge: int | None = None

    def __post_init__(self) -> None:
        for name in METRICS:
            value = vars(self)[name]
            if value not in (1, 2, 3, 4, 5) and not (name == "knowledge" and value is None):
                raise ValueError(f"{name} = {value!r}: KRIS-Bench's grades are 1 to 5")


@dataclass(frozen=True)
class Scores:
    """All 0–100. ``groups`` has every category, dimension and type with a judged item."""

    groups: dict[str, float]
    metrics: dict[str, float]
    items: dict[str, float]
    unjudged: float


def percent(grade: int) -> float:
    """
    >>> [percent(grade) for grade in (1, 3, 5)]
    [0.0, 50.0, 100.0]
    """
    return 25.0 * (grade - 1)


def item_score(item: Item, grades: Grades) -> float:
    """Mean over the item's metrics.

    Raises:
        ValueError: knowledge plausibility is missing where it counts, or there where it does not.
    """
    if (grades.knowledge is not None) != (item.category in KNOWLEDGE):
        raise ValueError(f"{item.id}: knowledge = {grades.knowledge!r} in {item.category}")
    values = [percent(vars(grades)[name]) for name in item.metrics]
    return sum(values) / len(values)


def group_average(graded: Sequence[tuple[Item, Grades]]) -> float:
    """Mean of the metrics' averages over a group; a metric counts where it is graded at all."""
    means = metric_averages(graded)
    return sum(means.values()) / len(means)


def metric_averages(graded: Sequence[tuple[Item, Grades]]) -> dict[str, float]:
    """Average of every metric over the items that have it."""
    found: dict[str, list[float]] = {}
    for item, grades in graded:
        for name in item.metrics:
            found.setdefault(name, []).append(percent(vars(grades)[name]))
    return {name: sum(values) / len(values) for name, values in found.items()}


def score(items: Sequence[Item], grades: Mapping[str, Grades | None]) -> Scores:
    """Averages of all groups; ``None`` is unjudged.

    Raises:
        InterloomError: an item without an entry, or a knowledge type without a judged item.
    """
    judged_items: list[tuple[Item, Grades]] = []
    scores: dict[str, float] = {}
    for item in items:
        if item.id not in grades:
            raise InterloomError(f"KRIS-Bench item {item.id} has not been graded")
        found = grades[item.id]
        if found is not None:
            scores[item.id] = item_score(item, found)
            judged_items.append((item, found))
    groups: dict[str, list[tuple[Item, Grades]]] = {}
    for item, found in judged_items:
        for name in (item.type, item.dimension, item.category):
            groups.setdefault(name, []).append((item, found))
    empty = [name for name in TYPES if name not in groups]
    if empty:
        raise InterloomError(f"KRIS-Bench needs all three types; none judged in {empty}")
    order = (*TYPES, *DIMENSIONS, *CATEGORIES)
    return Scores(
        groups={name: group_average(groups[name]) for name in order if name in groups},
        metrics=metric_averages(judged_items),
        items=scores,
        unjudged=1 - len(scores) / len(items),
    )


# --- published layout -----------------------------------------------------------------------------


def load(path: Path) -> list[Item]:
    """Items of ``CATEGORY/annotation.json``, with their pictures.

    Raises:
        InterloomError: naming the file and the record.
    """
    files = sorted(path.glob(f"*/{RECORDS}"))
    if not files:
        raise InterloomError(f"{path}: no CATEGORY/{RECORDS} in it")
    items = []
    for file in files:
        ((where, entries),) = published.records(file)
        for key, record in entries.items():
            items.append(_item(record, key, file, f"{where}, {key}"))
    return items


def _item(record: Any, key: str, file: Path, where: str) -> Item:
    if not isinstance(record, dict):
        raise InterloomError(f"{where}: {type(record).__name__} instead of an object")
    before = published.several(published.field(record, "ori_img", where, (str, list)))
    right = record.get("gt_img")
    return Item(
        category=file.parent.name,
        key=key,
        instruction=published.field(record, "ins_en", where, str),
        images=tuple(published.picture(name, file.parent, where) for name in before),
        reference=published.picture(right, file.parent, where) if right else None,
        explanation=record.get("explain_en") or "",
    )


def requests(items: Sequence[Item]) -> list[Request]:
    """The items as requests that bring their pictures."""
    return [
        Request(
            id=f"{NAME}/{item.id}",
            text=item.instruction,
            images=item.images,
            kind="continuation",
            category=item.category,
            subcategory=item.type,
        )
        for item in items
    ]


def write(folder: Path, trajectories: Sequence[Trajectory], *, with_text: bool) -> None:
    """``{category}/{id}.jpg``: the last picture of each sequence."""
    from interloom import images

    for trajectory in trajectories:
        image = published.last_image(trajectory)
        if image is not None:
            path = folder / f"{trajectory.request.id.removeprefix(f'{NAME}/')}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images.to_jpeg(images.from_bytes(image)))


def image_of(item: Item, folder: Path) -> bytes | None:
    """The picture that a system made for an item."""
    path = folder / f"{item.id}.jpg"
    return path.read_bytes() if path.exists() else None


# --- judging --------------------------------------------------------------------------------------


class GradesForm(Form):
    """What the judge answers about the three metrics that every item has."""

    reasoning: str
    visual_consistency: judging.Five
    visual_quality: judging.Five
    instruction_following: judging.Five


class KnowledgeForm(Form):
    """What the judge answers about knowledge plausibility."""

    reasoning: str
    knowledge_plausibility: judging.Five


def calls(item: Item) -> int:
    """Judge calls that an item takes at most."""
    return len(item.metrics) - 2


def judged(items: Sequence[Item], folder: Path, judge: ChatJudge) -> dict[str, Grades | None]:
    """Ask a chat model about every picture; an item without one gets the lowest grades."""
    asked: list[Asked] = []
    for item in items:
        image = image_of(item, folder)
        if image is None:
            continue
        texts = {"instruction": item.instruction, "explanation": item.explanation}
        pictures = {"before": item.images, "after": [image]}
        question = judging.conversation(NAME, "grades", texts, pictures)
        asked.append(Asked(item.id, "grades", question, GradesForm))
        if item.category in KNOWLEDGE:
            right = {"reference": [item.reference] if item.reference else []}
            question = judging.conversation(NAME, "knowledge", texts, pictures | right)
            asked.append(Asked(item.id, "knowledge", question, KnowledgeForm))
    said = judging.ask_all(judge, asked)
    return {item.id: _grades(item, said) for item in items}


def _grades(item: Item, said: judging.Answers) -> Grades | None:
    knows = item.category in KNOWLEDGE
    if (item.id, "grades") not in said:
        return Grades(1, 1, 1, 1 if knows else None)
    three = judging.answer_of(said, item.id, "grades", GradesForm)
    fourth = judging.answer_of(said, item.id, "knowledge", KnowledgeForm) if knows else None
    if three is None or (knows and fourth is None):
        return None
    return Grades(
        three.visual_consistency,
        three.visual_quality,
        three.instruction_following,
        fourth and fourth.knowledge_plausibility,
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
        strata={item.id: item.type for item in items},
        weights={},
        parts={**scores.groups, **{f"metric/{name}": v for name, v in scores.metrics.items()}},
        unjudged=scores.unjudged,
    )
