"""UEval: text and images judged by rubrics, 8 tasks (facts: its repository's ``eval`` scripts).

One judge call per rubric; "not sure" counts as not met. Per item, text rate and image rate are the
shares of rubrics met. The leaderboard's score of an item is the mean of the two rates, a task's
the mean over its items, the overall score the unweighted mean of the eight tasks, all × 100. A
rubric whose judge call failed is *unjudged*: left out and counted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from interloom.benchmarks import judging, published
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.judging import Asked, ChatJudge
from interloom.errors import InterloomError
from interloom.records import Request, Trajectory, caption_of

NAME = "ueval"
PROTOCOL = "ueval/rubric-mean"
OPEN_TASKS = ("art", "life", "tech", "exercise")
CLOSED_TASKS = ("space", "textbook", "diagram", "paper")
TASKS = OPEN_TASKS + CLOSED_TASKS

Verdict = Literal["met", "not met", "not sure", "unjudged"]


@dataclass(frozen=True)
class Rubric:
    """One criterion that an answer meets or does not meet."""

    criterion: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One question of the benchmark, in the published layout."""

    id: str
    prompt: str
    task: str
    text_rubrics: tuple[Rubric, ...]
    image_rubrics: tuple[Rubric, ...]
    question_type: str = ""
    text_ref: str = ""
    image_ref: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InterloomError(
                f"UEval item {self.id}: unknown task {self.task!r}; tasks: {', '.join(TASKS)}"
            )
        if not self.text_rubrics and not self.image_rubrics:
            raise InterloomError(f"UEval item {self.id} has no rubrics")

    @property
    def shows_text_to_judge(self) -> bool:
        """Images of closed tasks are judged without the text answer."""
        return self.task in OPEN_TASKS


@dataclass(frozen=True)
class Grades:
    """The verdicts on one item's rubrics, in the item's order."""

    id: str
    text: tuple[Verdict, ...]
    images: tuple[Verdict, ...]


@dataclass(frozen=True)
class Scores:
    """All 0–100. ``items`` holds the score of every item that could be judged at all."""

    overall: float
    text: float
    images: float
    tasks: dict[str, float]
    items: dict[str, float]
    unjudged: float
    """Share of rubrics without a verdict, 0–1."""
    counts: dict[str, int] = field(default_factory=dict)


def rate(verdicts: Sequence[Verdict]) -> float | None:
    """Share of rubrics met, ``None`` without any verdict.

    >>> rate(["met", "not met", "not sure", "unjudged"])
    0.3333333333333333
    >>> rate(["unjudged"]) is None
    True
    """
    judged = [verdict for verdict in verdicts if verdict != "unjudged"]
    return judged.count("met") / len(judged) if judged else None


def item_score(grades: Grades) -> float | None:
    """Mean of text rate and image rate; one of them alone where the item has no other rubrics."""
    rates = [r for r in (rate(grades.text), rate(grades.images)) if r is not None]
    return sum(rates) / len(rates) if rates else None


def score(items: Sequence[Item], grades: Mapping[str, Grades]) -> Scores:
    """The leaderboard's scores.

    Raises:
        InterloomError: an item without grades, grades that do not fit the item, or a task without
        any
            judged item (the overall score is the mean of all eight).
    """
    by_task: dict[str, list[float]] = {task: [] for task in TASKS}
    text: list[float] = []
    pictures: list[float] = []
    scores: dict[str, float] = {}
    verdicts: list[Verdict] = []
    for item in items:
        graded = grades.get(item.id)
        if graded is None:
            raise InterloomError(f"UEval item {item.id} has not been graded")
        if (len(graded.text), len(graded.images)) != (
            len(item.text_rubrics),
            len(item.image_rubrics),
        ):
            raise InterloomError(f"UEval item {item.id}: as many verdicts as rubrics are needed")
        verdicts.extend(graded.text)
        verdicts.extend(graded.images)
        text += [r for r in (rate(graded.text),) if r is not None]
        pictures += [r for r in (rate(graded.images),) if r is not None]
        value = item_score(graded)
        if value is not None:
            by_task[item.task].append(value)
            scores[item.id] = 100 * value
    empty = [task for task, values in by_task.items() if not values]
    if empty:
        raise InterloomError(f"UEval's overall score needs all eight tasks; none judged in {empty}")
    tasks = {task: 100 * _mean(values) for task, values in by_task.items()}
    return Scores(
        overall=_mean(list(tasks.values())),
        text=100 * _mean(text),
        images=100 * _mean(pictures),
        tasks=tasks,
        items=scores,
        unjudged=verdicts.count("unjudged") / len(verdicts),
        counts={"items": len(items), "rubrics": len(verdicts)},
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def load(path: Path) -> list[Item]:
    """Items of a published file or folder; ``task`` and ``task_type`` both work.

    Raises:
        InterloomError: naming the file and the record.
    """
    return [_item(record, where) for where, record in published.records(path)]


def _item(record: Mapping[str, Any], where: str) -> Item:
    name = str(published.field(record, "id", where, (str, int)))
    prompt = published.field(record, "prompt", where, str)
    task = record.get("task_type", record.get("task"))
    if task is None:
        raise InterloomError(f"{where}: neither 'task_type' nor 'task' is there")
    return Item(
        id=name,
        prompt=prompt,
        task=task,
        question_type=record.get("question_type") or "",
        text_ref=record.get("text_ref") or "",
        image_ref=tuple(map(str, published.several(record.get("image_ref")))),
        text_rubrics=tuple(map(_rubric, record.get("text_rubrics") or ())),
        image_rubrics=tuple(map(_rubric, record.get("image_rubrics") or ())),
    )


def _rubric(value: str | Mapping[str, Any]) -> Rubric:
    if isinstance(value, str):
        return Rubric(value)
    return Rubric(value["criterion"], tuple(value.get("tags") or ()))


@dataclass(frozen=True)
class Answer:
    """What a system gave to one item: text, and image files relative to the answers file."""

    id: str
    text: str
    images: tuple[str, ...]


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Write the published output layout: ``[{id, text_answer, image_answer}]``."""
    records = [
        {"id": answer.id, "text_answer": answer.text, "image_answer": list(answer.images)}
        for answer in answers
    ]
    path.write_text(json.dumps(records, indent=1, ensure_ascii=False), encoding="utf-8")


def read_answers(path: Path) -> dict[str, Answer]:
    """Answers by item id."""
    records = json.loads(path.read_text(encoding="utf-8"))
    return {
        str(record["id"]): Answer(
            str(record["id"]), record["text_answer"], tuple(record["image_answer"])
        )
        for record in records
    }


def requests(items: Sequence[Item]) -> list[Request]:
    """The items as requests."""
    return [Request(id=f"{NAME}/{item.id}", text=item.prompt, category=item.task) for item in items]


def write(folder: Path, trajectories: Sequence[Trajectory], *, with_text: bool) -> None:
    """``answers.json`` in the published layout, with the pictures in ``images/``.

    The text is what stands beside the pictures: ``a_i``, else ``u_i``. ``with_text`` is false for
    a bare generator, which writes none.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    answers = []
    for trajectory in trajectories:
        name = trajectory.request.id.removeprefix(f"{NAME}/")
        names, texts = [], []
        for number, trace in enumerate(trajectory.steps):
            texts.append(caption_of(trace.step))
            if trace.accepted is not None and trace.accepted.image is not None:
                names.append(f"images/{name}-{number}.png")
                (folder / names[-1]).write_bytes(trace.accepted.image)
        answers.append(Answer(name, "\n".join(texts) if with_text else "", tuple(names)))
    write_answers(folder / "answers.json", answers)


# --- judging --------------------------------------------------------------------------------------

VERDICTS: dict[str, Verdict] = {"true": "met", "false": "not met", "not sure": "not sure"}


def calls(item: Item) -> int:
    """Judge calls that an item takes at most; what was not answered takes none."""
    return len(item.text_rubrics) + len(item.image_rubrics)


def judged(items: Sequence[Item], folder: Path, judge: ChatJudge) -> dict[str, Grades]:
    """Ask a chat model about every rubric of the answers in ``folder``."""
    answers = read_answers(folder / "answers.json")
    asked: list[Asked] = []
    for item in items:
        answer = answers[item.id]
        pictures = [(folder / name).read_bytes() for name in answer.images]
        texts = {"question": item.prompt, "reference": item.text_ref, "text": answer.text}
        if answer.text:
            asked += [
                _asked(item, f"text/{i}", "text", texts | {"criterion": rubric.criterion}, {})
                for i, rubric in enumerate(item.text_rubrics)
            ]
        if pictures:
            section = "image_and_text" if item.shows_text_to_judge else "image"
            asked += [
                _asked(
                    item,
                    f"images/{i}",
                    section,
                    texts | {"criterion": rubric.criterion},
                    {"pictures": pictures},
                )
                for i, rubric in enumerate(item.image_rubrics)
            ]
    said = judging.ask_all(judge, asked)

    def verdict(item: Item, part: str) -> Verdict:
        if (item.id, part) not in said:
            return "not met"  # the system gave nothing that could meet it
        found = judging.answer_of(said, item.id, part, judging.Verdict)
        return "unjudged" if found is None else VERDICTS[found.criteria_met]

    return {
        item.id: Grades(
            item.id,
            tuple(verdict(item, f"text/{i}") for i in range(len(item.text_rubrics))),
            tuple(verdict(item, f"images/{i}") for i in range(len(item.image_rubrics))),
        )
        for item in items
    }


def _asked(
    item: Item,
    part: str,
    section: str,
    texts: Mapping[str, str],
    pictures: Mapping[str, Sequence[bytes]],
) -> Asked:
    return Asked(
        item.id, part, judging.conversation(NAME, section, texts, pictures), judging.Verdict
    )


def graded(
    items: Sequence[Item], grades: Mapping[str, Grades], *, protocol: str, judge: str
) -> Graded:
    """The benchmark's figures as a cell keeps them."""
    scores = score(items, grades)
    return Graded(
        protocol=protocol,
        judge=judge,
        items=scores.items,
        strata={item.id: item.task for item in items},
        weights={},
        parts={"text": scores.text, "images": scores.images, **scores.tasks},
        unjudged=scores.unjudged,
    )
