"""OmniContext: pictures after several reference pictures, 8 task types.

Prompt following and subject consistency, 0–10 each. An item is ``sqrt(PF · SC)``, a task type the
mean of its items, the average the unweighted mean over the eight types. (The official script gives
a random score to an answer that it cannot read: a known fault, not repeated here.)
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

NAME = "omnicontext"
PROTOCOL = "omnicontext/geometric-mean"
TASKS = (
    "single_character", "single_object", "multi_character", "multi_object",
    "multi_character_object", "scene_character", "scene_object", "scene_character_object",
)  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One request with its reference pictures, in the published layout."""

    key: str
    task: str
    instruction: str
    images: tuple[bytes, ...] = ()
    language: str = "en"

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InterloomError(
                f"OmniContext item {self.key}: unknown task type {self.task!r}; "
                f"types: {', '.join(TASKS)}"
            )


@dataclass(frozen=True)
class Grades:
    """One picture's grades, 0–10."""

    prompt_following: float
    subject_consistency: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 10:
                raise ValueError(f"{name} = {value!r}: OmniContext's grades are 0 to 10")


@dataclass(frozen=True)
class Scores:
    """All 0–100, ten times the benchmark's own scale."""

    overall: float
    prompt_following: float
    subject_consistency: float
    tasks: dict[str, float]
    items: dict[str, float]
    unjudged: float


def item_score(grades: Grades) -> float:
    """``sqrt(PF · SC)``, 0–10.

    >>> item_score(Grades(9, 4)), item_score(Grades(10, 0))
    (6.0, 0.0)
    """
    return (grades.prompt_following * grades.subject_consistency) ** 0.5


def score(items: Sequence[Item], grades: Mapping[str, Grades | None]) -> Scores:
    """Means over items, then over the eight task types; ``None`` is unjudged.

    Raises:
        InterloomError: an item without an entry, or a task type without a judged item.
    """
    by_task: dict[str, list[float]] = {task: [] for task in TASKS}
    found: list[Grades] = []
    scores: dict[str, float] = {}
    for item in items:
        if item.key not in grades:
            raise InterloomError(f"OmniContext item {item.key} has not been graded")
        graded_item = grades[item.key]
        if graded_item is not None:
            scores[item.key] = 10 * item_score(graded_item)
            by_task[item.task].append(scores[item.key])
            found.append(graded_item)
    empty = [task for task, values in by_task.items() if not values]
    if empty:
        raise InterloomError(f"OmniContext needs all eight task types; none judged in {empty}")
    tasks = {task: sum(values) / len(values) for task, values in by_task.items()}
    return Scores(
        overall=sum(tasks.values()) / len(tasks),
        prompt_following=10 * sum(g.prompt_following for g in found) / len(found),
        subject_consistency=10 * sum(g.subject_consistency for g in found) / len(found),
        tasks=tasks,
        items=scores,
        unjudged=1 - len(scores) / len(items),
    )


# --- published layout -----------------------------------------------------------------------------


def load(path: Path) -> list[Item]:
    """Items of the published records, with their pictures.

    Raises:
        InterloomError: naming the file and the record.
    """
    folder = published.folder_of(path)
    return [_item(record, folder, where) for where, record in published.records(path)]


def _item(record: Mapping[str, Any], folder: Path, where: str) -> Item:
    shown = published.several(record.get("input_images"))
    if not shown:
        raise InterloomError(f"{where}: field 'input_images' is missing")
    return Item(
        key=str(published.field(record, "key", where, (str, int))),
        task=published.field(record, "task_type", where, str),
        instruction=published.field(record, "instruction", where, str),
        images=tuple(published.picture(name, folder, where) for name in shown),
        language=record.get("instruction_language") or "en",
    )


def requests(items: Sequence[Item]) -> list[Request]:
    """The items as requests that bring their reference pictures."""
    return [
        Request(
            id=f"{NAME}/{item.key}",
            text=item.instruction,
            images=item.images,
            kind="continuation",
            category=item.task,
            subcategory=item.language,
        )
        for item in items
    ]


def write(folder: Path, trajectories: Sequence[Trajectory], *, with_text: bool) -> None:
    """``fullset/{task_type}/{key}.png``: the last picture of each sequence."""
    for trajectory in trajectories:
        image = published.last_image(trajectory)
        if image is not None:
            key = trajectory.request.id.removeprefix(f"{NAME}/")
            path = folder / "fullset" / trajectory.request.category / f"{key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)


def image_of(item: Item, folder: Path) -> bytes | None:
    """The picture that a system made for an item."""
    path = folder / "fullset" / item.task / f"{item.key}.png"
    return path.read_bytes() if path.exists() else None


# --- judging --------------------------------------------------------------------------------------


class GradesForm(Form):
    """What the judge answers about one of the two grades."""

    reasoning: str
    grade: judging.Ten


def calls(item: Item) -> int:
    """Judge calls that an item takes at most."""
    return 2


def judged(items: Sequence[Item], folder: Path, judge: ChatJudge) -> dict[str, Grades | None]:
    """Ask a chat model about every picture; an item without one gets zeros, and no call."""
    asked: list[Asked] = []
    for item in items:
        image = image_of(item, folder)
        if image is None:
            continue
        pictures = {"references": item.images, "picture": [image]}
        for part in ("prompt_following", "subject_consistency"):
            question = judging.conversation(NAME, part, {"instruction": item.instruction}, pictures)
            asked.append(Asked(item.key, part, question, GradesForm))
    said = judging.ask_all(judge, asked)
    return {item.key: _grades(item, said) for item in items}


def _grades(item: Item, said: judging.Answers) -> Grades | None:
    if (item.key, "prompt_following") not in said:
        return Grades(0, 0)
    following = judging.answer_of(said, item.key, "prompt_following", GradesForm)
    consistency = judging.answer_of(said, item.key, "subject_consistency", GradesForm)
    if following is None or consistency is None:
        return None
    return Grades(following.grade, consistency.grade)


def graded(
    items: Sequence[Item], grades: Mapping[str, Grades | None], *, protocol: str, judge: str
) -> Graded:
    """The benchmark's figures as a cell keeps them."""
    scores = score(items, grades)
    parts = {
        "prompt following": scores.prompt_following,
        "subject consistency": scores.subject_consistency,
        **scores.tasks,
    }
    return Graded(
        protocol=protocol,
        judge=judge,
        items=scores.items,
        strata={item.key: item.task for item in items},
        weights={},
        parts=parts,
        unjudged=scores.unjudged,
    )
