"""What the miniature vision-language model learns before anyone makes an agent of it.

General skills only: describe, locate, compare, answer in a given format, rephrase, and what an
encyclopedia says. No plan, no critique, no judgment and no correction occurs here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from interloom.pocket.knowledge import procedures, riddles
from interloom.pocket.language import describe_edit, describe_scene, numbered, with_article
from interloom.pocket.meaning import procedure_article, reasoning_article
from interloom.pocket.scene import (
    BACKGROUNDS,
    CELLS,
    COLOURS,
    OPERATIONS,
    POSITIONS,
    Edit,
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
    if rng.random() < 0.2:
        b = a
    pairs = [(POSITIONS[cell], a.name(cell), b.name(cell)) for cell in range(CELLS)]
    pairs.append(("background", a.background, b.background))
    lines = [f"{place}: {was} to {now} {_same(was, now)}" for place, was, now in pairs]
    answer = f"{'; '.join(lines)}. {_all_the_same((was, now) for _, was, now in pairs)}"
    return Lesson("<image><image>compare the pictures", answer, (a, b))


def _same(was: str, now: str) -> str:
    return "same" if was == now else "different"


def _all_the_same(pairs: Iterable[tuple[str, str]]) -> str:
    return "all the same." if all(was == now for was, now in pairs) else "not the same."


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


def _check_list(rng: random.Random) -> Lesson:
    """What changed from one picture to another, against a list of what should have changed.

    Half of the second pictures are as listed; in the others something listed was not done or was
    done otherwise, or something else was changed or spoiled. Some have no first picture.
    """
    start = random_picture(rng)
    a = Picture(Scene() if rng.random() < 0.2 else start.scene, blank=start.blank)
    none_before = a.scene.count == 0 and rng.random() < 0.7
    if none_before:
        a = Picture(Scene(), blank=True)
    wanted = a.scene
    cells = rng.sample(range(CELLS), rng.choice((1, 1, 1, 2, 2, 3)))
    for cell in cells:
        wanted = wanted.with_cell(cell, _other(rng, wanted.cells[cell]))
    sky = a.background
    if rng.random() < 0.12 or none_before:
        sky = rng.choice([name for name in BACKGROUNDS if name != a.background])
    b = Picture(replace(wanted, background="day" if sky == "blank" else sky), blank=sky == "blank")
    if rng.random() < 0.5:
        b = _spoilt(rng, a, b, cells)
    asked = [f"{POSITIONS[cell]} {_thing(wanted, cell)}" for cell in cells]
    if sky != a.background:
        asked.append(f"background {sky}")
    rng.shuffle(asked)
    lines, right = [], True
    for cell in range(CELLS):
        want = _thing(wanted, cell) if cell in cells else None
        told, good = _told(a.name(cell), b.name(cell), want)
        lines.append(f"{POSITIONS[cell]}: {told}")
        right &= good
    told, good = _told(a.background, b.background, sky if sky != a.background else None)
    lines.append(f"background: {told}")
    pictures = (b,) if none_before else (a, b)
    return Lesson(
        f"{'<image>' * len(pictures)}check the list: {', '.join(asked)}",
        f"{'; '.join(lines)}. {_all_as_wanted(right and good)}",
        pictures,
    )


def _thing(scene: Scene, cell: int) -> str:
    return str(scene.cells[cell] or "nothing")


def _other(rng: random.Random, sprite: Sprite | None) -> Sprite | None:
    """Something else than this: another thing, another colour, or nothing."""
    if sprite and rng.random() < 0.3:
        return None
    if sprite and rng.random() < 0.4:
        return Sprite(rng.choice([c for c in COLOURS if c != sprite.colour]), sprite.kind)
    new = random_sprite(rng)
    return new if new != sprite else _other(rng, sprite)


def _spoilt(rng: random.Random, a: Picture, b: Picture, cells: Sequence[int]) -> Picture:
    """The second picture with one or two faults."""
    scene, unclear, blank = b.scene, set(b.unclear), b.blank
    for _ in range(rng.choice((1, 1, 1, 2))):
        cell, roll = rng.choice(cells), rng.random()
        other = rng.randrange(CELLS)
        full = [c for c, _ in scene.sprites()]
        if roll < 0.4:
            scene = scene.with_cell(cell, a.scene.cells[cell])
        elif roll < 0.55:
            scene = scene.with_cell(cell, _other(rng, scene.cells[cell]))
        elif roll < 0.8:
            scene = scene.with_cell(other, _other(rng, scene.cells[other]))
        elif roll < 0.95 and full:
            unclear.add(rng.choice(full))
        else:
            scene, blank = replace(scene, background=rng.choice(tuple(BACKGROUNDS))), False
    return Picture(scene, frozenset(c for c in unclear if scene.cells[c]), blank)


def _told(was: str, now: str, want: str | None) -> tuple[str, bool]:
    """One line of a check, and whether it is as it should be."""
    seen = f"{was} to {now} {_same(was, now)}"
    if want is not None:
        return f"{seen} wanted {want} {'yes' if now == want else 'no'}", now == want
    return (seen, True) if was == now else (f"{seen} unwanted", False)


def _all_as_wanted(right: bool) -> str:
    return "all as wanted." if right else "not as wanted."


def same_or_different(rng: random.Random) -> Lesson:
    """Whether two names are the same, for a few pairs, and whether all are."""
    pairs = []
    odds = rng.choice((0.1, 0.5))
    for _ in range(rng.randint(2, 9)):
        first = _any_name(rng)
        pairs.append((first, _near(rng, first) if rng.random() < odds else first))
    asked = [f"{first} to {second}" for first, second in pairs]
    said = [f"{first} to {second} {_same(first, second)}" for first, second in pairs]
    return Lesson(
        f"same or different: {'; '.join(asked)}", f"{'; '.join(said)}. {_all_the_same(pairs)}"
    )


def as_wanted(rng: random.Random) -> Lesson:
    """The same for changes, some of which are wanted."""
    asked, said, right = [], [], True
    odds = rng.choice((0.05, 0.3))
    for _ in range(rng.randint(2, 9)):
        was, want = _any_name(rng), None
        now = was
        if rng.random() < 0.35:
            want = now = _near(rng, was)
        if rng.random() < odds:
            now = rng.choice((was, _near(rng, now))) if want else _near(rng, was)
        told, good = _told(was, now, want)
        asked.append(f"{was} to {now}" + (f" wanted {want}" if want else ""))
        said.append(told)
        right &= good
    return Lesson(f"as wanted: {'; '.join(asked)}", f"{'; '.join(said)}. {_all_as_wanted(right)}")


def _near(rng: random.Random, name: str) -> str:
    """Another name, often one that shares a word with this one."""
    other = _any_name(rng)
    if " " in name and rng.random() < 0.6:
        colour, kind = name.split()
        other = rng.choice((f"{rng.choice(list(COLOURS))} {kind}", f"{colour} {_kind(rng)}"))
    return other if other != name else _near(rng, name)


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
    edit, scene = _edit(rng, random_scene(rng, rng.randint(1, 6)))
    said = describe_edit(edit, scene, "paraphrased", rng)
    return Lesson(f"say it plainly: {said}", describe_edit(edit, scene))


def _edit(rng: random.Random, scene: Scene) -> tuple[Edit, Scene]:
    """An edit that the scene allows, and the scene."""
    edit = random_edit(rng, scene, rng.choice(OPERATIONS))
    return (edit, scene) if edit else _edit(rng, scene)


def _one_by_one(rng: random.Random) -> Lesson:
    """A scene or a row of edits in plain words, numbered in the order in which they were said."""
    scene = random_scene(rng, rng.randint(1, 7))
    first = rng.choice((1, 1, 1, 2, 2, 3, 4))
    start = f" from {first}" if first > 1 else ""
    if rng.random() < 0.4:
        said, plain = [], []
        for _ in range(rng.choice((1, 2, 2, 3, 3))):
            edit, scene = _edit(rng, scene)
            form = rng.choice(("canonical", "paraphrased", "paraphrased"))
            said.append(describe_edit(edit, scene, form, rng))
            plain.append(describe_edit(edit, scene))
            scene = apply(scene, edit)
        return Lesson(f"one by one{start}: {'; '.join(said)}", numbered(plain, first))
    things = list(scene.sprites())
    rng.shuffle(things)
    placed = rng.random() < 0.85
    names = [with_article(str(sprite)) for _, sprite in things]
    places = [f" at the {POSITIONS[cell]}" if placed else "" for cell, _ in things]
    said, recall = list(names), ""
    if rng.random() < 0.4:
        riddle, i = rng.choice(riddles()), rng.randrange(len(things))
        names[i], said[i] = with_article(str(riddle.answer)), rng.choice(riddle.phrases)
        recall = f"{said[i]} is {names[i]}. "
    when = "" if scene.background == "day" else f", at {scene.background}"
    opening = rng.choice(("", "", "draw ", "show ", "a picture with ", "i want to see "))
    recall += f"at {scene.background}: " if when else ""
    text = ", ".join(map("".join, zip(said, places, strict=True)))
    plain = map("".join, zip(names, places, strict=True))
    return Lesson(f"one by one{start}: {opening}{text}{when}", recall + numbered(plain, first))


def _cell_by_cell(rng: random.Random) -> Lesson:
    """What an edit or a row of them wants to see, cell by cell."""
    start = scene = random_scene(rng, rng.randint(1, 6))
    said = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        edit, scene = _edit(rng, scene)
        said.append(describe_edit(edit, scene, rng.choice(("canonical", "paraphrased")), rng))
        scene = apply(scene, edit)
    changed = start.difference(scene)
    lines = [
        f"{POSITIONS[cell]}: " + (f"wanted {_thing(scene, cell)}" if cell in changed else "same")
        for cell in range(CELLS)
    ]
    sky = f"wanted {scene.background}" if scene.background != start.background else "same"
    return Lesson(f"cell by cell: {'; '.join(said)}", "; ".join([*lines, f"background: {sky}"]))


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
    list_cells: 0.09,
    _what_is_at: 0.04,
    _where_is: 0.03,
    _compare: 0.12,
    _what_changed: 0.03,
    _check_list: 0.22,
    same_or_different: 0.02,
    as_wanted: 0.03,
    _as_json: 0.02,
    _text_as_json: 0.04,
    _rephrase: 0.03,
    _one_by_one: 0.11,
    _cell_by_cell: 0.04,
    _riddle: 0.07,
    _procedure: 0.08,
    _reasoning: 0.03,
}
"""What is learned, and how often."""

READING: Skills = {
    same_or_different: 0.20,
    as_wanted: 0.25,
    _cell_by_cell: 0.20,
    _one_by_one: 0.20,
    _text_as_json: 0.10,
    _rephrase: 0.05,
}
"""Lessons without pictures that teach to copy, to order and to compare."""


def draw(rng: random.Random, skills: Skills = SKILLS) -> Lesson:
    """One lesson of a skill drawn by weight."""
    return rng.choices(list(skills), list(skills.values()))[0](rng)
