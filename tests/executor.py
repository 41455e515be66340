"""A generator for tests that draws exactly what it is told in the pocket world's language."""

from __future__ import annotations

from collections.abc import Sequence

from interloom import images
from interloom.backends.pocket import scene_of
from interloom.pocket.language import MeaningError, parse
from interloom.pocket.render import render
from interloom.pocket.scene import Scene
from interloom.records import Failure
from interloom.roles import GenerationJob


class Executor:
    """Plain instructions are carried out; what it does not understand leaves the picture as it is.

    ``fails`` makes every call fail; ``batches`` notes the sizes of the calls.
    """

    name = "executor"

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.batches: list[int] = []

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        self.batches.append(len(jobs))
        return [self._draw(job) for job in jobs]

    def _draw(self, job: GenerationJob) -> bytes | Failure:
        if self.fails:
            return Failure(role="generator", reason="down")
        before = scene_of(job.source)
        try:
            goal = parse(job.prompt, before)
        except MeaningError:
            return job.source or images.to_png(render(Scene()))
        return images.to_png(render(goal.nearest(before or Scene(background=goal.background))))
