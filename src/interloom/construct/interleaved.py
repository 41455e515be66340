"""Interleaved sequences: the form in which text and pictures train a unified model, and in which
open data sets come.

The two released formats (§1.6) are one text with marks, here one JSON record a line::

    <gthink>…</gthink>(<plan>…</plan><image>…</image>.<info>…</info>)*

where ``<image>`` holds a path. With reflection every picture, failed ones included, is followed by
``<critic><think>…</think>{"success": …, "refine_prompt": …}</critic>``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from interloom import dialogue
from interloom.construct.files import Place, read_lines, save_image, write_text
from interloom.records import (
    Attempt,
    Critique,
    Plan,
    Record,
    Request,
    RequestKind,
    Step,
    StepTrace,
    Trajectory,
    caption_of,
)

MARKS = re.compile(r"</?(?:gthink|plan|image|info|critic|think)>")
PIECE = re.compile(
    r"<(?P<mark>gthink|plan|image|info|critic)>(?P<inside>.*?)</(?P=mark)>", re.DOTALL
)
JUDGMENT = re.compile(r"\s*<think>(?P<think>.*?)</think>\s*(?P<verdict>\{.*\})\s*", re.DOTALL)


class Picture(Record):
    """A picture of a step, and what was said of it."""

    image: bytes
    critique: Critique | None = None


class Part(Record):
    """A step: its plan, its pictures (the last one is the result) and the text beside them."""

    plan: str
    pictures: tuple[Picture, ...]
    info: str = ""


class Interleaved(Record):
    """A request and the sequence that answers it."""

    id: str
    text: str
    images: tuple[bytes, ...] = ()
    reasoning: str = ""
    category: str = ""
    parts: tuple[Part, ...] = ()


def from_trajectory(trajectory: Trajectory, *, reflection: bool) -> Interleaved | None:
    """The sequence that a reader sees, or, with ``reflection``, all pictures that were made.

    ``None`` for a trajectory that did not come to an end, or has no pictures.
    """
    plan, request = trajectory.plan, trajectory.request
    if plan is None or trajectory.failure is not None or request.kind == "text_response":
        return None
    parts: list[Part] = []
    for trace in trajectory.steps:
        shown = [attempt for attempt in trace.attempts if attempt.image is not None]
        chosen = shown if reflection else [one for one in shown if one is trace.accepted]
        pictures = tuple(
            Picture(image=one.image or b"", critique=one.critique if reflection else None)
            for one in chosen
        )
        parts.append(
            Part(plan=trace.step.prompt or "", pictures=pictures, info=caption_of(trace.step))
        )
    return Interleaved(
        id=request.id,
        text=request.text,
        images=request.images,
        reasoning=plan.reasoning,
        category=request.category,
        parts=tuple(parts),
    )


def to_trajectory(sequence: Interleaved) -> Trajectory:
    """The sequence as a request that was carried out; the plan's texts are its parts' texts."""
    given = len(sequence.images)
    steps = tuple(
        Step(
            step_number=number,
            instruction=part.info or part.plan,
            prompt=part.plan,
            auxiliary_text=part.info or None,
        )
        for number, part in enumerate(sequence.parts, given + 1)
    )
    traces: list[StepTrace] = []
    source = sequence.images[-1] if given else None
    for step, part in zip(steps, sequence.parts, strict=True):
        prompt, attempts = part.plan, []
        for picture in part.pictures:
            attempts.append(
                Attempt(prompt=prompt, seed=0, image=picture.image, critique=picture.critique)
            )
            prompt = picture.critique.refine_prompt if picture.critique else prompt
        traces.append(StepTrace(step=step, source=source, attempts=tuple(attempts)))
        source = part.pictures[-1].image if part.pictures else source
    kind: RequestKind = "continuation" if given else "create"
    request = Request(
        id=sequence.id,
        text=sequence.text,
        images=sequence.images,
        kind=kind,
        category=sequence.category,
    )
    plan = Plan(reasoning=sequence.reasoning, steps=steps)
    return Trajectory(request=request, plan=plan, steps=tuple(traces))


def to_text(sequence: Interleaved, folder: Path) -> str:
    """The text with marks; pictures are written into ``folder``.

    Raises:
        ValueError: a text that holds a mark itself.
    """

    def marked(mark: str, inside: str) -> str:
        if MARKS.search(inside) and mark != "critic":
            raise ValueError(f"{sequence.id}: a mark inside {mark}: {inside!r}")
        return f"<{mark}>{inside}</{mark}>"

    pieces = [marked("gthink", sequence.reasoning)]
    for part in sequence.parts:
        pieces.append(marked("plan", part.plan))
        for picture in part.pictures:
            pieces.append(marked("image", save_image(folder, picture.image)) + ".")
            if picture.critique is not None:
                said = picture.critique
                verdict = {"success": said.success, "refine_prompt": said.refine_prompt}
                inside = json.dumps(verdict, ensure_ascii=False)
                if MARKS.search(inside):
                    raise ValueError(f"{sequence.id}: a mark inside critic: {inside!r}")
                pieces.append(marked("critic", marked("think", said.reasoning) + inside))
        pieces.append(marked("info", part.info))
    return "".join(pieces)


def write(sequences: Iterable[Interleaved], path: Path) -> int:
    """Write one record a line, pictures in a folder beside the file; returns the number."""
    lines = [
        json.dumps(
            {
                "id": one.id,
                "user_input": one.text,
                "images": [save_image(path.parent, image) for image in one.images],
                "category": one.category,
                "sequence": to_text(one, path.parent),
            },
            ensure_ascii=False,
        )
        for one in sequences
    ]
    write_text(path, "".join(line + "\n" for line in lines))
    return len(lines)


def read(path: Path) -> Iterator[Interleaved]:
    """Read either format back.

    Raises:
        InterloomError: naming the file, the record and the field.
    """
    for number, value in enumerate(read_lines(path)):
        record = Place(path, f"record {number}", value)
        names = record.get("images", list) if record.has("images") else []
        yield Interleaved(
            id=record.get("id", str) if record.has("id") else f"{path.stem}/{number}",
            text=record.get("user_input", str),
            images=tuple(record.read_image("images", str(name)) for name in names),
            category=record.get("category", str) if record.has("category") else "",
            **_read_text(record),
        )


def _read_text(record: Place) -> dict[str, Any]:
    """Reasoning and parts of the field ``sequence``."""
    reasoning = ""
    open_parts: list[dict[str, Any]] = []
    rest = text = record.get("sequence", str)
    for piece in PIECE.finditer(text):
        rest = rest.replace(piece[0], "", 1)
        mark, inside = piece["mark"], piece["inside"]
        if mark == "gthink":
            reasoning = inside
        elif mark == "plan":
            open_parts.append({"plan": inside, "pictures": [], "info": ""})
        elif not open_parts:
            raise record.wrong("sequence", f"<{mark}> before the first <plan>")
        elif mark == "image":
            open_parts[-1]["pictures"].append({"image": record.read_image("sequence", inside)})
        elif mark == "info":
            open_parts[-1]["info"] = inside
        elif not open_parts[-1]["pictures"]:
            raise record.wrong("sequence", "<critic> before a picture")
        else:
            open_parts[-1]["pictures"][-1]["critique"] = _judgment(record, inside)
    if rest.strip(". \n\t"):
        raise record.wrong("sequence", f"text outside the marks: {rest.strip()[:60]!r}")
    return {"reasoning": reasoning, "parts": tuple(map(Part.model_validate, open_parts))}


def _judgment(record: Place, inside: str) -> Critique:
    found = JUDGMENT.fullmatch(inside)
    if found is None:
        raise record.wrong("sequence", f"unreadable <critic>: {inside[:60]!r}")
    try:
        verdict = dialogue.read_dict(found["verdict"])
    except dialogue.AnswerError as error:
        raise record.wrong("sequence", f"unreadable <critic>: {error}") from error
    said = Place(record.path, f"{record.record}, <critic>", verdict)
    return Critique(
        success=said.get("success", bool),
        refine_prompt=said.get("refine_prompt", str),
        reasoning=found["think"],
    )
