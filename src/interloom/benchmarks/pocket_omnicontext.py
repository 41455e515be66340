"""OmniContext's pocket edition: pictures composed of things that only reference pictures show.

A *character* is a pictorial thing (sun, fish, house …), an *object* a geometric one, and a *scene*
is a last picture with things of its own, to which the others are added. No training text speaks of
"the thing of picture 1", and all targets of two or more things are of the evaluation split.

Prompt following looks at places, number and background, whatever stands there; subject consistency
at the things, wherever they stand.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from interloom.backends.pocket import read_ahead, reading
from interloom.benchmarks import omnicontext
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.omnicontext import TASKS, Grades, Item
from interloom.benchmarks.pocket_scenes import draw
from interloom.pocket.references import refer
from interloom.pocket.scene import (
    BACKGROUNDS,
    CELLS,
    COLOURS,
    GEOMETRIC_KINDS,
    PICTORIAL_KINDS,
    POSITIONS,
    Scene,
    Sprite,
    random_scene,
    scene_split,
)
from interloom.records import Request
from interloom.seeding import derive_seed

NAME = omnicontext.NAME
PROTOCOL = f"{omnicontext.PROTOCOL}, pocket edition 1"
JUDGE = "pocket-verifier"
EXTRA = 0.3
"""What each thing too many takes off prompt following."""
write = omnicontext.write


@dataclass(frozen=True)
class PocketItem:
    """A published-layout item and the scene that is wanted."""

    item: Item
    target: Scene


@lru_cache(maxsize=4)
def items(count: int, seed: int) -> tuple[PocketItem, ...]:
    """``count`` items at most, spread evenly over the eight task types."""
    return tuple(
        _item(f"{task}_{number:04d}", task, random.Random(derive_seed(seed, NAME, task, number)))
        for task in TASKS
        for number in range(count // len(TASKS))
    )


def _item(key: str, task: str, rng: random.Random) -> PocketItem:
    while True:
        things = [_thing(kinds, rng) for kinds in _kinds(task, rng)]
        in_scene = task.startswith("scene")
        base = random_scene(rng, 2) if in_scene else Scene(background=rng.choice([*BACKGROUNDS]))
        cells = rng.sample(base.empty(), len(things))
        target = base
        for cell, thing in zip(cells, things, strict=True):
            target = target.with_cell(cell, thing)
        shown = [Scene.of({rng.randrange(CELLS): thing}) for thing in things]
        done = target == shown[-1]  # the last picture as it is: nothing would be left to do
        if not done and (target.count < 2 or scene_split(target) == "evaluation"):
            break
    places = [f"{refer(n)} at the {POSITIONS[cell]}" for n, cell in enumerate(cells, 1)]
    if in_scene:
        instruction = "; ".join(f"add {place}" for place in places)
        shown.append(base)
    else:
        when = "" if base.background == "day" else f", at {base.background}"
        instruction = f"show {', '.join(places)}{when}"
    pictures = tuple(draw(scene, rng) for scene in shown)
    return PocketItem(Item(key, task, instruction, pictures), target)


def _kinds(task: str, rng: random.Random) -> list[tuple[str, ...]]:
    """The kinds that each reference picture of a task may show."""
    characters = task.count("character")
    objects = task.count("object")
    if task.startswith("multi") and characters + objects == 1:
        characters, objects = (n * rng.choice((2, 3)) for n in (characters, objects))
    return [
        *(PICTORIAL_KINDS for _ in range(characters)),
        *(GEOMETRIC_KINDS for _ in range(objects)),
    ]


def _thing(kinds: tuple[str, ...], rng: random.Random) -> Sprite:
    return Sprite(rng.choice([*COLOURS]), rng.choice(kinds))


def published(count: int, seed: int) -> list[Item]:
    """The items as they are published."""
    return [made.item for made in items(count, seed)]


def requests(count: int, seed: int) -> list[Request]:
    """The items as requests."""
    return omnicontext.requests(published(count, seed))


def grade(folder: Path, count: int, seed: int) -> Graded:
    """Judge every picture; an item without one gets zeros."""
    chosen = items(count, seed)
    pictures = {made.item.key: omnicontext.image_of(made.item, folder) for made in chosen}
    read_ahead(pictures.values())
    grades = {made.item.key: judge(pictures[made.item.key], made.target) for made in chosen}
    return omnicontext.graded(published(count, seed), grades, protocol=PROTOCOL, judge=JUDGE)


def judge(image: bytes | None, target: Scene) -> Grades:
    """OmniContext's two grades of a picture."""
    if image is None:
        return Grades(0, 0)
    seen = reading(image)
    occupied = {i for i, cell in enumerate(seen.cells) if not cell.readable or cell.sprite}
    wanted = {cell for cell, _ in target.sprites()}
    met = [cell in occupied for cell in wanted] + [seen.background == target.background]
    extra = max(0.0, 1 - EXTRA * len(occupied - wanted))
    there = Counter(cell.sprite for cell in seen.cells if cell.readable and cell.sprite)
    likeness = []
    for _, thing in target.sprites():
        alike = there[thing] > 0
        there[thing] -= alike
        likeness.append(1.0 if alike else 0.5 * _of_kind(thing, there))
    return Grades(10 * extra * sum(met) / len(met), 10 * sum(likeness) / len(likeness))


def _of_kind(thing: Sprite, there: Counter[Sprite]) -> bool:
    """Whether something of the kind, if in another colour, is left over."""
    return any(n > 0 and sprite.kind == thing.kind for sprite, n in there.items())
