"""Scenes of the pocket world and the edits that change them.

A scene is a 3×3 grid of cells, each empty or holding one sprite (a colour and a kind), under one
global background. Everything here is a plain value: scenes and edits hash, compare and print.

Cells are numbered row by row: 0 is the top left, 4 the centre, 8 the bottom right.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 38, 45),
    "orange": (248, 142, 24),
    "yellow": (250, 220, 50),
    "green": (40, 162, 72),
    "blue": (45, 92, 226),
    "purple": (150, 60, 185),
    "brown": (122, 72, 38),
}
GEOMETRIC_KINDS = ("circle", "square", "triangle", "cross")
PICTORIAL_KINDS = (
    "sun", "moon", "star", "cloud", "tree", "house", "flower", "sprout", "cup", "fish",
)  # fmt: skip
KINDS = GEOMETRIC_KINDS + PICTORIAL_KINDS
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "day": (226, 239, 250),
    "dusk": (214, 178, 206),
    "night": (24, 28, 66),
}
POSITIONS = (
    "top left", "top center", "top right",
    "middle left", "center", "middle right",
    "bottom left", "bottom center", "bottom right",
)  # fmt: skip
GRID = 3
CELLS = GRID * GRID


class Sprite(NamedTuple):
    """A coloured object, e.g. ``Sprite("yellow", "moon")``."""

    colour: str
    kind: str

    def __str__(self) -> str:
        return f"{self.colour} {self.kind}"


SPRITES = tuple(Sprite(colour, kind) for kind in KINDS for colour in COLOURS)


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows: nine cells and a background.

    >>> scene = Scene.of({0: Sprite("red", "sun")}, "night")
    >>> scene.count, scene.cells[0].kind
    (1, 'sun')
    """

    cells: tuple[Sprite | None, ...] = (None,) * CELLS
    background: str = "day"

    def __post_init__(self) -> None:
        assert len(self.cells) == CELLS and self.background in BACKGROUNDS, self

    @classmethod
    def of(cls, sprites: dict[int, Sprite], background: str = "day") -> Scene:
        return cls(tuple(sprites.get(cell) for cell in range(CELLS)), background)

    @property
    def count(self) -> int:
        """Number of sprites."""
        return sum(sprite is not None for sprite in self.cells)

    def sprites(self) -> Iterator[tuple[int, Sprite]]:
        """Occupied cells in reading order, as ``(cell, sprite)``."""
        return ((cell, sprite) for cell, sprite in enumerate(self.cells) if sprite)

    def empty(self) -> list[int]:
        return [cell for cell, sprite in enumerate(self.cells) if sprite is None]

    def with_cell(self, cell: int, sprite: Sprite | None) -> Scene:
        return replace(self, cells=(*self.cells[:cell], sprite, *self.cells[cell + 1 :]))

    def difference(self, other: Scene) -> list[int]:
        """Cells in which the two scenes differ (the background is not a cell)."""
        return [i for i, (a, b) in enumerate(zip(self.cells, other.cells, strict=True)) if a != b]


Operation = Literal["add", "remove", "recolour", "replace", "move", "swap", "background"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)


@dataclass(frozen=True, slots=True)
class Edit:
    """One atomic change. Fields that an operation does not use are ``None``.

    ========== ======================================== ==========================
    operation  uses                                     needs
    ========== ======================================== ==========================
    add        ``at``, ``sprite`` (what appears)        ``at`` empty
    remove     ``at``                                   ``at`` occupied
    recolour   ``at``, ``colour``                       ``at`` occupied
    replace    ``at``, ``sprite`` (what is there then)  ``at`` occupied
    move       ``at``, ``to``                           ``at`` occupied, ``to`` empty
    swap       ``at``, ``to``                           both occupied
    background ``background``
    ========== ======================================== ==========================
    """

    operation: Operation
    at: int | None = None
    to: int | None = None
    sprite: Sprite | None = None
    colour: str | None = None
    background: str | None = None


class EditError(ValueError):
    """An edit that the scene does not allow, with the reason."""


def apply(scene: Scene, edit: Edit) -> Scene:
    """The scene after the edit.

    Raises:
        EditError: the cell is empty, occupied or the edit would change nothing.
    """
    if edit.operation == "background":
        if edit.background == scene.background:
            raise EditError(f"the background is {scene.background} already")
        assert edit.background is not None
        return replace(scene, background=edit.background)
    assert edit.at is not None, edit
    here = scene.cells[edit.at]
    where = POSITIONS[edit.at]
    if edit.operation == "add":
        if here is not None:
            raise EditError(f"cannot add at the {where}: a {here} is there")
        return scene.with_cell(edit.at, edit.sprite)
    if here is None:
        raise EditError(f"cannot {edit.operation} at the {where}: nothing is there")
    if edit.operation == "remove":
        return scene.with_cell(edit.at, None)
    if edit.operation in ("recolour", "replace"):
        new = Sprite(edit.colour, here.kind) if edit.colour else edit.sprite
        if new == here:
            raise EditError(f"the {where} holds a {here} already")
        return scene.with_cell(edit.at, new)
    assert edit.to is not None, edit
    there = scene.cells[edit.to]
    if edit.operation == "move" and there is not None:
        raise EditError(f"cannot move to the {POSITIONS[edit.to]}: a {there} is there")
    if edit.operation == "swap" and there is None:
        raise EditError(f"cannot swap with the {POSITIONS[edit.to]}: nothing is there")
    if here == there:
        raise EditError("swapping two equal sprites changes nothing")
    return scene.with_cell(edit.at, there).with_cell(edit.to, here)


def random_sprite(rng: random.Random) -> Sprite:
    return SPRITES[rng.randrange(len(SPRITES))]


def random_scene(rng: random.Random, count: int) -> Scene:
    """A scene with ``count`` sprites; half of all scenes are by day."""
    cells = rng.sample(range(CELLS), count)
    background = rng.choices(tuple(BACKGROUNDS), (2, 1, 1))[0]
    return Scene.of({cell: random_sprite(rng) for cell in cells}, background)


def random_edit(  # noqa: PLR0911 - one return per operation
    rng: random.Random, scene: Scene, operation: Operation
) -> Edit | None:
    """A valid edit of that operation, or ``None`` where the scene allows none."""
    full = [cell for cell, _ in scene.sprites()]
    empty = scene.empty()
    if operation == "background":
        others = [name for name in BACKGROUNDS if name != scene.background]
        return Edit("background", background=rng.choice(others))
    if operation == "add":
        return Edit("add", at=rng.choice(empty), sprite=random_sprite(rng)) if empty else None
    if not full:
        return None
    at = rng.choice(full)
    here = scene.cells[at]
    assert here is not None
    if operation == "remove":
        return Edit("remove", at=at)
    if operation == "recolour":
        return Edit("recolour", at=at, colour=rng.choice([c for c in COLOURS if c != here.colour]))
    if operation == "replace":
        kind = rng.choice([k for k in KINDS if k != here.kind])
        return Edit("replace", at=at, sprite=Sprite(rng.choice(tuple(COLOURS)), kind))
    if operation == "move":
        return Edit("move", at=at, to=rng.choice(empty)) if empty else None
    others = [cell for cell in full if scene.cells[cell] != here]
    return Edit("swap", at=at, to=rng.choice(others)) if others else None


Split = Literal["train", "evaluation"]


def scene_split(scene: Scene) -> Split:
    """Which side of the train/evaluation line a scene stands on, by its content alone.

    One tenth of all scenes with two or more sprites is evaluation. The background is left out of
    the hash, so that changing it never carries a scene across the line.
    """
    if scene.count < 2:
        return "train"
    text = "|".join(str(sprite) if sprite else "" for sprite in scene.cells)
    digest = hashlib.sha256(text.encode()).digest()
    return "evaluation" if digest[0] < 26 else "train"


def edits_between(before: Scene, after: Scene) -> list[Edit]:
    """Atomic edits that turn one scene into the other, cells first and the background last.

    A sprite that vanishes from one cell and appears in an empty one has moved; two that changed
    places were swapped; the rest is added, removed, recoloured or replaced cell by cell.
    """
    edits: list[Edit] = []
    open_cells = before.difference(after)
    for at in list(open_cells):
        if at not in open_cells or before.cells[at] is None:
            continue
        for to in open_cells:
            exchanged = before.cells[at] == after.cells[to] and before.cells[to] == after.cells[at]
            if to != at and exchanged:
                operation = "move" if before.cells[to] is None else "swap"
                edits.append(Edit(operation, at=at, to=to))
                open_cells = [cell for cell in open_cells if cell not in (at, to)]
                break
    for cell in open_cells:
        here, new = before.cells[cell], after.cells[cell]
        if here is None:
            edits.append(Edit("add", at=cell, sprite=new))
        elif new is None:
            edits.append(Edit("remove", at=cell))
        elif here.kind == new.kind:
            edits.append(Edit("recolour", at=cell, colour=new.colour))
        else:
            edits.append(Edit("replace", at=cell, sprite=new))
    if before.background != after.background:
        edits.append(Edit("background", background=after.background))
    return edits
