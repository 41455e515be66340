"""General questions that are rehearsed while the planner is trained.

A base forgets what its fine-tuning never asks for: SFT on plans alone takes most procedures from
it that it knew. A share of what it learned before, among the samples, keeps them (rehearsal:
Robins, "Catastrophic forgetting, rehearsal and pseudorehearsal", 1995).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom import dialogue, images
from interloom.construct.files import Place, read_lines
from interloom.seeding import derive_seed

if TYPE_CHECKING:
    import pyarrow as pa

POCKET = "pocket"
"""Source: what the pocket base was taught."""
Row = dict[str, Any]


def general_schema() -> pa.Schema:
    """One row per question, with its images and the answer that is learned.

    ``<image>`` stands in the question where an image is shown.
    """
    import pyarrow as pa

    texts = {name: pa.string() for name in ("id", "question", "answer")}
    return pa.schema({**texts, "images": pa.list_(pa.binary())})


def rows(source: str, count: int, seed: int) -> Iterator[Row]:
    """``count`` rows at most.

    Args:
        source: ``pocket``, or a JSONL file of objects with ``question``, ``answer`` and, where the
            question shows pictures, ``images``, a list of files beside it.

    Raises:
        InterloomError: the file cannot be read; names record and field.
    """
    drawn = _pocket(seed) if source == POCKET else _from_file(Path(source))
    for number, (question, answer, pictures) in enumerate(islice(drawn, count)):
        row = {"question": question, "answer": answer, "images": pictures}
        yield {"id": f"general-{number:05d}", **row}


Question = tuple[str, str, list[bytes]]
"""Question, answer, and the pictures that the question shows."""


def _pocket(seed: int) -> Iterator[Question]:
    """Answers between tags, as a planner's are, of the pocket base's lessons."""
    import numpy as np
    from PIL import Image

    from interloom.pocket.foundation.lessons import draw_picture
    from interloom.pocket.foundation.skills import in_tags

    rng = random.Random(derive_seed(seed, "general"))
    pixels = np.random.default_rng(derive_seed(seed, "general", "pictures"))
    while True:
        lesson = in_tags(rng)
        if any(picture.unclear for picture in lesson.pictures):
            continue  # Spoilt cells are the autoencoder's work, which is not loaded here.
        drawn = [Image.fromarray(draw_picture(picture, pixels)) for picture in lesson.pictures]
        yield lesson.question, lesson.answer, list(map(images.to_png, drawn))


def _from_file(path: Path) -> Iterator[Question]:
    for number, record in enumerate(read_lines(path)):
        place = Place(path, f"record {number}", record)
        question, names = place.get("question", str), []
        if place.has("images"):
            names = place.get("images", list)
        if (wanted := question.count(dialogue.IMAGE_MARK)) != len(names):
            detail = f"{wanted} times {dialogue.IMAGE_MARK} for {len(names)} images"
            raise place.wrong("question", detail)
        pictures = [place.read_image("images", str(name)) for name in names]
        yield question, place.get("answer", str), pictures


def to_conversation(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for TRL: ``prompt`` and ``completion`` as messages, ``images`` as PIL."""
    asked = {"role": "user", "content": dialogue.fill(row["question"], {})}
    answer = dialogue.answer_message(row["answer"])
    pictures = [images.from_bytes(data, row["id"]) for data in row["images"]]
    return {"prompt": [asked], "completion": [answer], "images": pictures}
