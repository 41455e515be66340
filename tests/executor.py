"""A generator for tests that draws exactly what it is told in the pocket world's language."""

from __future__ import annotations

from collections.abc import Sequence

from interloom.benchmarks.validation import Renderer
from interloom.records import Failure
from interloom.roles import GenerationJob


class Executor(Renderer):
    """Plain instructions are carried out; what it does not understand leaves the picture as it is.

    ``fails`` makes every call fail; ``batches`` notes the sizes of the calls.
    """

    name = "executor"

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.batches: list[int] = []

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        self.batches.append(len(jobs))
        if self.fails:
            return [Failure(role="generator", reason="down") for _ in jobs]
        return super().generate(jobs)
