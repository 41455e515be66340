"""What the miniature vision-language model learns before anyone makes an agent of it.

General skills only: describe, locate, compare, answer in a given format, rephrase, and what an
encyclopedia says. No plan, no critique, no judgment and no correction occurs here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from interloom.pocket.knowledge import procedures, riddles
from interloom.pocket.language import describe_edit, describe_scene, with_article
from interloom.pocket.meaning import procedure_article, reasoning_article
from interloom.pocket.scene import (
    CELLS,
    COLOURS,
    OPERATIONS,
    POSITIONS,
    Scene,
    Sprite,
    apply,
    random_edit,
    random_scene,
    random_sprite,
)

UNCLEAR = "unclear"


@dataclass(frozen=True)
class Picture:
    """A picture to be drawn for a lesson. Cells in ``unclear`` are spoiled."""

    scene: Scene
    unclear: frozenset[int] = frozenset()
    blank: bool = False

    def name(self, cell: int) -> str:
        if cell in self.unclear:
            return UNCLEAR
        sprite = self.scene.cells[cell]
        return str(sprite) if sprite else "nothing"

    @property
    def background(self) -> str:
        return "blank" if self.blank else self.scene.background


@dataclass(frozen=True)
class Lesson:
    """One question about zero, one or two pictures, and its answer. ``<image>`` marks a picture."""

    question: str
    answer: str
    pictures: tuple[Picture, ...] = ()


def random_picture(rng: random.Random) -> Picture:
    """A scene of up to eight things, now and then with a spoiled cell, now and then blank."""
    if rng.random() < 0.05:
        return Picture(Scene(), blank=True)
    scene = random_scene(rng, rng.choices(range(9), (1, 2, 3, 4, 4, 3, 3, 2, 1))[0])
    full = [cell for cell, _ in scene.sprites()]
    spoiled = rng.sample(full, 1) if full and rng.random() < 0.12 else []
    return Picture(scene, frozenset(spoiled))


def _listing(picture: Picture) -> str:
    cells = "; ".join(f"{POSITIONS[cell]}: {picture.name(cell)}" for cell in range(CELLS))
    return f"{cells}; background: {picture.background}"


def list_cells(rng: random.Random) -> Lesson:
    """Name what every cell of one picture holds."""
    picture = random_picture(rng)
    return Lesson("<image>list the cells", _listing(picture), (picture,))


def _what_is_at(rng: random.Random) -> Lesson:
    picture, cell = random_picture(rng), rng.randrange(CELLS)
    return Lesson(f"<image>what is at the {POSITIONS[cell]}", picture.name(cell), (picture,))


def _where_is(rng: random.Random) -> Lesson:
    picture = random_picture(rng)
    sprites = [s for c, s in picture.scene.sprites() if c not in picture.unclear]
    sprite = rng.choice(sprites) if sprites and rng.random() < 0.8 else random_sprite(rng)
    found = [
        POSITIONS[c] for c, s in picture.scene.sprites() if s == sprite and c not in picture.unclear
    ]
    return Lesson(f"<image>where is the {sprite}", ", ".join(found) or "nowhere", (picture,))


def _changed(rng: random.Random, picture: Picture) -> Picture:
    """Another picture that differs in few cells: edited, or in some cells by chance."""
    scene = picture.scene
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        edit = random_edit(rng, scene, rng.choice(OPERATIONS))
        if edit:
            scene = apply(scene, edit)
    full = [cell for cell, _ in scene.sprites()]
    spoiled = rng.sample(full, 1) if full and rng.random() < 0.12 else []
    return Picture(scene, frozenset(spoiled))


def _pair(rng: random.Random) -> tuple[Picture, Picture]:
    first = random_picture(rng)
    first = Picture(first.scene, blank=first.blank)
    if rng.random() < 0.15:
        return first, random_picture(rng)
    return first, _changed(rng, first)


def _compare(rng: random.Random) -> Lesson:
    a, b = _pair(rng)
    lines = []
    for cell in range(CELLS):
        was, now = a.name(cell), b.name(cell)
        same = "same" if was == now else "different"
        lines.append(f"{POSITIONS[cell]}: {was} to {now} {same}")
    lines.append(f"background: {a.background} to {b.background}")
    return Lesson("<image><image>compare the pictures", "; ".join(lines), (a, b))


def _what_changed(rng: random.Random) -> Lesson:
    a, b = _pair(rng)
    lines = [
        f"{POSITIONS[cell]}: {a.name(cell)} to {b.name(cell)}"
        for cell in range(CELLS)
        if a.name(cell) != b.name(cell)
    ]
    if a.background != b.background:
        lines.append(f"background: {a.background} to {b.background}")
    return Lesson("<image><image>what changed", "; ".join(lines) or "nothing", (a, b))


def _matches(rng: random.Random) -> Lesson:
    """Two pictures and a list: which cells of the second picture are as listed?"""
    a, b = _pair(rng)
    wanted: list[Sprite | None] = list(b.scene.cells)
    for cell in rng.sample(range(CELLS), rng.choice((0, 1, 2, 3))):
        sprite = wanted[cell]
        roll = rng.random()
        if sprite and roll < 0.4:
            wanted[cell] = Sprite(rng.choice(tuple(COLOURS)), sprite.kind)
        elif sprite and roll < 0.6:
            wanted[cell] = None
        else:
            wanted[cell] = random_sprite(rng)
    asked = rng.sample(range(CELLS), rng.choice((1, 2, 3)))
    said = ", ".join(f"{POSITIONS[c]} {wanted[c] or 'nothing'}" for c in asked)
    lines = []
    for cell in range(CELLS):
        was, now = a.name(cell), b.name(cell)
        if cell in asked:
            name = str(wanted[cell]) if wanted[cell] else "nothing"
            lines.append(
                f"{POSITIONS[cell]}: {was} to {now} listed {name} {'yes' if now == name else 'no'}"
            )
        else:
            lines.append(
                f"{POSITIONS[cell]}: {was} to {now}" if was != now else f"{POSITIONS[cell]}: {now}"
            )
    return Lesson(f"<image><image>check the list: {said}", "; ".join(lines), (a, b))


def same_or_different(rng: random.Random) -> Lesson:
    """Whether two names are the same, for a few pairs."""
    asked, said = [], []
    for _ in range(rng.randint(2, 6)):
        first = _any_name(rng)
        second, roll = first, rng.random()
        if roll < 0.15 or (roll < 0.5 and " " not in first):
            second = _any_name(rng)
        elif roll < 0.5:
            colour, kind = first.split()
            second = rng.choice((f"{rng.choice(list(COLOURS))} {kind}", f"{colour} {_kind(rng)}"))
        asked.append(f"{first} to {second}")
        said.append(f"{asked[-1]} {'same' if first == second else 'different'}")
    return Lesson(f"same or different: {'; '.join(asked)}", "; ".join(said))


def _kind(rng: random.Random) -> str:
    return random_sprite(rng).kind


def _any_name(rng: random.Random) -> str:
    roll = rng.random()
    return "nothing" if roll < 0.2 else UNCLEAR if roll < 0.25 else str(random_sprite(rng))


def _as_json(rng: random.Random) -> Lesson:
    picture, cell = random_picture(rng), rng.randrange(CELLS)
    answer = json.dumps({"place": POSITIONS[cell], "thing": picture.name(cell)})
    return Lesson(f"<image>answer in json: what is at the {POSITIONS[cell]}", answer, (picture,))


def _text_as_json(rng: random.Random) -> Lesson:
    scene = random_scene(rng, rng.randint(1, 5))
    things = [{"number": i, "thing": str(s), "place": POSITIONS[c], "note": None}
              for i, (c, s) in enumerate(scene.sprites(), 1)]  # fmt: skip
    return Lesson(f"answer in json: {describe_scene(scene)}", json.dumps({"things": things}))


def _rephrase(rng: random.Random) -> Lesson:
    scene = random_scene(rng, rng.randint(1, 6))
    edit = random_edit(rng, scene, rng.choice(OPERATIONS))
    if edit is None:
        return _rephrase(rng)
    said = describe_edit(edit, scene, "paraphrased", rng)
    return Lesson(f"say it plainly: {said}", describe_edit(edit, scene))


def _plain_scene(rng: random.Random) -> Lesson:
    scene = random_scene(rng, rng.randint(1, 6))
    ordered = random.Random(rng.random())
    said = describe_scene(scene, "paraphrased", ordered)
    return Lesson(f"say it plainly: {said}", describe_scene(scene))


def _riddle(rng: random.Random) -> Lesson:
    riddle = rng.choice(riddles())
    phrase = rng.choice((riddle.riddle, *riddle.paraphrases))
    roll = rng.random()
    if roll < 0.6:
        return Lesson(f"what is {phrase}", with_article(str(riddle.answer)))
    if roll < 0.8:
        return Lesson(f"{phrase} means", with_article(str(riddle.answer)))
    place = rng.choice(POSITIONS)
    return Lesson(
        f"say it plainly: {phrase} at the {place}",
        f"{with_article(str(riddle.answer))} at the {place}",
    )


def _procedure(rng: random.Random) -> Lesson:
    procedure = rng.choice(procedures())
    title, article = procedure_article(procedure, rng)
    return Lesson(f"tell about: {title}", article)


def _reasoning(rng: random.Random) -> Lesson:
    scene, instruction, article = reasoning_article(rng)
    return Lesson(f"<image>what comes of it: {instruction}", article, (Picture(scene),))


Skills = Mapping[Callable[[random.Random], Lesson], float]

SKILLS: Skills = {
    list_cells: 0.14,
    _what_is_at: 0.05,
    _where_is: 0.04,
    _compare: 0.16,
    _what_changed: 0.06,
    _matches: 0.14,
    same_or_different: 0.04,
    _as_json: 0.03,
    _text_as_json: 0.05,
    _rephrase: 0.06,
    _plain_scene: 0.05,
    _riddle: 0.09,
    _procedure: 0.05,
    _reasoning: 0.04,
}
"""What is learned, and how often."""

READING: Skills = {
    same_or_different: 0.45,
    _plain_scene: 0.20,
    _text_as_json: 0.15,
    _rephrase: 0.20,
}
"""Lessons without pictures that teach to copy, to order and to compare."""


def draw(rng: random.Random, skills: Skills = SKILLS) -> Lesson:
    """One lesson of a skill drawn by weight."""
    return rng.choices(list(skills), list(skills.values()))[0](rng)
