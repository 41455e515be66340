"""A generator that draws what the language understands, with faults at a set rate.

It stands in for the miniature where a test is about what surrounds the generator: it is real (it
reads its source picture and its prompt), fast, and its faults are known.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from interloom import images
from interloom.backends.pocket import scene_of
from interloom.pocket.language import MeaningError
from interloom.pocket.meaning import understand
from interloom.pocket.render import render
from interloom.pocket.scene import OPERATIONS, Scene, apply, random_edit
from interloom.records import Failure
from interloom.roles import GenerationJob


class RenderGenerator:
    """Draws the goal of each prompt; a share ``faults`` of the pictures gets a wrong edit more."""

    def __init__(self, faults: float = 0.0, name: str = "renderer") -> None:
        self.faults = faults
        self.name = name
        self.drawn = 0

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        self.drawn += len(jobs)
        return [self._draw(job) for job in jobs]

    def _draw(self, job: GenerationJob) -> bytes:
        rng = random.Random(job.seed)
        before = scene_of(job.source)
        try:
            goal = understand(job.prompt, before).goal
            scene = goal.nearest(before or Scene(background=goal.background))
        except MeaningError:
            scene = before or Scene()
        if rng.random() < self.faults:
            edit = None
            while edit is None:
                edit = random_edit(rng, scene, rng.choice(OPERATIONS))
            scene = apply(scene, edit)
        return images.to_png(render(scene, jitter_seed=job.seed))
