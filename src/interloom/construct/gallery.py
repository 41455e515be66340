"""Trajectories to look at: request, plan, every attempt with its picture, judgment and scores.

One self-contained page, with a filter by category and outcome. Large pictures are scaled down.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from interloom import images
from interloom.construct import store
from interloom.errors import InterloomError
from interloom.records import Attempt, Trajectory, caption_of
from interloom.seeding import derive_seed

Outcome = Literal["passed at once", "repaired", "never passed", "unjudged", "text alone", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
SIDE = 384
"""Pixels of the longer side at which pictures are shown at most."""
FRAMES = {"pass": "#28a248", "fail": "#d7262d", "": "grey"}
"""Colours by verdict."""
SUCCESS = "attempts.list.element.list.element.success"
"""The judgments of a shard, without its pictures."""


class Mark(NamedTuple):
    """What the judge said of an attempt, and what became of it as critic data."""

    semantic: float | None
    quality: float | None
    fate: str


Marks = Mapping[str, Mark]
"""By ``REQUEST/STEP/ATTEMPT``, as critic rows are called."""


def outcome_of(failed: bool, judgments: Sequence[Sequence[bool | None]]) -> Outcome:
    """How a trajectory ended, by the judgments of every step's attempts.

    >>> [outcome_of(False, steps) for steps in ([[True], []], [[False, True], [True]], [[]])]
    ['passed at once', 'repaired', 'text alone']
    >>> [outcome_of(False, steps) for steps in ([[False, False], [True]], [[None], [True]])]
    ['never passed', 'unjudged']
    """
    drawn = [step for step in judgments if step]
    if failed:
        return "failed"
    if not drawn:
        return "text alone"
    open_steps = [step for step in drawn if not any(step)]
    if any(step[-1] is None for step in open_steps):
        return "unjudged"
    if open_steps:
        return "never passed"
    return "passed at once" if all(len(step) == 1 for step in drawn) else "repaired"


def outcome(trajectory: Trajectory) -> Outcome:
    """How a trajectory ended."""
    judgments = [
        [attempt.critique and attempt.critique.success for attempt in trace.attempts]
        for trace in trajectory.steps
    ]
    return outcome_of(trajectory.failure is not None, judgments)


def choose(
    folder: Path, number: int, seed: int, *, category: str = "", outcome: str = ""
) -> list[str]:
    """Ids of so many requests of a folder of shards, spread over categories and outcomes.

    Raises:
        InterloomError: there are none of that category or outcome; names those there are.
    """
    cells: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in store.read_rows(folder, ("id", "category", "failure_role", SUCCESS)):
        judgments = [[one["success"] for one in step] for step in row["attempts"]]
        ending = outcome_of(row["failure_role"] is not None, judgments)
        cells[row["category"], ending].append(row["id"])
    wanted = {
        cell: ids
        for cell, ids in sorted(cells.items())
        if category in ("", cell[0]) and outcome in ("", cell[1])
    }
    if not wanted:
        categories, outcomes = (sorted(set(names)) for names in zip(*cells, strict=True))
        raise InterloomError(
            f"{folder}: no trajectory of category {category or 'any'!r} and outcome "
            f"{outcome or 'any'!r}; categories: {', '.join(categories)}; "
            f"outcomes: {', '.join(outcomes)}"
        )
    rng = random.Random(derive_seed(seed, "gallery"))
    turns = zip_longest(*(rng.sample(ids, len(ids)) for ids in wanted.values()))
    return [name for turn in turns for name in turn if name is not None][:number]


def marks_of(path: Path, ids: Sequence[str]) -> dict[str, Mark]:
    """What ``scores.parquet`` of the critic data says of these requests' attempts."""
    wanted = set(ids)
    return {
        row["id"]: Mark(row["semantic"], row["quality"], row["fate"])
        for row in store.read_rows(path)
        if row["id"].rsplit("/", 2)[0] in wanted
    }


def sequence(trajectory: Trajectory, title: str, marks: Marks | None = None) -> str:
    """One trajectory as an HTML article; pictures are embedded."""
    return (
        _pages()
        .get_template("sequence.html")
        .render(
            title=title,
            outcome=outcome(trajectory),
            marks=marks or {},
            **{name: getattr(trajectory, name) for name in ("request", "plan", "steps", "failure")},
        )
    )


def page(trajectories: Sequence[Trajectory], title: str, marks: Marks | None = None) -> str:
    """The page of all of them."""
    categories = {one.request.category for one in trajectories}
    articles = [sequence(one, one.request.id, marks) for one in trajectories]
    endings = Counter(outcome(one) for one in trajectories)
    return (
        _pages()
        .get_template("gallery.html")
        .render(
            title=title,
            categories=sorted(categories),
            outcomes=[name for name in OUTCOMES if name in endings],
            shares=[(name, endings[name]) for name in OUTCOMES if name in endings],
            number=len(articles),
            articles=Markup("\n".join(articles)),
        )
    )


def write(
    folder: Path, out: Path, ids: Sequence[str], title: str, scores: Path | None = None
) -> Path:
    """Write the page of these requests of a folder of shards; returns its path."""
    marks = marks_of(scores, ids) if scores is not None else None
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(list(store.read_chosen(folder, ids)), title, marks), encoding="utf-8")
    return out


def style() -> str:
    """What ``sequence`` needs of a page's style sheet."""
    return _pages().get_template("sequence.css").render()


def strip(trajectory: Trajectory, side: int = 192) -> bytes:
    """A sequence as one PNG: the last given picture, then what each step ended with.

    Green frames passed the critic, red ones did not; ``side`` is that of each picture, in pixels.
    """
    from PIL import Image, ImageOps

    shown = [(picture, "grey") for picture in trajectory.request.images[-1:]]
    for trace in trajectory.steps:
        drawn = [attempt for attempt in trace.attempts if attempt.image is not None]
        last = trace.accepted or (drawn[-1] if drawn else None)
        if last is not None and last.image is not None:
            shown.append((last.image, FRAMES[_verdict(last)[0]]))
    sheet = Image.new("RGB", (max(1, len(shown)) * (side + 8), side + 8), "white")
    for number, (picture, frame) in enumerate(shown):
        small = ImageOps.pad(images.from_bytes(picture), (side - 8, side - 8), color="white")
        sheet.paste(ImageOps.expand(small, 4, frame), (number * (side + 8) + 4, 4))
    return images.to_png(sheet)


def url_of(picture: bytes) -> str:
    """A picture to look at, as a ``data:`` URL."""
    return images.data_url(images.thumbnail(picture, SIDE))


def _verdict(attempt: Attempt) -> tuple[str, str]:
    """Class and words."""
    if attempt.critique is None:
        return "", "not judged"
    return ("pass", "passed") if attempt.critique.success else ("fail", "refused")


@cache
def _pages() -> Environment:
    pages = Environment(loader=PackageLoader("interloom.construct", "pages"), autoescape=True)
    pages.filters |= {
        "url": url_of,
        "caption": caption_of,
        "verdict": _verdict,
        "slug": lambda words: words.replace(" ", "-"),
    }
    return pages
