"""CoMM, tasks 3 and 4: interleaved continuation, and interleaved answers to a question.

Three judge calls per sample: *coherence* (style, entity, trend, overall consistency, completeness,
image quality, 0–10 each); *descriptions*, from the text alone, of what each picture should show;
and how well the pictures fit them, the *illustration relevance* (IRS). Reported are plain means of
the seven figures. The official script turns "NA" into 0 and drops samples that it cannot read, both
silently; here NA is left out and counted (``Scores.not_applicable``), and a sample without an
answer is unjudged.

CoMM has no overall score. The one here is the mean over the two tasks of the items' means of their
figures, × 10.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from interloom.backends.remote_roles import Form
from interloom.benchmarks import judging, published
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.judging import Asked, ChatJudge
from interloom.errors import InterloomError
from interloom.records import Request, Trajectory, caption_of

NAME = "comm"
PROTOCOL = "comm/plain-means"
MARK = "<IMAGE>"
RECORD = "results.json"
TASKS = ("task3", "task4")
"""Continuation of a sequence; an answer to a question. Also the folders that samples lie in."""
COHERENCE = ("style", "entity", "trend", "consistency", "completeness", "quality")
FIGURES = (*COHERENCE, "relevance")
JUDGED_SIDE = 512
"""Pixels of the longer side at which the judge sees pictures at most."""


@dataclass(frozen=True)
class Item:
    """One sample: a folder with ``results.json`` and its pictures."""

    id: str
    task: str
    model_input: str
    images: tuple[bytes, ...] = ()
    """What the input shows, in the order of its marks."""
    references: tuple[bytes, ...] = ()
    """The pictures of the original sequence."""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise InterloomError(
                f"CoMM sample {self.id}: unknown task {self.task!r}; tasks: {', '.join(TASKS)}"
            )


@dataclass(frozen=True)
class Grades:
    """One sample's figures, 0–10; ``None`` is "not applicable" and no number."""

    style: float | None
    entity: float | None
    trend: float | None
    consistency: float | None
    completeness: float | None
    quality: float | None
    relevance: float | None

    def __post_init__(self) -> None:
        for name in FIGURES:
            value = vars(self)[name]
            if value is not None and not 0 <= value <= 10:
                raise ValueError(f"{name} = {value!r}: CoMM's figures are 0 to 10")


NOTHING = Grades(0, 0, 0, 0, 0, 0, 0)
"""Of an answer without text and pictures: the system failed, and not the judge."""


@dataclass(frozen=True)
class Scores:
    """Figures 0–10 as CoMM reports them, tasks and items 0–100 as ours."""

    figures: dict[str, float]
    tasks: dict[str, float]
    items: dict[str, float]
    unjudged: float
    not_applicable: dict[str, int]
    """By figure: samples that the judge found it not to apply to."""

    @property
    def overall(self) -> float:
        """Mean over the tasks, 0–100."""
        return sum(self.tasks.values()) / len(self.tasks)


def item_score(grades: Grades) -> float | None:
    """Mean of the figures that apply, × 10; ``None`` if none does.

    >>> item_score(Grades(10, 8, None, 6, 6, 5, 7))
    70.0
    """
    values = [value for name in FIGURES if (value := vars(grades)[name]) is not None]
    return round(10 * sum(values) / len(values), 9) if values else None


def score(items: Sequence[Item], grades: Mapping[str, Grades | None]) -> Scores:
    """Plain means over the judged samples; ``None`` is unjudged.

    Raises:
        InterloomError: a sample without an entry, or a task without a judged sample.
    """
    values: dict[str, list[float]] = {name: [] for name in FIGURES}
    by_task: dict[str, list[float]] = {item.task: [] for item in items}
    missing = dict.fromkeys(FIGURES, 0)
    scores: dict[str, float] = {}
    unjudged = 0
    for item in items:
        if item.id not in grades:
            raise InterloomError(f"CoMM sample {item.id} has not been graded")
        found = grades[item.id]
        if found is None:
            unjudged += 1
            continue
        for name in FIGURES:
            value = vars(found)[name]
            if value is None:
                missing[name] += 1
            else:
                values[name].append(value)
        total = item_score(found)
        if total is not None:
            scores[item.id] = total
            by_task[item.task].append(total)
    empty = [task for task, found in by_task.items() if not found]
    if empty or not scores:
        raise InterloomError(f"CoMM: none judged in {', '.join(empty) or 'an empty benchmark'}")
    return Scores(
        figures={name: sum(v) / len(v) for name, v in values.items() if v},
        tasks={task: sum(v) / len(v) for task, v in by_task.items()},
        items=scores,
        unjudged=unjudged / len(items),
        not_applicable={name: count for name, count in missing.items() if count},
    )


# --- published layout -----------------------------------------------------------------------------


def load(path: Path) -> list[Item]:
    """Samples of ``task3/`` and ``task4/``, a folder each.

    Raises:
        InterloomError: naming the folder or the record.
    """
    items = [
        _item(record, task)
        for task in TASKS
        for record in sorted((path / task).glob(f"*/{RECORD}"))
    ]
    if not items:
        raise InterloomError(f"{path}: no samples ({TASKS[0]}/NAME/{RECORD}) in it")
    return items


def _item(file: Path, task: str) -> Item:
    ((where, record),) = list(published.records(file)) or [(str(file), {})]
    text = published.field(record, "model_input", where, str)
    shown = published.several(record.get("input_image_list"))
    if text.count(MARK) != len(shown):
        raise InterloomError(
            f"{where}: {text.count(MARK)} marks {MARK} in model_input, {len(shown)} pictures"
        )
    wanted = published.several(record.get("output_gt_image_list"))
    return Item(
        id=f"{task}-{file.parent.name}",
        task=task,
        model_input=text,
        images=tuple(published.picture(name, file.parent, where) for name in shown),
        references=tuple(published.picture(name, file.parent, where) for name in wanted),
    )


def requests(items: Sequence[Item]) -> list[Request]:
    """The samples as requests; a continuation's texts become the captions of its pictures."""
    made = []
    for item in items:
        text, *after = (piece.strip() for piece in item.model_input.split(MARK))
        made.append(
            Request(
                id=f"{NAME}/{item.id}",
                text=text,
                images=item.images,
                captions=tuple(after),
                kind="continuation" if item.images else "create",
                category=item.task,
            )
        )
    return made


def write(folder: Path, trajectories: Sequence[Trajectory], *, with_text: bool) -> None:
    """``TASK/NAME/results.json`` with the pictures beside it, as the official script reads them."""
    for trajectory in trajectories:
        request = trajectory.request
        task, name = request.id.removeprefix(f"{NAME}/").split("-", 1)
        sample = folder / task / name
        sample.mkdir(parents=True, exist_ok=True)
        given = [f"input_{number}.png" for number in range(len(request.images))]
        for file, image in zip(given, request.images, strict=True):
            (sample / file).write_bytes(image)
        pieces, made = [], []
        for number, trace in enumerate(trajectory.steps):
            if with_text:
                pieces.append(caption_of(trace.step))
            if trace.accepted is not None and trace.accepted.image is not None:
                made.append(f"prediction_{number}.png")
                pieces.append(MARK)
                (sample / made[-1]).write_bytes(trace.accepted.image)
        captions = request.captions or ("",) * len(given)
        record = {
            "model_input": " ".join([request.text, *(f"{MARK} {text}" for text in captions)]),
            "model_output": " ".join(pieces),
            "input_image_list": given,
            "output_gt_image_list": [],
            "prediction_image_list": made,
        }
        text = json.dumps(record, indent=1, ensure_ascii=False)
        (sample / RECORD).write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Answer:
    """What a system gave: texts with marks, and the pictures that these stand for."""

    text: str
    images: tuple[bytes, ...]

    @property
    def texts(self) -> list[str]:
        """The text that stands before each picture (empty where there is none)."""
        return [piece.strip() for piece in self.text.split(MARK)[: len(self.images)]]


def read_answer(item: Item, folder: Path) -> Answer:
    """The answer in a sample's folder.

    Raises:
        InterloomError: there is none, or marks and pictures do not match.
    """
    sample = folder / item.task / item.id.removeprefix(f"{item.task}-")
    ((where, record),) = list(published.records(sample / RECORD))
    text = record.get("model_output") or ""
    names = published.several(record.get("prediction_image_list"))
    if text.count(MARK) != len(names):
        raise InterloomError(f"{where}: {text.count(MARK)} marks, {len(names)} pictures")
    return Answer(text, tuple(published.picture(name, sample, where) for name in names))


# --- judging --------------------------------------------------------------------------------------

Grade = judging.Ten | Literal["NA"]


class CoherenceForm(Form):
    """What the judge answers about a whole sample."""

    reasoning: str
    style: Grade
    entity: Grade
    trend: Grade
    consistency: Grade
    completeness: Grade
    quality: Grade


class DescriptionsForm(Form):
    """What each picture should show, from the text alone."""

    descriptions: list[str]


class RelevanceForm(Form):
    """How well each picture fits its description."""

    reasoning: str
    relevance: list[judging.Ten]


def calls(item: Item) -> int:
    """Judge calls that a sample takes at most."""
    return 3


def judged(items: Sequence[Item], folder: Path, judge: ChatJudge) -> dict[str, Grades | None]:
    """Three calls per sample; a sample with an empty answer gets zeros, and no call."""
    answers = {item.id: read_answer(item, folder) for item in items}
    drawn = [item for item in items if answers[item.id].images]
    first = [_coherence(item, answers[item.id]) for item in items if answers[item.id].text]
    first += [_descriptions(item, answers[item.id]) for item in drawn]
    said = judging.ask_all(judge, first)
    second = []
    for item in drawn:
        told = judging.answer_of(said, item.id, "descriptions", DescriptionsForm)
        if told is not None:
            second.append(_relevance(item, answers[item.id], told.descriptions))
    said |= judging.ask_all(judge, second)
    return {item.id: _grades(item, answers[item.id], said) for item in items}


def _small(pictures: Sequence[bytes]) -> list[bytes]:
    from interloom import images

    return [images.thumbnail(picture, JUDGED_SIDE) for picture in pictures]


def _coherence(item: Item, answer: Answer) -> Asked:
    question = judging.conversation(
        NAME,
        "coherence",
        {"input": item.model_input, "output": answer.text},
        {"input_pictures": _small(item.images), "output_pictures": _small(answer.images)},
    )
    return Asked(item.id, "coherence", question, CoherenceForm)


def _descriptions(item: Item, answer: Answer) -> Asked:
    texts = {"input": item.model_input, "output": answer.text, "count": str(len(answer.images))}
    question = judging.conversation(NAME, "descriptions", texts, {})
    return Asked(item.id, "descriptions", question, DescriptionsForm)


def _relevance(item: Item, answer: Answer, descriptions: Sequence[str]) -> Asked:
    listed = "\n".join(f"{number}. {text}" for number, text in enumerate(descriptions, 1))
    question = judging.conversation(
        NAME, "relevance", {"descriptions": listed}, {"pictures": _small(answer.images)}
    )
    return Asked(item.id, "relevance", question, RelevanceForm)


def _grades(item: Item, answer: Answer, said: judging.Answers) -> Grades | None:
    if not answer.text:
        return NOTHING
    whole = judging.answer_of(said, item.id, "coherence", CoherenceForm)
    relevance: float | None = 0.0  # no picture at all illustrates nothing
    if answer.images:
        found = said.get((item.id, "relevance"))
        if not isinstance(found, RelevanceForm) or len(found.relevance) != len(answer.images):
            return None
        relevance = sum(found.relevance) / len(found.relevance)
    if whole is None:
        return None
    figures = {name: vars(whole)[name] for name in COHERENCE}
    return Grades(**{k: None if v == "NA" else float(v) for k, v in figures.items()},
                  relevance=relevance)  # fmt: skip


def graded(
    items: Sequence[Item], grades: Mapping[str, Grades | None], *, protocol: str, judge: str
) -> Graded:
    """The benchmark's figures as a cell keeps them, all 0–100."""
    scores = score(items, grades)
    parts: dict[str, Any] = {name: 10 * value for name, value in scores.figures.items()}
    return Graded(
        protocol=protocol,
        judge=judge,
        items=scores.items,
        strata={item.id: item.task for item in items},
        weights={},
        parts={**scores.tasks, **parts},
        unjudged=scores.unjudged,
    )
