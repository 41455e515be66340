"""What a reasoning rule does to a scene: where it applies, how it is said and what comes of it.

A rule speaks about one *cell*, where its subject stands; the cell of a whole-scene rule is
``None``. Its templates know these slots (a rule does not apply where one of them is missing):

- ``{at}``: the subject's position; ``{subject}``, ``{colour}``, ``{kind}``: what stands there;
- a place of :func:`places`, such as ``{above}``: that cell's position name; if something stands
  there also ``{above_sprite}``, ``{above_colour}`` and ``{above_kind}``;
- ``{next_colour}``, ``{previous_colour}``, ``{opposite_colour}`` on the painters' wheel, and
  ``{next_shape}`` in the round of geometric kinds.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

from interloom.pocket.knowledge import ReasoningRule, SceneOperation
from interloom.pocket.scene import (
    CELLS,
    GRID,
    POSITIONS,
    SPRITES,
    Edit,
    Scene,
    Sprite,
    apply,
    random_scene,
)
from interloom.pocket.templates import carry_out, fill

COLOUR_WHEEL = ("red", "orange", "yellow", "green", "blue", "purple")
SHAPE_ROUND = ("circle", "triangle", "square", "cross")


class RuleError(ValueError):
    """A reasoning rule that does not apply to a scene, with the reason."""


# ---------------------------------------------------------------------------------- places

_OFFSETS = {
    "above": (-1, 0), "below": (1, 0), "left": (0, -1), "right": (0, 1),
    "far_above": (-2, 0), "far_below": (2, 0), "far_left": (0, -2), "far_right": (0, 2),
    "below_right": (1, 1), "far_below_right": (2, 2),
}  # fmt: skip
_RING = (0, 1, 2, 5, 8, 7, 6, 3)


@cache
def places(cell: int) -> Mapping[str, int]:
    """The cells that have a name as seen from a cell; a place that does not exist is left out.

    ``above`` … ``below_right`` are one step away and ``far_…`` two; ``north``, ``south``, ``west``
    and ``east`` are the ends of the column and row; ``mirror`` exchanges left and right, ``flip``
    top and bottom, ``opposite`` both; ``clockwise`` is the next cell of the border.

    >>> places(1)["below"], places(1)["opposite"], "above" in places(1)
    (4, 7, False)
    """
    row, column = divmod(cell, GRID)
    last = GRID - 1
    grid = {name: (row + down, column + right) for name, (down, right) in _OFFSETS.items()}
    grid |= {
        "north": (0, column), "south": (last, column), "west": (row, 0), "east": (row, last),
        "mirror": (row, last - column), "flip": (last - row, column),
        "opposite": (last - row, last - column), "center": (1, 1),
    }  # fmt: skip
    found = {n: r * GRID + c for n, (r, c) in grid.items() if 0 <= r < GRID and 0 <= c < GRID}
    if cell in _RING:
        here = _RING.index(cell)
        found |= {"clockwise": _RING[(here + 1) % 8], "counterclockwise": _RING[here - 1]}
    return {name: place for name, place in found.items() if place != cell}


# ---------------------------------------------------------------------------------- rules


def matches(pattern: str, sprite: Sprite | None) -> bool:
    """Whether a sprite fits a pattern: colour and kind, each ``*`` or alternatives with ``/``.

    >>> matches("red/blue *", Sprite("red", "cup")), matches("*", None), matches("empty", None)
    (True, False, True)
    """
    if pattern == "empty" or sprite is None:
        return pattern == "empty" and sprite is None
    colours, kinds = ("*", "*") if pattern == "*" else pattern.split()
    return all(
        allowed == "*" or value in allowed.split("/")
        for allowed, value in ((colours, sprite.colour), (kinds, sprite.kind))
    )


def _following(round_: tuple[str, ...], value: str, steps: int) -> str:
    return round_[(round_.index(value) + steps) % len(round_)]


def _slots(scene: Scene, cell: int | None) -> dict[str, str]:
    sprite = scene.cells[cell] if cell is not None else None
    if cell is None or sprite is None:
        return {}
    colour, kind = sprite
    slots = {"at": POSITIONS[cell], "subject": str(sprite), "colour": colour, "kind": kind}
    if colour in COLOUR_WHEEL:
        slots["next_colour"] = _following(COLOUR_WHEEL, colour, 1)
        slots["previous_colour"] = _following(COLOUR_WHEEL, colour, -1)
        slots["opposite_colour"] = _following(COLOUR_WHEEL, colour, len(COLOUR_WHEEL) // 2)
    if kind in SHAPE_ROUND:
        slots["next_shape"] = _following(SHAPE_ROUND, kind, 1)
    for name, place in places(cell).items():
        slots[name] = POSITIONS[place]
        other = scene.cells[place]
        if other:
            slots[f"{name}_sprite"] = str(other)
            slots[f"{name}_colour"], slots[f"{name}_kind"] = other
    return slots


def rule_instructions(rule: ReasoningRule, scene: Scene, cell: int | None) -> list[str]:
    """The rule's wordings, said about this cell; none of them names the result."""
    slots = _slots(scene, cell)
    return [fill(template, slots) for template in rule.instruction]


def _pairs(operation: SceneOperation) -> Iterable[tuple[int, int]]:
    """The exchanges of cells that, one after the other, carry out a whole-scene operation."""
    last = GRID - 1
    mirror = [(r * GRID, r * GRID + last) for r in range(GRID)]
    flip = [(c, last * GRID + c) for c in range(GRID)]
    transpose = [(r * GRID + c, c * GRID + r) for r in range(GRID) for c in range(r)]
    steps = {
        "mirror": mirror,
        "flip": flip,
        "rotate": transpose + mirror,  # a quarter turn clockwise
        "half_turn": mirror + flip,
    }
    return steps[operation]


def _rearrange(scene: Scene, operation: SceneOperation) -> tuple[Scene, list[Edit]]:
    edits = []
    for one, other in _pairs(operation):
        here, there = scene.cells[one], scene.cells[other]
        if here == there:
            continue
        if here and there:
            edit = Edit("swap", at=one, to=other)
        elif here:
            edit = Edit("move", at=one, to=other)
        else:
            edit = Edit("move", at=other, to=one)
        scene = apply(scene, edit)
        edits.append(edit)
    return scene, edits


def _check(rule: ReasoningRule, scene: Scene, cell: int | None) -> None:
    if rule.background not in (None, scene.background):
        raise RuleError(f"{rule.id} wants the background {rule.background}")
    if (rule.subject is None) != (cell is None):
        raise RuleError(f"{rule.id} and cell {cell} do not go together")
    if rule.subject is None or cell is None:
        return
    sprite = scene.cells[cell]
    if not matches(rule.subject, sprite):
        raise RuleError(f"{rule.id} is about a {rule.subject}, not {sprite}")
    slots, near = _slots(scene, cell), places(cell)
    for name, pattern in rule.when:
        if name not in near or not matches(fill(pattern, slots), scene.cells[near[name]]):
            raise RuleError(f"{rule.id} wants {pattern} at the place {name}")


def rule_result(
    rule: ReasoningRule, scene: Scene, cell: int | None = None
) -> tuple[Scene, list[Edit]]:
    """What the picture shows after the rule, and the edits that lead there in order.

    Raises:
        RuleError: the rule does not apply to that cell of the scene, or would change nothing.
    """
    _check(rule, scene, cell)
    if rule.scene:
        after, edits = _rearrange(scene, rule.scene)
    else:
        try:
            after, edits = carry_out(fill("; ".join(rule.edits), _slots(scene, cell)), scene)
        except KeyError as error:
            raise RuleError(f"{rule.id}: there is no {error.args[0]} here") from error
        except ValueError as error:
            raise RuleError(f"{rule.id}: {error}") from error
    if after == scene:
        raise RuleError(f"{rule.id} changes nothing here")
    return after, edits


def applicable(rule: ReasoningRule, scene: Scene) -> list[int | None]:
    """The cells to whose sprites the rule applies; ``[None]`` if a whole-scene rule does."""
    cells = [None] if rule.subject is None else [cell for cell, _ in scene.sprites()]
    found: list[int | None] = []
    for cell in cells:
        try:
            rule_result(rule, scene, cell)
        except RuleError:
            continue
        found.append(cell)
    return found


def _plant(rule: ReasoningRule, scene: Scene, cell: int, rng: random.Random) -> Scene:
    assert rule.subject is not None, rule
    pattern = rule.subject
    scene = scene.with_cell(cell, rng.choice([s for s in SPRITES if matches(pattern, s)]))
    slots, near = _slots(scene, cell), places(cell)
    for name, wanted in rule.when:
        if name in near:
            fitting = [s for s in SPRITES if matches(fill(wanted, slots), s)]
            scene = scene.with_cell(near[name], rng.choice(fitting) if fitting else None)
    return scene


def example_scene(
    rule: ReasoningRule, rng: random.Random, count: int = 3
) -> tuple[Scene, int | None]:
    """A random scene made to fit the rule, and a cell to which the rule applies.

    About ``count`` sprites: the subject and its neighbourhood are put over a random scene.

    Raises:
        RuleError: none found in 1,000 tries, so the rule's text contradicts itself.
    """
    for _ in range(1000):
        scene = random_scene(rng, count)
        cell = None if rule.subject is None else rng.randrange(CELLS)
        if rule.background:
            scene = replace(scene, background=rule.background)
        if cell is not None:
            scene = _plant(rule, scene, cell, rng)
        if cell in applicable(rule, scene):
            return scene, cell
    raise RuleError(f"{rule.id} applies to no scene")
