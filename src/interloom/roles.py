"""The roles that a backend can play, all batched: one answer or ``Failure`` per item, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from interloom.records import Critique, Failure, Plan, Record, Request, Score


class GenerationJob(Record):
    """One picture to make. ``source`` is the image to edit; without it the job is text-to-image."""

    prompt: str
    seed: int
    source: bytes | None = None
    references: tuple[bytes, ...] = ()


class CritiqueCase(Record):
    """What a critic sees: ``(I_{i-1}, I_i^t, p_i, r_i^t)``. No ``before`` means the first step."""

    before: bytes | None
    after: bytes
    prompt: str
    used_prompt: str


class JudgeCase(Record):
    """What a judge scores: is ``after`` what ``prompt`` asks of ``before``, and is it well made."""

    before: bytes | None
    after: bytes
    prompt: str


class Generator(Protocol):
    name: str

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]: ...


class Planner(Protocol):
    name: str

    def plan(self, requests: Sequence[Request]) -> list[Plan | Failure]: ...


class Critic(Protocol):
    name: str

    def critique(self, cases: Sequence[CritiqueCase]) -> list[Critique | Failure]: ...


class Teacher(Planner, Critic, Protocol):
    """Plays Planner and Critic for the data."""


class Judge(Protocol):
    name: str

    def score(self, cases: Sequence[JudgeCase]) -> list[Score | Failure]: ...
