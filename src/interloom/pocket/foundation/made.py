"""Pictures that the weak generator makes of edits, with what the verifier reads in them.

A model that knows only rendered cells, and cells blended on purpose, takes for plain what the
verifier calls unreadable in a generator's picture. Here it meets the real thing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from interloom import images
from interloom.pocket.foundation.comparing import comparison
from interloom.pocket.foundation.lessons import Lesson, Picture
from interloom.pocket.foundation.skills import any_edit, listing
from interloom.pocket.language import describe_edit
from interloom.pocket.render import render
from interloom.pocket.scene import random_scene
from interloom.pocket.verifier import read_many
from interloom.roles import GenerationJob, Generator

ROUNDS = 3
"""Edits of the same picture, one after another, as in a long plan."""


class MadePictures:
    """``count`` rendered pictures and, for each, what came of ``ROUNDS`` edits one after another.

    ``pictures[i]`` was made from ``pictures[i - count]``; the first ``count`` are rendered.
    """

    def __init__(self, generator: Generator, count: int, seed: int) -> None:
        rng = random.Random(f"made:{seed}")
        scenes = [random_scene(rng, rng.randint(1, 6)) for _ in range(count)]
        sources = [images.to_png(render(s, jitter_seed=rng.getrandbits(31))) for s in scenes]
        self.count = count
        self.pictures = _read(sources)
        for _ in range(ROUNDS):
            jobs = []
            for picture, source in zip(self.pictures[-count:], sources, strict=True):
                edit, before = any_edit(rng, picture.scene)
                form = rng.choice(("canonical", "canonical", "paraphrased"))
                prompt = describe_edit(edit, before, form, rng)
                jobs.append(GenerationJob(prompt=prompt, seed=rng.getrandbits(31), source=source))
            sources = [made for made in generator.generate(jobs) if isinstance(made, bytes)]
            assert len(sources) == count, "a local generator does not fail"
            self.pictures += _read(sources)
        places = range(count, len(self.pictures))
        unclear = [i for i in places if self.pictures[i].unclear]
        clear = [i for i in places if not self.pictures[i].unclear]
        self.sides = [side for side in (clear, unclear) if side]
        """Places of what was made: all cells clear, some cell unclear; none of them empty."""

    def draw(self, rng: random.Random) -> Picture:
        """A picture that was made; half of them have a cell that cannot be read."""
        return self.pictures[self._place(rng)]

    def lesson(self, rng: random.Random) -> Lesson:
        """List the cells of a picture that was made, or compare it with what it was made from."""
        place = self._place(rng)
        picture = self.pictures[place]
        if rng.random() < 0.5:
            return listing(picture)
        return comparison(self.pictures[place - self.count], picture)

    def _place(self, rng: random.Random) -> int:
        return rng.choice(rng.choice(self.sides))


def _read(pictures: Sequence[bytes]) -> list[Picture]:
    arrays = [np.asarray(images.from_bytes(picture)) for picture in pictures]
    return [
        Picture(reading.best_guess, frozenset(reading.unreadable), pixels=array)
        for reading, array in zip(read_many(arrays), arrays, strict=True)
    ]
