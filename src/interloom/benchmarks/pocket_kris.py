"""KRIS-Bench's pocket edition: edits that take no knowledge, that take some, and that take steps.

- factual: recolour, add or remove, move (plain edits to scenes of the evaluation split), turn the
  whole picture, let time pass (rules of the evaluation split)
- conceptual: put something there that is named by a riddle of the evaluation split
- procedural: logical and causal rules of the evaluation split, three edits at once, a thing taken
  from another picture

Folders without a counterpart in this world (sizes, parts, anomalies, mathematics, medicine) are
left out. The four grades are the verifier's axes; an empty page has the lowest quality.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from interloom.backends.pocket import read_ahead, reading
from interloom.benchmarks import kris
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.kris import KNOWLEDGE, Grades, Item
from interloom.benchmarks.pocket_scenes import (
    carry_out,
    draw,
    edit_to_evaluation,
    evaluation_scene,
    is_empty,
)
from interloom.pocket import references, verifier
from interloom.pocket.goal import Goal
from interloom.pocket.knowledge import reasoning_rules, riddles
from interloom.pocket.language import describe_edit
from interloom.pocket.meaning import pose_riddle
from interloom.pocket.reasoning import example_scene, rule_instructions, rule_result
from interloom.pocket.scene import (
    OPERATIONS,
    POSITIONS,
    Edit,
    Operation,
    Scene,
    apply,
    edits_between,
    random_scene,
    random_sprite,
    scene_split,
)
from interloom.records import Request
from interloom.seeding import derive_seed

NAME = kris.NAME
PROTOCOL = f"{kris.PROTOCOL}, pocket edition 1"
JUDGE = "pocket-verifier"
THINGS = (2, 3)
write = kris.write


class Made(NamedTuple):
    """What an item asks: the last picture edited to ``after``, ``fact`` being known."""

    instruction: str
    before: Scene
    after: Scene
    fact: str = ""
    others: tuple[Scene, ...] = ()
    """Pictures before the one that is edited."""


@dataclass(frozen=True)
class PocketItem:
    """A published-layout item and the scenes of its edit."""

    item: Item
    before: Scene
    after: Scene


def _plain(*operations: Operation) -> Callable[[random.Random], Made]:
    def make(rng: random.Random) -> Made:
        operation = rng.choice(operations)
        # One thing less must still be two, as scenes of one thing are for training.
        things = (3, 4) if operation == "remove" else THINGS
        before, edit, after = edit_to_evaluation(rng, things, operation)
        return Made(describe_edit(edit, before, "paraphrased", rng), before, after)

    return make


def _rule(category: str, scenes: bool | None = None) -> Callable[[random.Random], Made]:
    """An edit by a rule; ``scenes`` chooses those that turn the whole picture, or the others."""

    def make(rng: random.Random) -> Made:
        bank = [
            rule
            for rule in reasoning_rules("evaluation")
            if rule.category == category and scenes in (None, rule.scene is not None)
        ]
        rule = rng.choice(bank)
        while True:
            before, cell = example_scene(rule, rng, rng.choice((3, 4)))
            after, _ = rule_result(rule, before, cell)
            # Where little is left to be seen, an empty page would be half right.
            if scene_split(before) == "evaluation" and after.count >= 2:
                break
        said = rng.choice(rule_instructions(rule, before, cell))
        return Made(said, before, after, rule.auxiliary_text)

    return make


def _riddle(category: str) -> Callable[[random.Random], Made]:
    def make(rng: random.Random) -> Made:
        riddle = rng.choice([r for r in riddles("evaluation") if r.category == category])
        while True:
            before = evaluation_scene(rng, THINGS)
            cell = rng.choice([cell for cell, _ in before.sprites()])
            if before.cells[cell] != riddle.answer:
                break
        edit = Edit("replace", at=cell, sprite=riddle.answer)
        if rng.random() < 0.5:
            edit = Edit("add", at=rng.choice(before.empty()), sprite=riddle.answer)
        said = pose_riddle(describe_edit(edit, before), riddle, rng.choice(riddle.phrases))
        return Made(said, before, apply(before, edit), riddle.fact)

    return make


def _several(rng: random.Random) -> Made:
    """Three edits in one instruction, none of which undoes another."""
    while True:
        before = random_scene(rng, 3)
        made = carry_out(rng, before, rng.sample(OPERATIONS, 3))
        if made is None:
            continue
        scenes, said = made
        whole = len(edits_between(before, scenes[-1])) >= 3
        if whole and scene_split(scenes[-1]) == "evaluation":
            return Made("; ".join(said), before, scenes[-1])


def _composed(rng: random.Random) -> Made:
    """A thing of one picture put into another one."""
    while True:
        sprite = random_sprite(rng)
        before = random_scene(rng, rng.choice(THINGS))
        cell = rng.choice(before.empty())
        after = before.with_cell(cell, sprite)
        if scene_split(after) == "evaluation":
            said = f"add {references.refer(1)} at the {POSITIONS[cell]}"
            return Made(said, before, after, others=(Scene.of({4: sprite}),))


MAKERS: dict[str, Callable[[random.Random], Made]] = {
    "color_change": _plain("recolour"),
    "count_change": _plain("add", "remove"),
    "position_movement": _plain("move"),
    "viewpoint_change": _rule("spatial", True),
    "temporal_prediction": _rule("temporal"),
    "humanities": _riddle("culture"),
    "practical_knowledge": _riddle("time"),
    "geography": _riddle("space"),
    "biology": _riddle("biology"),
    "physics": _riddle("physics"),
    "chemistry": _riddle("chemistry"),
    "abstract_reasoning": _rule("logical"),
    "rule-based_reasoning": _rule("causal"),
    "multi-instruction_execution": _several,
    "multi-element_composition": _composed,
}
"""What stands for each folder."""


@lru_cache(maxsize=4)
def items(count: int, seed: int) -> tuple[PocketItem, ...]:
    """``count`` items at most, spread evenly over types, then over the folders of each type."""
    by_type: dict[str, list[str]] = {}
    for category in MAKERS:
        by_type.setdefault(Item(category, "", "").type, []).append(category)
    made: list[PocketItem] = []
    for folders in by_type.values():
        for number in range(count // len(by_type)):
            category = folders[number % len(folders)]
            key = str(number // len(folders) + 1)
            rng = random.Random(derive_seed(seed, NAME, category, key))
            made.append(_item(category, key, rng))
    return tuple(made)


def _item(category: str, key: str, rng: random.Random) -> PocketItem:
    made = MAKERS[category](rng)
    shown = tuple(draw(scene, rng) for scene in (*made.others, made.before))
    right = draw(made.after, rng)
    item = Item(category, key, made.instruction, shown, right, made.fact)
    return PocketItem(item, made.before, made.after)


def published(count: int, seed: int) -> list[Item]:
    """The items as they are published."""
    return [made.item for made in items(count, seed)]


def requests(count: int, seed: int) -> list[Request]:
    """The items as requests."""
    return kris.requests(published(count, seed))


def grade(folder: Path, count: int, seed: int) -> Graded:
    """Judge every picture; an item without one gets the lowest grades."""
    chosen = items(count, seed)
    pictures = {made.item.id: kris.image_of(made.item, folder) for made in chosen}
    read_ahead(pictures.values())
    grades = {made.item.id: judge(pictures[made.item.id], made) for made in chosen}
    return kris.graded(published(count, seed), grades, protocol=PROTOCOL, judge=JUDGE)


def judge(image: bytes | None, made: PocketItem) -> Grades:
    """KRIS-Bench's grades of an edited picture."""
    knows = made.item.category in KNOWLEDGE
    if image is None:
        return Grades(1, 1, 1, 1 if knows else None)
    seen = reading(image)
    verdict = verifier.judge(seen, Goal(scenes=(made.after,), before=made.before))
    return Grades(
        verdict.consistency,
        1 if is_empty(seen) and made.after.count else verdict.craft,
        verdict.instruction,
        verdict.knowledge if knows else None,
    )
