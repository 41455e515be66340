"""RISEBench's pocket edition: reasoning rules of the evaluation split on scenes of the evaluation
split.

The instruction says what happens ("let twenty years pass for the plant at the center") and not
what the picture shows then. Consistency, reasoning and plausibility come from the verifier's axes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from interloom import images
from interloom.backends.pocket import read_ahead, reading
from interloom.benchmarks import rise
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.rise import Grades, Item
from interloom.pocket import verifier
from interloom.pocket.goal import Goal
from interloom.pocket.knowledge import ReasoningRule, reasoning_rules
from interloom.pocket.language import describe_scene
from interloom.pocket.reasoning import example_scene, rule_instructions, rule_result
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, scene_split
from interloom.records import Request
from interloom.seeding import derive_seed

NAME = rise.NAME
PROTOCOL = f"{rise.PROTOCOL}, pocket edition 1"
JUDGE = "pocket-verifier"
write = rise.write
THINGS = (2, 3)


@dataclass(frozen=True)
class PocketItem:
    """A published-layout item, the scene that is edited and the one that is wanted."""

    item: Item
    before: Scene
    after: Scene


@lru_cache(maxsize=4)
def items(count: int, seed: int) -> tuple[PocketItem, ...]:
    """``count`` items at most, spread evenly over the four categories."""
    made: list[PocketItem] = []
    for category in rise.CATEGORIES:
        bank = [rule for rule in reasoning_rules("evaluation") if rule.category == category]
        for number in range(count // len(rise.CATEGORIES)):
            index = f"{category}_{number + 1}"
            made.append(_item(index, bank[number % len(bank)], derive_seed(seed, NAME, index)))
    return tuple(made)


def _item(index: str, rule: ReasoningRule, seed: int) -> PocketItem:
    rng = random.Random(seed)
    while True:
        scene, cell = example_scene(rule, rng, rng.choice(THINGS))
        if scene_split(scene) == "evaluation":
            break
    after, _ = rule_result(rule, scene, cell)
    item = Item(
        index,
        rule.category,
        rng.choice(rule_instructions(rule, scene, cell)),
        image=images.to_png(render(scene, seed)),
        references=(images.to_png(render(after, seed)),),
        reference_text=f"{rule.auxiliary_text}: {describe_scene(after)}",
    )
    return PocketItem(item, scene, after)


def published(count: int, seed: int) -> list[Item]:
    """The items as they are published."""
    return [made.item for made in items(count, seed)]


def requests(count: int, seed: int) -> list[Request]:
    """The items as requests that bring their picture."""
    return rise.requests(published(count, seed))


def grade(folder: Path, count: int, seed: int) -> Graded:
    """Judge every picture; an item without one gets the lowest grades."""
    chosen = items(count, seed)
    pictures = {made.item.index: rise.image_of(made.item, folder) for made in chosen}
    read_ahead(pictures.values())
    grades = {made.item.index: judge(pictures[made.item.index], made) for made in chosen}
    return rise.graded(published(count, seed), grades, protocol=PROTOCOL, judge=JUDGE)


def judge(image: bytes | None, made: PocketItem) -> Grades:
    """RISE's three grades of an edited picture."""
    if image is None:
        return Grades(1, 1, 1)
    goal = Goal(scenes=(made.after,), before=made.before)
    verdict = verifier.judge(reading(image), goal)
    return Grades(verdict.consistency, verdict.knowledge, verdict.craft)
