"""GenEval's pocket edition: scenes of the evaluation split in plain words, an exact detector.

Every prompt names all that its scene shows, with places, so that the scene's split decides; a tag
asks about part of it: one thing's kind, two kinds, a number, a colour, a relation, two colours.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from interloom.backends.pocket import read_ahead, reading
from interloom.benchmarks import geneval
from interloom.benchmarks.geneval import Box, Detection, Item, Wanted, relations
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.pocket_scenes import evaluation_scene
from interloom.pocket.language import describe_scene
from interloom.pocket.render import CELL_PIXELS
from interloom.pocket.scene import CELLS, GRID, Scene, Sprite, random_sprite, scene_split
from interloom.records import Failure, Request, Trajectory
from interloom.seeding import derive_seed

NAME = geneval.NAME
PROTOCOL = f"{geneval.PROTOCOL}, pocket edition 1, pocket-verifier as detector"
JUDGE = "pocket-verifier"
IMAGES = 1
"""Pictures per prompt."""


@dataclass(frozen=True)
class PocketItem:
    """A published-layout item and the scene that its prompt describes."""

    item: Item
    scene: Scene


@lru_cache(maxsize=4)
def items(count: int, seed: int) -> tuple[PocketItem, ...]:
    """``count`` prompts at most, spread evenly over the six tags."""
    made: list[PocketItem] = []
    for tag in geneval.TAGS:
        for _ in range(count // len(geneval.TAGS)):
            rng = random.Random(derive_seed(seed, NAME, len(made)))
            made.append(_item(len(made), tag, rng))
    return tuple(made)


def _item(number: int, tag: str, rng: random.Random) -> PocketItem:
    if tag == "counting":
        scene = _several(rng)
    else:
        scene = evaluation_scene(rng, (2,) if tag == "position" else (2, 3), _kinds_differ)
    include, exclude = _wanted(tag, scene, rng)
    prompt = describe_scene(scene, "paraphrased", rng)
    return PocketItem(Item(number, tag, prompt, include, exclude), scene)


def _kinds_differ(scene: Scene) -> bool:
    kinds = [sprite.kind for _, sprite in scene.sprites()]
    return len(set(kinds)) == len(kinds)


def _several(rng: random.Random) -> Scene:
    """Two to four of one sprite."""
    while True:
        sprite = random_sprite(rng)
        cells = rng.sample(range(CELLS), rng.randint(2, 4))
        scene = Scene.of(dict.fromkeys(cells, sprite))
        if scene_split(scene) == "evaluation":
            return scene


def _wanted(
    tag: str, scene: Scene, rng: random.Random
) -> tuple[tuple[Wanted, ...], tuple[Wanted, ...]]:
    things: list[tuple[int, Sprite]] = list(scene.sprites())
    rng.shuffle(things)
    (at, one), (to, other) = things[:2]
    if tag == "counting":
        return (Wanted(one.kind, scene.count),), (Wanted(one.kind, scene.count + 1),)
    if tag == "position":
        # There is one, as two cells of a grid are far enough apart.
        relation = rng.choice(sorted(relations(box_of(to), box_of(at))))
        return (Wanted(one.kind, 1), Wanted(other.kind, 1, None, (relation, 0))), ()
    coloured = tag in ("colors", "color_attr")
    asked = [one, other][: 2 if tag in ("two_object", "color_attr") else 1]
    return tuple(Wanted(s.kind, 1, s.colour if coloured else None) for s in asked), ()


def box_of(cell: int) -> Box:
    """Where a cell of the grid is."""
    row, column = divmod(cell, GRID)
    left, top = column * CELL_PIXELS, row * CELL_PIXELS
    return Box(left, top, left + CELL_PIXELS, top + CELL_PIXELS)


def published(count: int, seed: int) -> list[Item]:
    """The prompts as they are published."""
    return [made.item for made in items(count, seed)]


def requests(count: int, seed: int) -> list[Request]:
    """The prompts as requests."""
    return geneval.requests(published(count, seed), IMAGES)


def write(folder: Path, trajectories: Sequence[Trajectory], *, with_text: bool) -> None:
    """The published layout."""
    geneval.write(folder, trajectories, with_text=with_text)


class ExactDetector:
    """The verifier as a detector: what a cell shows for certain is found, with its colour."""

    name = JUDGE

    def detect(
        self, pictures: Sequence[bytes], wanted: Sequence[Item]
    ) -> list[list[Detection] | Failure]:
        """What every picture shows."""
        read_ahead(pictures)
        return [
            [
                Detection(cell.sprite.kind, 1.0, box_of(place), cell.sprite.colour)
                for place, cell in enumerate(reading(picture).cells)
                if cell.readable and cell.sprite is not None
            ]
            for picture in pictures
        ]


def grade(folder: Path, count: int, seed: int) -> Graded:
    """Grade every picture by what the verifier finds in it."""
    chosen = published(count, seed)
    grades = geneval.detected(chosen, folder, ExactDetector(), IMAGES)
    return geneval.graded(chosen, grades, protocol=PROTOCOL, judge=JUDGE)
