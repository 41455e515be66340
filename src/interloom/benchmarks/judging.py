"""Judging by a chat model: questions, answers held to a form, and what to do without an answer.

A judge's calls are retried, cached, batched, limited and paid for by its backend
(``backends/remote.py``). What has no answer after that is *unjudged*: it is never a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, Field

from interloom.backends.calls import Role
from interloom.backends.remote_roles import Form
from interloom.dialogue import (
    IMAGE_PART,
    Conversation,
    Part,
    as_text,
    chat_messages,
    read_sections,
)
from interloom.records import Failure

Answer = TypeVar("Answer")
AnyForm = TypeVar("AnyForm", bound=Form)
Five = Annotated[int, Field(ge=1, le=5)]
"""A grade of RISEBench and KRIS-Bench."""
Ten = Annotated[float, Field(ge=0, le=10)]
"""A grade of CoMM and OmniContext."""


class ChatJudge(Protocol):
    """A chat model that sees pictures; ``backends.remote_roles.RemoteChat`` is one."""

    name: str

    def ask(
        self,
        role: Role,
        conversations: Sequence[Conversation],
        form: type[BaseModel],
        readers: Sequence[Callable[[bytes], Answer]],
    ) -> list[Answer | Failure]: ...


class Verdict(Form):
    """A form with one yes or no."""

    reasoning: str
    criteria_met: Literal["true", "false", "not sure"]


@dataclass(frozen=True)
class Asked:
    """One question about one item; ``part`` says which of the item's judgments it is."""

    item: str
    part: str
    conversation: Conversation
    form: type[Form]


Answers = dict[tuple[str, str], Form | None]
"""By item and part; ``None`` where the judge gave no answer that could be read."""


def conversation(
    benchmark: str, section: str, texts: Mapping[str, str], pictures: Mapping[str, Sequence[bytes]]
) -> Conversation:
    """A question out of ``judge_texts/BENCHMARK.txt``.

    Its user turn is the section ``section``; if there is a ``SECTION_json``, it goes to the end of
    the system's turn, and says how to answer. Pictures stand where the text has their name in
    braces, numbered if there are many.
    """
    sections = read_sections(
        resources.files("interloom.benchmarks") / f"judge_texts/{benchmark}.txt"
    )
    chosen = {name: sections[name] for name in ("system", section) if name in sections}
    if f"{section}_json" in sections:
        chosen["json"] = sections[f"{section}_json"]
    values: dict[str, list[Part]] = {name: as_text(text) for name, text in texts.items()}
    values |= {name: _shown(shown) for name, shown in pictures.items()}
    # The order in which the text shows them, which need not be the caller's.
    order = sorted(pictures, key=lambda name: chosen[section].find(f"{{{name}}}"))
    messages = chat_messages(chosen, values, "json", user=section)
    return Conversation(messages, [image for name in order for image in pictures[name]])


def _shown(pictures: Sequence[bytes]) -> list[Part]:
    if not pictures:
        return as_text("(none)")
    if len(pictures) == 1:
        return [dict(IMAGE_PART)]
    return [
        part
        for number in range(1, len(pictures) + 1)
        for part in (*as_text(f"\npicture {number}: "), dict(IMAGE_PART))
    ]


def ask_all(judge: ChatJudge, asked: Sequence[Asked]) -> Answers:
    """Ask all questions; those of one form go to the judge together."""
    answers: Answers = {}
    for form in dict.fromkeys(one.form for one in asked):
        group = [one for one in asked if one.form is form]
        conversations = [one.conversation for one in group]
        said: list[Any] = judge.ask("judge", conversations, form, [_reader(form)] * len(group))
        for one, answer in zip(group, said, strict=True):
            answers[one.item, one.part] = None if isinstance(answer, Failure) else answer
    return answers


def _reader(form: type[AnyForm]) -> Callable[[bytes], AnyForm]:
    return form.model_validate_json


def answer_of(answers: Answers, item: str, part: str, form: type[AnyForm]) -> AnyForm | None:
    """The answer to one question, as the form that was asked for."""
    found = answers[item, part]
    assert found is None or isinstance(found, form), (item, part)
    return found
