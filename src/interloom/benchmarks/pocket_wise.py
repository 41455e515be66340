"""WISE's pocket edition: riddles of the evaluation split, the legacy protocol, an exact judge.

The prompt names a thing by what one has to know about it ("the plant that families decorate at
christmas at the center"). Consistency comes from the verifier's meaning score, realism and
aesthetic quality from its workmanship score.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from interloom.backends.pocket import read_ahead, reading
from interloom.benchmarks import wise
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.wise import Item, Legacy
from interloom.pocket import verifier
from interloom.pocket.goal import Goal
from interloom.pocket.knowledge import riddles
from interloom.pocket.language import describe_scene
from interloom.pocket.meaning import pose_riddle
from interloom.pocket.scene import CELLS, Scene
from interloom.records import Request
from interloom.seeding import derive_seed

NAME = wise.NAME
PROTOCOL = "wise/legacy, pocket edition 1"
JUDGE = "pocket-verifier"
write = wise.write


@dataclass(frozen=True)
class PocketItem:
    """A published-layout item and the scene it wants."""

    item: Item
    scene: Scene


@lru_cache(maxsize=4)
def items(count: int, seed: int) -> tuple[PocketItem, ...]:
    """``count`` items at most, spread evenly over the six categories; ids lie in the published
    ranges."""
    made: list[PocketItem] = []
    first = 1
    for category in wise.CATEGORIES:
        bank = [riddle for riddle in riddles("evaluation") if riddle.category == category]
        asked: set[str] = set()
        for number in range(count // len(wise.CATEGORIES)):
            rng = random.Random(derive_seed(seed, NAME, category, number))
            riddle = bank[number % len(bank)]
            while True:
                scene = Scene.of({rng.randrange(CELLS): riddle.answer})
                prompt = pose_riddle(describe_scene(scene), riddle, rng.choice(riddle.phrases))
                if prompt not in asked:
                    break
            asked.add(prompt)
            item = Item(
                prompt_id=first + number,
                prompt=prompt,
                category=category,
                explanation=riddle.fact,
                subcategory=riddle.subcategory,
            )
            made.append(PocketItem(item, scene))
        first = wise.LEGACY_LAST_ID[category] + 1
    return tuple(made)


def published(count: int, seed: int) -> list[Item]:
    """The items as they are published."""
    return [made.item for made in items(count, seed)]


def requests(count: int, seed: int) -> list[Request]:
    """The items as requests."""
    return wise.requests(published(count, seed))


def grade(folder: Path, count: int, seed: int) -> Graded:
    """Judge every picture; without one the system failed, not the judge: lowest grades."""
    chosen = items(count, seed)
    pictures = {made.item.prompt_id: wise.image_of(made.item, folder) for made in chosen}
    read_ahead(pictures.values())
    grades = {
        made.item.prompt_id: judge(pictures[made.item.prompt_id], made.scene) for made in chosen
    }
    return wise.graded(published(count, seed), grades, protocol=PROTOCOL, judge=JUDGE)


def judge(image: bytes | None, scene: Scene) -> Legacy:
    """Legacy grades of a picture that should show the scene."""
    if image is None:
        return Legacy(0, 0, 0)
    verdict = verifier.judge(reading(image), Goal(scenes=(scene,)))
    consistency = 2 if verdict.success else int(verdict.semantic >= 5)
    craft = 2 if verdict.quality >= 7 else int(verdict.quality >= 4)
    return Legacy(consistency, craft, craft)
