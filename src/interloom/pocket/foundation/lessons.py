"""What a lesson is: a question about zero, one or two pictures, and its answer."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np

from interloom.pocket.render import SIZE_PIXELS, render_array
from interloom.pocket.scene import Scene, random_scene

UNCLEAR = "unclear"


@dataclass(frozen=True)
class Picture:
    """A picture for a lesson. Cells in ``unclear`` are spoiled."""

    scene: Scene
    unclear: frozenset[int] = frozenset()
    blank: bool = False
    pixels: np.ndarray | None = field(default=None, compare=False, repr=False)
    """uint8 (96, 96, 3), if it is there and not to be drawn."""

    def name(self, cell: int) -> str:
        if cell in self.unclear:
            return UNCLEAR
        sprite = self.scene.cells[cell]
        return str(sprite) if sprite else "nothing"

    @property
    def background(self) -> str:
        return "blank" if self.blank else self.scene.background


@dataclass(frozen=True)
class Lesson:
    """One question about zero, one or two pictures, and its answer. ``<image>`` marks a picture."""

    question: str
    answer: str
    pictures: tuple[Picture, ...] = ()


def draw_picture(picture: Picture, rng: np.random.Generator) -> np.ndarray:
    """uint8 (96, 96, 3): as it is there, or as rendered, with some noise."""
    if picture.pixels is not None:
        return picture.pixels
    if picture.blank:
        return np.full((SIZE_PIXELS, SIZE_PIXELS, 3), 255, np.uint8)
    jitter = random.Random(int(rng.integers(2**62)))
    array = render_array(picture.scene, jitter).astype(np.float32)
    return np.clip(array + rng.normal(0, rng.choice((0, 2, 5)), array.shape), 0, 255).astype(
        np.uint8
    )


def random_picture(rng: random.Random) -> Picture:
    """A scene of up to eight things, now and then with a spoiled cell, now and then blank."""
    if rng.random() < 0.05:
        return Picture(Scene(), blank=True)
    scene = random_scene(rng, rng.choices(range(9), (1, 2, 3, 4, 4, 3, 3, 2, 1))[0])
    full = [cell for cell, _ in scene.sprites()]
    spoiled = rng.sample(full, 1) if full and rng.random() < 0.2 else []
    return Picture(scene, frozenset(spoiled))
