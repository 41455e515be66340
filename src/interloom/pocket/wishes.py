"""What people wish for, of nothing or of one or two pictures: an instruction and its scenes.

Each writer draws one wish, or ``None`` where the drawn scenes do not allow it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from interloom.pocket import knowledge
from interloom.pocket.knowledge import Split
from interloom.pocket.language import describe_edit, describe_scene
from interloom.pocket.meaning import pose_riddle
from interloom.pocket.reasoning import RuleError, applicable, example_scene, rule_instructions
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
)
from interloom.pocket.several import Combination, describe_combination

Wish = tuple[str, tuple[Scene, ...]]
"""An instruction and the scenes of its pictures."""
Writer = Callable[[random.Random], Wish | None]


def picture(things: Sequence[int]) -> Writer:
    """A whole picture of so many things."""

    def write(rng: random.Random) -> Wish:
        scene = random_scene(rng, rng.choice(things))
        return describe_scene(scene, "canonical", rng), ()

    return write


def orders(operations: Sequence[Operation], most: int = 3) -> Writer:
    """One to ``most`` edits of one picture in a row."""

    def write(rng: random.Random) -> Wish | None:
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


def all_in_one_colour(rng: random.Random) -> Wish | None:
    """Style: everything in one colour."""
    start = scene = random_scene(rng, rng.randint(2, 4))
    colour, said = rng.choice(tuple(COLOURS)), []
    for cell, sprite in start.sprites():
        if sprite.colour != colour:
            edit = Edit("recolour", at=cell, colour=colour)
            said.append(describe_edit(edit, scene))
            scene = apply(scene, edit)
    return ("; ".join(said), (start,)) if said else None


def another_shape(rng: random.Random) -> Wish | None:
    """Attribute: another shape in the same colour."""
    start = random_scene(rng, rng.randint(1, 5))
    cell, sprite = rng.choice(list(start.sprites()))
    kind = rng.choice([kind for kind in KINDS if kind != sprite.kind])
    edit = Edit("replace", at=cell, sprite=Sprite(sprite.colour, kind))
    return describe_edit(edit, start), (start,)


def rule(category: str, *, whole_scene: bool, side: Split | None) -> Writer:
    """A reasoning rule of one RISE category, about a thing or about the whole scene."""

    def write(rng: random.Random) -> Wish | None:
        rules = [
            one
            for one in knowledge.reasoning_rules(side)
            if one.category == category and (one.scene is not None) == whole_scene
        ]
        if not rules:
            return None
        chosen = rng.choice(rules)
        try:
            scene, cell = example_scene(chosen, rng, rng.randint(1, 4))
        except RuleError:
            return None
        assert cell in applicable(chosen, scene)
        return rng.choice(rule_instructions(chosen, scene, cell)), (scene,)

    return write


def riddle(side: Split | None) -> Writer:
    """A picture one of whose things is described by a fact."""

    def write(rng: random.Random) -> Wish | None:
        chosen = rng.choice(knowledge.riddles(side))
        scene = random_scene(rng, rng.randint(1, 3))
        cell = rng.choice([cell for cell, _ in scene.sprites()])
        scene = scene.with_cell(cell, chosen.answer)
        if sum(sprite == chosen.answer for sprite in scene.cells) > 1:
            return None
        text = describe_scene(scene, "canonical", rng)
        return pose_riddle(text, chosen, rng.choice(chosen.phrases)), ()

    return write


def combine(kind: Combination) -> Writer:
    """Two pictures put together."""

    def write(rng: random.Random) -> Wish | None:
        first, second = random_scene(rng, rng.randint(1, 3)), random_scene(rng, rng.randint(1, 3))
        text = describe_combination(kind, first, second, rng)
        return None if text is None else (text, (first, second))

    return write
