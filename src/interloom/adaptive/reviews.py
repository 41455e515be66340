"""People's decisions about stories: a story is kept if enough reviewers accept it, and all do.

A decision is a line of a JSONL file that is only ever appended to; of one reviewer's decisions
about a story the last one counts. Stories are named by their content: one that was made anew is
another one, and wants to be looked at again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from interloom.adaptive.story import Story, marked
from interloom.construct import store
from interloom.errors import InterloomError
from interloom.records import FilledLine, Line, Record

REVIEWERS = 2
"""SAIR: two reviewers, unanimously."""


class Decision(Record):
    """What one reviewer said of one story, and when (ISO 8601, UTC)."""

    story: str
    id: str
    by: FilledLine
    accept: bool
    note: Line = ""
    at: str


def key_of(story: Story) -> str:
    """A story by its content: request, pictures, texts."""
    prompt = story.prompt
    return store.content(
        prompt.instruction, *prompt.references, marked(story.segments()), *story.images
    )


def decide(path: Path, story: Story, by: str, accept: bool, note: str = "") -> Decision:
    """Append a decision to the file."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    made = Decision(story=key_of(story), id=story.prompt.id, by=by, accept=accept, note=note, at=at)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(made.model_dump_json() + "\n")
    return made


def read(path: Path) -> list[Decision]:
    """All decisions of a file, oldest first.

    Raises:
        InterloomError: no such file, or a line that is no decision; names both.
    """
    if not path.is_file():
        raise InterloomError(f"{path}: no such file; `interloom review` makes it")
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(Decision.model_validate(json.loads(line)))
        except (ValidationError, json.JSONDecodeError) as error:
            reason = str(error).splitlines()[0]
            raise InterloomError(f"{path}: line {number} is no decision ({reason})") from None
    return found


def standing(decisions: Iterable[Decision]) -> dict[str, dict[str, bool]]:
    """The decision that counts, by story and reviewer."""
    found: dict[str, dict[str, bool]] = {}
    for one in decisions:
        found.setdefault(one.story, {})[one.by] = one.accept
    return found


def accepted(
    stories: Sequence[Story], decisions: Sequence[Decision], reviewers: int = REVIEWERS
) -> list[Story]:
    """The stories that ``reviewers`` people at least have looked at and all of them accept."""
    said = standing(decisions)
    kept = []
    for story in stories:
        verdicts = said.get(key_of(story), {})
        if len(verdicts) >= reviewers and all(verdicts.values()):
            kept.append(story)
    return kept
