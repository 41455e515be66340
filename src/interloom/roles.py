"""The roles that a backend can play, all batched: one answer or ``Failure`` per item, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from interloom.records import (
    Critique,
    Evaluation,
    Failure,
    Plan,
    Record,
    Reflection,
    Request,
    RootCause,
    Score,
)


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


class DraftCase(Record):
    """What an analyzer evaluates: is ``image`` what ``instruction`` asks of the references.

    The last reference is the picture to edit; without any, the picture is made from nothing.
    """

    instruction: str
    references: tuple[bytes, ...] = ()
    image: bytes


class FailedCase(DraftCase):
    """A picture that was not accepted, with its evaluation."""

    evaluation: Evaluation


class ReflectionCase(FailedCase):
    """A reflection to be rated, with the picture that it speaks of."""

    reflection: Reflection


class StepCase(Record):
    """A sub-step to be rated: does it lead from ``current`` to what ``instruction`` asks for."""

    instruction: str
    references: tuple[bytes, ...] = ()
    current: bytes | None
    step: str


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


class Analyzer(Protocol):
    """SAIR's ANALYZER: evaluates, reflects, finds root causes, decomposes, and rates texts."""

    name: str

    def evaluate(self, cases: Sequence[DraftCase]) -> list[Evaluation | Failure]: ...

    def reflect(self, cases: Sequence[FailedCase]) -> list[Reflection | Failure]: ...

    def diagnose(self, cases: Sequence[FailedCase]) -> list[RootCause | Failure]:
        """Why the tries failed, of which the last one is shown."""
        ...

    def decompose(self, cases: Sequence[FailedCase]) -> list[tuple[str, ...] | Failure]:
        """Atomic sub-steps, from the references on: the failed picture is not built upon."""
        ...

    def rate_reflections(self, cases: Sequence[ReflectionCase]) -> list[float | Failure]:
        """Validity in [0, 1]."""
        ...

    def rate_steps(self, cases: Sequence[StepCase]) -> list[float | Failure]:
        """Validity in [0, 1]."""
        ...
