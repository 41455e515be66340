"""RISEBench's pocket edition: reasoning rules of the evaluation split on scenes of the evaluation
split.

The instruction says what happens ("let twenty years pass for the plant at the center") and not
what the picture shows then. Consistency, reasoning and plausibility come from the verifier's axes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from interloom import images
from interloom.backends.pocket import reading
from interloom.benchmarks import rise
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.pocket_wise import last_image
from interloom.benchmarks.rise import Grades, Item
from interloom.pocket import verifier
from interloom.pocket.goal import Goal
from interloom.pocket.knowledge import ReasoningRule, reasoning_rules
from interloom.pocket.reasoning import example_scene, rule_instructions, rule_result
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, scene_split
from interloom.records import Request, Trajectory
from interloom.seeding import derive_seed

NAME = "rise"
PROTOCOL = f"{rise.PROTOCOL}, pocket edition 1"
JUDGE = "pocket-verifier"
THINGS = (2, 3)


@dataclass(frozen=True)
class PocketItem:
    """A published-layout item, the picture that is edited and the scene that is wanted."""

    item: Item
    before: Scene
    after: Scene
    jitter_seed: int

    @property
    def image(self) -> bytes:
        return images.to_png(render(self.before, self.jitter_seed))


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
    instruction = rng.choice(rule_instructions(rule, scene, cell))
    return PocketItem(Item(index, rule.category, instruction), scene, after, seed)


def requests(count: int, seed: int) -> list[Request]:
    """The items as requests that bring their picture."""
    return [
        Request(
            id=f"{NAME}/{made.item.index}",
            text=made.item.instruction,
            images=(made.image,),
            kind="continuation",
            category=made.item.category,
        )
        for made in items(count, seed)
    ]


def write(folder: Path, trajectories: Sequence[Trajectory], *, with_text: bool) -> None:
    """``images/{category}/{index}.png``: the last picture of each sequence."""
    for trajectory in trajectories:
        image = last_image(trajectory)
        if image is not None:
            index = trajectory.request.id.removeprefix(f"{NAME}/")
            path = folder / "images" / trajectory.request.category / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)


def grade(folder: Path, count: int, seed: int) -> Graded:
    """Judge every picture; an item without one gets the lowest grades."""
    chosen = items(count, seed)
    grades: dict[str, Grades | None] = {}
    for made in chosen:
        path = folder / "images" / made.item.category / f"{made.item.index}.png"
        image = path.read_bytes() if path.exists() else None
        grades[made.item.index] = judge(image, made)
    scores = rise.score([made.item for made in chosen], grades)
    return Graded(
        protocol=PROTOCOL,
        judge=JUDGE,
        items=scores.items,
        strata={made.item.index: "" for made in chosen},  # micro average
        weights={},
        parts={"weighted": scores.weighted, **scores.categories},
        unjudged=scores.unjudged,
    )


def judge(image: bytes | None, made: PocketItem) -> Grades:
    """RISE's three grades of an edited picture."""
    if image is None:
        return Grades(1, 1, 1)
    goal = Goal(scenes=(made.after,), before=made.before)
    verdict = verifier.judge(reading(image), goal)
    return Grades(verdict.consistency, verdict.knowledge, verdict.craft)
