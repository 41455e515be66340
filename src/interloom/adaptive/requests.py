"""Requests for the adaptive reasoner: 21 sub-categories of editing and drawing in six groups.

SAIR's groups (§3.1) with sub-categories that the pocket world can draw and verify; a file of other
people's requests brings its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from interloom import images
from interloom.adaptive.story import Prompt
from interloom.construct.files import Place, read_lines
from interloom.errors import InterloomError
from interloom.pocket import knowledge
from interloom.pocket.language import MeaningError, describe_edit, describe_scene
from interloom.pocket.meaning import pose_riddle
from interloom.pocket.reasoning import RuleError, applicable, example_scene, rule_instructions
from interloom.pocket.render import render
from interloom.pocket.scene import (
    COLOURS,
    KINDS,
    Edit,
    Operation,
    Scene,
    Sprite,
    apply,
    random_edit,
    random_scene,
    scene_split,
)
from interloom.pocket.several import Combination, describe_combination, understand_all
from interloom.seeding import derive_seed

Drawn = tuple[str, tuple[Scene, ...]]
"""An instruction and the scenes of its pictures."""
Writer = Callable[[random.Random], Drawn | None]
TRIES = 400
"""Draws for one request before its sub-category counts as empty."""


def _picture(things: tuple[int, ...]) -> Writer:
    def write(rng: random.Random) -> Drawn:
        scene = random_scene(rng, rng.choice(things))
        return describe_scene(scene, "canonical", rng), ()

    return write


def _edits(operations: tuple[Operation, ...], most: int = 3) -> Writer:
    """One to ``most`` edits of one picture, as orders in a row."""

    def write(rng: random.Random) -> Drawn | None:
        start = scene = random_scene(rng, rng.randint(2, 6))
        said = []
        for _ in range(rng.randint(1, most)):
            edit = random_edit(rng, scene, rng.choice(operations))
            if edit is None:
                return None
            form = "canonical" if rng.random() < 0.7 else "paraphrased"
            said.append(describe_edit(edit, scene, form, rng))
            scene = apply(scene, edit)
        return None if scene == start else ("; ".join(said), (start,))

    return write


def _all_in_one_colour(rng: random.Random) -> Drawn | None:
    """Style: everything in one colour."""
    start = scene = random_scene(rng, rng.randint(2, 4))
    colour, said = rng.choice(tuple(COLOURS)), []
    for cell, sprite in start.sprites():
        if sprite.colour != colour:
            edit = Edit("recolour", at=cell, colour=colour)
            said.append(describe_edit(edit, scene))
            scene = apply(scene, edit)
    return ("; ".join(said), (start,)) if said else None


def _another_shape(rng: random.Random) -> Drawn | None:
    """Attribute: another shape in the same colour."""
    start = random_scene(rng, rng.randint(1, 5))
    cell, sprite = rng.choice(list(start.sprites()))
    kind = rng.choice([kind for kind in KINDS if kind != sprite.kind])
    edit = Edit("replace", at=cell, sprite=Sprite(sprite.colour, kind))
    return describe_edit(edit, start), (start,)


def _rule(category: str, whole_scene: bool) -> Writer:
    """A reasoning rule of one RISE category, about a thing or about the whole scene."""

    def write(rng: random.Random) -> Drawn | None:
        rules = [
            rule
            for rule in knowledge.reasoning_rules("train")
            if rule.category == category and (rule.scene is not None) == whole_scene
        ]
        if not rules:
            return None
        rule = rng.choice(rules)
        try:
            scene, cell = example_scene(rule, rng, rng.randint(1, 4))
        except RuleError:
            return None
        assert cell in applicable(rule, scene)
        return rng.choice(rule_instructions(rule, scene, cell)), (scene,)

    return write


def _riddle(rng: random.Random) -> Drawn | None:
    riddle = rng.choice(knowledge.riddles("train"))
    scene = random_scene(rng, rng.randint(1, 3))
    cell = rng.choice([cell for cell, _ in scene.sprites()])
    scene = scene.with_cell(cell, riddle.answer)
    if sum(sprite == riddle.answer for sprite in scene.cells) > 1:
        return None
    text = describe_scene(scene, "canonical", rng)
    return pose_riddle(text, riddle, rng.choice(riddle.phrases)), ()


def _combine(kind: Combination) -> Writer:
    def write(rng: random.Random) -> Drawn | None:
        first, second = random_scene(rng, rng.randint(1, 3)), random_scene(rng, rng.randint(1, 3))
        text = describe_combination(kind, first, second, rng)
        return None if text is None else (text, (first, second))

    return write


@dataclass(frozen=True)
class Subcategory:
    """One of the 21, and how its pocket edition is written."""

    group: str
    name: str
    write: Writer
    weight: int = 1
    """How often it is asked, against the others."""


SUBCATEGORIES: tuple[Subcategory, ...] = (
    Subcategory("object manipulation", "addition", _edits(("add",))),
    Subcategory("object manipulation", "removal", _edits(("remove",))),
    Subcategory("object manipulation", "replacement", _edits(("replace",))),
    Subcategory("object manipulation", "mixed orders", _edits(("add", "remove", "replace"), 4)),
    Subcategory("attribute modification", "colour", _edits(("recolour",))),
    Subcategory("attribute modification", "shape", _another_shape),
    Subcategory("attribute modification", "colour and presence", _edits(("recolour", "remove"))),
    Subcategory("spatial and viewpoint", "moving", _edits(("move",))),
    Subcategory("spatial and viewpoint", "exchanging", _edits(("swap",), 2)),
    Subcategory("spatial and viewpoint", "mirroring and turning", _rule("spatial", True)),
    Subcategory("spatial and viewpoint", "relative places", _rule("spatial", False)),
    Subcategory("global and style", "time of day", _edits(("background",), 1)),
    Subcategory("global and style", "one colour for all", _all_in_one_colour),
    Subcategory("global and style", "simple pictures", _picture((1, 2)), 2),
    Subcategory("global and style", "crowded pictures", _picture((3, 4, 5, 6)), 4),
    Subcategory("dynamics and logic", "what happens next", _rule("temporal", False)),
    Subcategory("dynamics and logic", "what follows", _rule("causal", False)),
    Subcategory("dynamics and logic", "riddles", _riddle),
    Subcategory("multi-image", "subject transfer", _combine("subject")),
    Subcategory("multi-image", "background transfer", _combine("background")),
    Subcategory("multi-image", "merging", _combine("merge")),
)
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(one.group for one in SUBCATEGORIES))
CATEGORIES: tuple[str, ...] = tuple(f"{one.group}/{one.name}" for one in SUBCATEGORIES)


def pocket_prompts(count: int, seed: int) -> list[Prompt]:
    """``count`` different requests of the training side, over the sub-categories by their weights.

    Raises:
        InterloomError: a sub-category has no further ones.
    """
    turns = [sub for sub in SUBCATEGORIES for _ in range(sub.weight)]
    prompts: list[Prompt] = []
    taken: set[str] = set()
    for number in range(count):
        sub = turns[number % len(turns)]
        rng = random.Random(derive_seed(seed, "adaptive", number))
        prompts.append(_new(sub, number, rng, taken))
    return prompts


def _new(sub: Subcategory, number: int, rng: random.Random, taken: set[str]) -> Prompt:
    for _ in range(TRIES):
        try:
            drawn = sub.write(rng)
            if drawn is None or not _trained(*drawn):
                continue
        except MeaningError:
            continue
        text, scenes = drawn
        key = f"{text}|{scenes}"
        if key in taken:
            continue
        taken.add(key)
        return Prompt(
            id=f"adaptive/{number:06d}",
            instruction=text,
            references=tuple(
                images.to_png(render(scene, jitter_seed=rng.getrandbits(31))) for scene in scenes
            ),
            category=f"{sub.group}/{sub.name}",
        )
    raise InterloomError(
        f"adaptive_data.count: the sub-category {sub.name!r} has no further requests: lower it"
    )


def _trained(text: str, scenes: tuple[Scene, ...]) -> bool:
    """Whether what is asked for is on the training side."""
    goal = understand_all(text, scenes).goal
    return not goal.scenes or any(scene_split(scene) == "train" for scene in goal.scenes)


def read_prompts(path: Path) -> Iterator[Prompt]:
    """Requests of a JSONL file: ``instruction``, and if they like ``id``, ``category`` and
    ``images`` (paths beside the file).

    Raises:
        InterloomError: naming the file, the record and the field.
    """
    for number, value in enumerate(read_lines(path)):
        record = Place(path, f"record {number}", value)
        names = record.get("images", list) if record.has("images") else []
        try:
            yield Prompt(
                id=record.get("id", str) if record.has("id") else f"{path.stem}/{number:06d}",
                instruction=record.get("instruction", str),
                references=tuple(record.read_image("images", str(name)) for name in names),
                category=record.get("category", str) if record.has("category") else "",
            )
        except ValueError as error:
            raise record.wrong("instruction", str(error)) from error
