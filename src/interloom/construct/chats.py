"""``planner_sft.json`` and ``critic_sft.json``: chats in LLaMA-Factory's form.

A file is a list of ``{"messages": [{"role", "content"}…], "images": [path…]}``; the older
``{"conversations": [{"from", "value"}…]}`` is read too. ``<image>`` in a text stands for the next
image; the last turn is the agent's answer and has to parse.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from interloom import dialogue, images
from interloom.construct import critic_data, planner_data
from interloom.construct.files import Place, read_json, save_image, write_text
from interloom.dialogue import AnswerError, Style
from interloom.errors import InterloomError
from interloom.records import Record

Agent = Literal["planner", "critic"]
ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant"}


class ChatSample(Record):
    """One supervised sample: turns of ``(role, text)`` with ``<image>`` marks, and the images."""

    turns: tuple[tuple[str, str], ...]
    images: tuple[bytes, ...] = ()

    def to_conversation(self) -> dict[str, Any]:
        """As TRL takes it: ``prompt`` and ``completion`` as messages, ``images`` as PIL."""
        messages: list[dict[str, Any]] = []
        for role, text in self.turns:
            parts: list[dict[str, str]] = []
            for number, piece in enumerate(text.split(dialogue.IMAGE_MARK)):
                parts += [dict(dialogue.IMAGE_PART)] if number else []
                parts += [{"type": "text", "text": piece}] if piece else []
            messages.append({"role": role, "content": parts})
        pictures = [images.from_bytes(data) for data in self.images]
        return {"prompt": messages[:-1], "completion": messages[-1:], "images": pictures}


def chat_sample(row: Mapping[str, Any], agent: Agent, style: Style) -> ChatSample:
    """A row of our planner or critic data as a chat in a dialogue style."""
    if agent == "critic":
        made = critic_data.to_messages(row, style)
    else:
        made = planner_data.to_messages(row, style)
    turns = tuple(
        (
            message["role"],
            "".join(part.get("text", dialogue.IMAGE_MARK) for part in message["content"]),
        )
        for message in made.messages
    )
    return ChatSample(turns=turns, images=tuple(made.images))


def write_chats(samples: Iterable[ChatSample], path: Path) -> int:
    """Write ``planner_sft.json`` or ``critic_sft.json`` with its images; returns the number.

    Raises:
        ValueError: an image mark in a text that stands for no image.
    """
    records: list[dict[str, Any]] = []
    for number, sample in enumerate(samples):
        marks = sum(text.count(dialogue.IMAGE_MARK) for _, text in sample.turns)
        if marks != len(sample.images):
            raise ValueError(f"sample {number} has {marks} marks for {len(sample.images)} images")
        records.append(
            {
                "messages": [{"role": role, "content": text} for role, text in sample.turns],
                "images": [save_image(path.parent, data) for data in sample.images],
            }
        )
    write_text(path, json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    return len(records)


def _read_turns(record: Place) -> Iterator[tuple[str, str]]:
    """Turns of either form; a separate ``system`` field comes first."""
    if record.has("system"):
        yield "system", record.get("system", str)
    key = "messages" if record.has("messages") else "conversations"
    for number, value in enumerate(record.get(key, list)):
        turn = Place(record.path, f"{record.record}, {key}[{number}]", value)
        role_field, text_field = ("role", "content") if turn.has("role") else ("from", "value")
        role = turn.get(role_field, str)
        if role != "system" and role not in ROLES:
            raise turn.wrong(role_field, f"unknown role {role!r}")
        yield ROLES.get(role, role), turn.get(text_field, str)


def read_chats(path: Path, agent: Agent) -> Iterator[ChatSample]:
    """Read and check ``planner_sft.json`` or ``critic_sft.json``: the answer parses, images exist.

    The pictures of one sample at a time are held: the authors' sets have 80,000 and more.

    Raises:
        InterloomError: naming the file, the record and the field.
    """
    records = read_json(path)
    if not isinstance(records, list):
        raise InterloomError(f"{path}: expected a list of records, found {type(records).__name__}")
    parse = dialogue.parse_critique if agent == "critic" else dialogue.parse_plan
    for number, value in enumerate(records):
        record = Place(path, f"record {number}", value)
        turns = tuple(_read_turns(record))
        if not turns or turns[-1][0] != "assistant":
            raise record.wrong("messages", "the last turn is not the assistant's")
        try:
            parse(turns[-1][1])
        except AnswerError as error:
            raise record.wrong("messages", f"the answer cannot be used: {error}") from error
        names = record.get("images", list) if record.has("images") else []
        pictures = tuple(record.read_image("images", str(name)) for name in names)
        marks = sum(text.count(dialogue.IMAGE_MARK) for _, text in turns)
        if marks != len(pictures):
            raise record.wrong("images", f"{len(pictures)} images for {marks} marks in the text")
        yield ChatSample(turns=turns, images=pictures)
