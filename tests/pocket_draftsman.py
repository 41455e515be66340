"""A baseline for tests of the adaptive system: it draws what is asked, but only so much of it.

Like a model that was trained on short captions it leaves out what goes beyond ``most`` changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from interloom import images
from interloom.backends.pocket import scene_of
from interloom.pocket.language import MeaningError
from interloom.pocket.render import render
from interloom.pocket.scene import Scene
from interloom.pocket.several import understand_all
from interloom.records import Failure
from interloom.roles import GenerationJob


class Draftsman:
    """Draws the first ``most`` changed cells; calls whose prompt has ``broken`` in it fail."""

    name = "draftsman"

    def __init__(self, most: int = 2, broken: str = "no such words") -> None:
        self.most, self.broken = most, broken
        self.jobs: list[GenerationJob] = []

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        self.jobs += jobs
        return [
            Failure(role="generator", reason="broken")
            if self.broken in job.prompt
            else self._draw(job)
            for job in jobs
        ]

    def _draw(self, job: GenerationJob) -> bytes:
        given = [p for p in (*job.references, job.source) if p is not None]
        scenes = [scene for scene in map(scene_of, given) if scene is not None]
        start = scenes[-1] if scenes else Scene()
        try:
            goal = understand_all(job.prompt, scenes).goal
        except MeaningError:
            return images.to_png(render(start, job.seed))
        target = goal.nearest(scenes[-1] if scenes else Scene(background=goal.background))
        scene = Scene(start.cells, target.background)
        for cell in start.difference(target)[: self.most]:
            scene = scene.with_cell(cell, target.cells[cell])
        return images.to_png(render(scene, job.seed))
