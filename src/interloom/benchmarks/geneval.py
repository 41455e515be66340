"""GenEval: do pictures show the right things, in the right number, colour and place? 6 tags.

A detector finds the things; whether a picture is right is then a pure function of what was found
(``is_correct``). A tag's score is the mean over its pictures, the overall score the unweighted mean
of the six tags. The rules are those of the benchmark's own script: per class the surest detections
first, as many as asked for; a thing's colour is one of ten; A is left of B if the line between
their centres, shortened by a tenth of both sizes along each axis, points far enough that way.

The official detector does not install with current libraries: another one is used, and the
protocol's name says which (``benchmarks/detector.py``). A chat model can judge instead.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from interloom.backends.remote_roles import Form
from interloom.benchmarks import judging, published
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.judging import Asked, ChatJudge
from interloom.errors import InterloomError
from interloom.records import Failure, Request, Trajectory

NAME = "geneval"
PROTOCOL = "geneval/six-tag-mean"
TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLOURS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
)  # fmt: skip
RELATIONS = ("left of", "right of", "above", "below")
IMAGES = 4
"""Pictures per prompt."""
THRESHOLD, COUNTING_THRESHOLD = 0.3, 0.9
"""Least score of a detection; counting wants surer ones."""
MARGIN = 0.1
"""Share of both sizes by which the distance of two things is shortened."""
DIRECTION = 0.5
"""Least part of the direction's unit vector along an axis for a relation to hold."""


@dataclass(frozen=True)
class Wanted:
    """Things of one class that a picture has to show."""

    name: str
    count: int
    colour: str | None = None
    position: tuple[str, int] | None = None
    """A relation to the things of an earlier entry, by its place in the list."""


@dataclass(frozen=True)
class Item:
    """One prompt; ``number`` is its line in the published file, from 0."""

    number: int
    tag: str
    prompt: str
    include: tuple[Wanted, ...]
    exclude: tuple[Wanted, ...] = ()

    def __post_init__(self) -> None:
        if self.tag not in TAGS:
            raise InterloomError(
                f"GenEval prompt {self.number}: unknown tag {self.tag!r}; tags: {', '.join(TAGS)}"
            )

    @property
    def key(self) -> str:
        """The item's folder."""
        return f"{self.number:05d}"

    @property
    def threshold(self) -> float:
        """Least score of a detection that counts."""
        return COUNTING_THRESHOLD if self.tag == "counting" else THRESHOLD


class Box(NamedTuple):
    """Corners in pixels; y goes down."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def size(self) -> tuple[float, float]:
        return abs(self.right - self.left), abs(self.bottom - self.top)


@dataclass(frozen=True)
class Detection:
    """A thing in a picture. ``colour`` is filled in where the item asks for one."""

    name: str
    score: float
    box: Box
    colour: str | None = None


class Detector(Protocol):
    """Finds the things that items ask for; ``benchmarks.detector.ObjectDetector`` is one."""

    name: str

    def detect(
        self, pictures: Sequence[bytes], wanted: Sequence[Item]
    ) -> list[list[Detection] | Failure]: ...


def relations(one: Box, other: Box) -> set[str]:
    """How ``one`` lies to ``other``; empty if they are too close to say.

    >>> sorted(relations(Box(0, 0, 10, 10), Box(100, 0, 110, 10)))
    ['left of']
    >>> relations(Box(0, 0, 10, 10), Box(1, 0, 11, 10))
    set()
    """
    offset = [a - b for a, b in zip(one.centre, other.centre, strict=True)]
    length = math.hypot(*offset)
    if not length:
        return set()
    slack = [MARGIN * (a + b) for a, b in zip(one.size, other.size, strict=True)]
    x, y = (
        math.copysign(max(abs(o) - s, 0.0), o) / length for o, s in zip(offset, slack, strict=True)
    )
    holds = {
        "left of": x < -DIRECTION, "right of": x > DIRECTION,
        "above": y < -DIRECTION, "below": y > DIRECTION,
    }  # fmt: skip
    return {name for name, is_so in holds.items() if is_so}


def is_correct(item: Item, detections: Sequence[Detection]) -> bool:
    """Whether what was found in a picture is what the item asks for."""
    found: dict[str, list[Detection]] = {}
    for one in sorted(detections, key=lambda d: -d.score):
        if one.score >= item.threshold:
            found.setdefault(one.name, []).append(one)
    groups: list[list[Detection] | None] = []
    for wanted in item.include:
        shown = found.get(wanted.name, [])[: wanted.count]
        groups.append(shown if _is_met(wanted, shown, groups) else None)
    crowded = any(len(found.get(one.name, [])) >= one.count for one in item.exclude)
    return None not in groups and not crowded


def _is_met(
    wanted: Wanted, shown: Sequence[Detection], groups: Sequence[list[Detection] | None]
) -> bool:
    if len(shown) < wanted.count:
        return False
    if wanted.colour and sum(d.colour == wanted.colour for d in shown) < wanted.count:
        return False
    if wanted.position is None:
        return True
    relation, place = wanted.position
    others = groups[place]
    return others is not None and all(
        relation in relations(one.box, other.box) for one in shown for other in others
    )


@dataclass(frozen=True)
class Scores:
    """All 0–100. ``items`` holds the share of right pictures of every judged prompt."""

    overall: float
    tags: dict[str, float]
    items: dict[str, float]
    unjudged: float


def score(items: Sequence[Item], grades: Mapping[str, Sequence[bool | None]]) -> Scores:
    """Means over each tag's pictures, then over the six tags; ``None`` is an unjudged picture.

    Raises:
        InterloomError: an item without an entry or without pictures, or a tag without a judged one.
    """
    by_tag: dict[str, list[bool]] = {tag: [] for tag in TAGS}
    scores: dict[str, float] = {}
    asked = missing = 0
    for item in items:
        if not grades.get(item.key):
            raise InterloomError(f"GenEval prompt {item.key} has not been graded")
        judged_pictures = [grade for grade in grades[item.key] if grade is not None]
        asked += len(grades[item.key])
        missing += len(grades[item.key]) - len(judged_pictures)
        if judged_pictures:
            scores[item.key] = 100 * sum(judged_pictures) / len(judged_pictures)
            by_tag[item.tag] += judged_pictures
    empty = [tag for tag, values in by_tag.items() if not values]
    if empty:
        raise InterloomError(f"GenEval needs all six tags; none judged in {empty}")
    tags = {tag: 100 * sum(values) / len(values) for tag, values in by_tag.items()}
    return Scores(sum(tags.values()) / len(tags), tags, scores, missing / asked)


# --- published layout -----------------------------------------------------------------------------


def load(path: Path) -> list[Item]:
    """Items of ``evaluation_metadata.jsonl``; ``load(shipped())`` are the benchmark's own 553.

    Raises:
        InterloomError: naming the file and the record.
    """
    return [
        read_item(number, record, where)
        for number, (where, record) in enumerate(published.records(path))
    ]


def shipped() -> Path:
    """The benchmark's own prompts (MIT licence, beside them), which come with this package."""
    return Path(str(resources.files("interloom.benchmarks") / "geneval_prompts/prompts.jsonl"))


def read_item(number: int, record: Mapping[str, Any], where: str) -> Item:
    """An item of its record."""
    include = published.field(record, "include", where, list)
    return Item(
        number=number,
        tag=published.field(record, "tag", where, str),
        prompt=published.field(record, "prompt", where, str),
        include=tuple(_wanted(one, where, place) for place, one in enumerate(include)),
        exclude=tuple(_wanted(one, where, 0) for one in record.get("exclude") or ()),
    )


def _wanted(record: Mapping[str, Any], where: str, place: int) -> Wanted:
    colour, position = record.get("color"), record.get("position")
    if colour is not None and colour not in COLOURS:
        raise InterloomError(f"{where}: unknown colour {colour!r}; colours: {', '.join(COLOURS)}")
    if position is not None and (position[0] not in RELATIONS or not 0 <= position[1] < place):
        raise InterloomError(f"{where}: position {position!r} is no relation to an earlier entry")
    return Wanted(
        published.field(record, "class", where, str),
        published.field(record, "count", where, int),
        colour,
        None if position is None else (position[0], position[1]),
    )


def record_of(item: Item) -> dict[str, Any]:
    """The published record of an item; ``read_item`` reads it back."""

    def entry(wanted: Wanted) -> dict[str, Any]:
        fields = {"class": wanted.name, "count": wanted.count, "color": wanted.colour}
        fields["position"] = None if wanted.position is None else list(wanted.position)
        return {name: value for name, value in fields.items() if value is not None}

    record: dict[str, Any] = {"tag": item.tag, "include": [entry(w) for w in item.include]}
    if item.exclude:
        record["exclude"] = [entry(wanted) for wanted in item.exclude]
    return record | {"prompt": item.prompt}


def requests(items: Sequence[Item], images: int = IMAGES) -> list[Request]:
    """``images`` requests for every prompt, which differ by their id and so by their seed."""
    return [
        Request(id=f"{NAME}/{item.key}/{sample:04d}", text=item.prompt, category=item.tag)
        for item in items
        for sample in range(images)
    ]


def write(
    folder: Path,
    trajectories: Sequence[Trajectory],
    *,
    with_text: bool,
    items: Sequence[Item] = (),
) -> None:
    """``NNNNN/metadata.jsonl`` and ``NNNNN/samples/0000.png``, …: the last picture of each.

    Args:
        items: whose metadata is written beside the pictures, as the official script reads it there.
    """
    for item in items:
        (folder / item.key / "samples").mkdir(parents=True, exist_ok=True)
        line = json.dumps(record_of(item)) + "\n"
        (folder / item.key / "metadata.jsonl").write_text(line, encoding="utf-8")
    for trajectory in trajectories:
        image = published.last_image(trajectory)
        if image is not None:
            key, sample = trajectory.request.id.removeprefix(f"{NAME}/").split("/")
            path = folder / key / "samples" / f"{sample}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)


def images_of(item: Item, folder: Path, images: int = IMAGES) -> list[bytes | None]:
    """The pictures that a system made for an item; ``None`` for one that it did not."""
    paths = [folder / item.key / "samples" / f"{n:04d}.png" for n in range(images)]
    return [path.read_bytes() if path.exists() else None for path in paths]


# --- judging --------------------------------------------------------------------------------------


class CorrectForm(Form):
    """What a chat model answers about one picture."""

    reasoning: str
    correct: bool


def calls(item: Item, images: int = IMAGES) -> int:
    """Judge calls that an item takes at most."""
    return images


def judged(
    items: Sequence[Item], folder: Path, judge: ChatJudge, images: int = IMAGES
) -> dict[str, list[bool | None]]:
    """Ask a chat model about every picture; a missing one is wrong, and takes no call."""
    asked: list[Asked] = []
    for item in items:
        for number, image in enumerate(images_of(item, folder, images)):
            if image is not None:
                texts = {"prompt": item.prompt, "wanted": json.dumps(record_of(item)["include"])}
                question = judging.conversation(NAME, "correct", texts, {"picture": [image]})
                asked.append(Asked(item.key, str(number), question, CorrectForm))
    said = judging.ask_all(judge, asked)

    def grade(item: Item, number: int) -> bool | None:
        if (item.key, str(number)) not in said:
            return False
        answer = judging.answer_of(said, item.key, str(number), CorrectForm)
        return None if answer is None else answer.correct

    return {item.key: [grade(item, number) for number in range(images)] for item in items}


def detected(
    items: Sequence[Item], folder: Path, detector: Detector, images: int = IMAGES
) -> dict[str, list[bool | None]]:
    """Grade every picture by what a detector finds in it."""
    places = [
        (item, number, image)
        for item in items
        for number, image in enumerate(images_of(item, folder, images))
        if image is not None
    ]
    grades: dict[str, list[bool | None]] = {item.key: [False] * images for item in items}
    found = detector.detect([image for _, _, image in places], [item for item, _, _ in places])
    for (item, number, _), detections in zip(places, found, strict=True):
        failed = isinstance(detections, Failure)
        grades[item.key][number] = None if failed else is_correct(item, detections)
    return grades


def graded(
    items: Sequence[Item],
    grades: Mapping[str, Sequence[bool | None]],
    *,
    protocol: str,
    judge: str,
) -> Graded:
    """The benchmark's figures as a cell keeps them."""
    scores = score(items, grades)
    return Graded(
        protocol=protocol,
        judge=judge,
        items=scores.items,
        strata={item.key: item.tag for item in items},
        weights={},
        parts=dict(scores.tags),
        unjudged=scores.unjudged,
    )
