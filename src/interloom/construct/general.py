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

from interloom import dialogue
from interloom.construct.files import Place, read_lines
from interloom.seeding import derive_seed

if TYPE_CHECKING:
    import pyarrow as pa

POCKET = "pocket"
"""Source: what the pocket base was taught."""
Row = dict[str, Any]


def general_schema() -> pa.Schema:
    """One row per question, with the answer that is learned; texts alone."""
    import pyarrow as pa

    return pa.schema({"id": pa.string(), "question": pa.string(), "answer": pa.string()})


def rows(source: str, count: int, seed: int) -> Iterator[Row]:
    """``count`` rows at most.

    Args:
        source: ``pocket``, or a JSONL file of objects with ``question`` and ``answer``.

    Raises:
        InterloomError: the file cannot be read; names record and field.
    """
    drawn = _pocket(seed) if source == POCKET else _from_file(Path(source))
    for number, (question, answer) in enumerate(islice(drawn, count)):
        yield {"id": f"general-{number:05d}", "question": question, "answer": answer}


def _pocket(seed: int) -> Iterator[tuple[str, str]]:
    """Answers between tags, as a planner's are, of the pocket base's lessons without pictures."""
    from interloom.pocket.foundation.skills import in_tags

    rng = random.Random(derive_seed(seed, "general"))
    while True:
        lesson = in_tags(rng)
        if not lesson.pictures:
            yield lesson.question, lesson.answer


def _from_file(path: Path) -> Iterator[tuple[str, str]]:
    for number, record in enumerate(read_lines(path)):
        place = Place(path, f"record {number}", record)
        yield place.get("question", str), place.get("answer", str)


def to_conversation(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for TRL: ``prompt`` and ``completion`` as messages, and no ``images``."""
    asked = {"role": "user", "content": dialogue.as_text(row["question"])}
    answer = dialogue.answer_message(row["answer"])
    return {"prompt": [asked], "completion": [answer], "images": []}
