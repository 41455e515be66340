"""Lessons in comparing: two pictures, two pictures and a list, and the same in words alone.

Each ends in one answer over its whole list. A model of this size does not find the next thing that
differs, but it goes through all nine cells almost without error.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from interloom.pocket.foundation.lessons import UNCLEAR, Lesson, Picture, random_picture
from interloom.pocket.language import Form, describe_edit
from interloom.pocket.scene import (
    BACKGROUNDS,
    CELLS,
    COLOURS,
    OPERATIONS,
    POSITIONS,
    Scene,
    Sprite,
    apply,
    edits_between,
    random_edit,
    random_scene,
    random_sprite,
)


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


def compare(rng: random.Random) -> Lesson:
    """Two pictures cell by cell, whether each cell is the same, and whether all are."""
    a, b = _pair(rng)
    if rng.random() < 0.2:
        b = a
    return comparison(a, b)


def comparison(a: Picture, b: Picture) -> Lesson:
    """The lesson of comparing these two."""
    pairs = [(POSITIONS[cell], a.name(cell), b.name(cell)) for cell in range(CELLS)]
    pairs.append(("background", a.background, b.background))
    lines = [f"{place}: {was} to {now} {_same(was, now)}" for place, was, now in pairs]
    answer = f"{'; '.join(lines)}. {_all_the_same((was, now) for _, was, now in pairs)}"
    return Lesson("<image><image>compare the pictures", answer, (a, b))


def _same(was: str, now: str) -> str:
    return "same" if was == now else "different"


def _all_the_same(pairs: Iterable[tuple[str, str]]) -> str:
    return "all the same." if all(was == now for was, now in pairs) else "not the same."


def what_changed(rng: random.Random) -> Lesson:
    """Only what differs between two pictures."""
    a, b = _pair(rng)
    lines = [
        f"{POSITIONS[cell]}: {a.name(cell)} to {b.name(cell)}"
        for cell in range(CELLS)
        if a.name(cell) != b.name(cell)
    ]
    if a.background != b.background:
        lines.append(f"background: {a.background} to {b.background}")
    return Lesson("<image><image>what changed", "; ".join(lines) or "nothing", (a, b))


def check_list(rng: random.Random) -> Lesson:
    """What changed from one picture to another, against a list of what should have changed.

    Half of the second pictures are as listed; in the others something listed was not done or was
    done otherwise, or something else was changed or spoiled. Some have no first picture.
    """
    start = random_picture(rng)
    a = Picture(Scene() if rng.random() < 0.2 else start.scene, blank=start.blank)
    none_before = a.blank or (a.scene.count == 0 and rng.random() < 0.7)
    if none_before:
        a = Picture(Scene(), blank=True)
    wanted = a.scene
    cells = rng.sample(range(CELLS), rng.choice((1, 1, 1, 2, 2, 3)))
    for cell in cells:
        wanted = wanted.with_cell(cell, _other(rng, wanted.cells[cell]))
    sky = a.background
    if rng.random() < 0.12 or none_before:
        sky = rng.choice([name for name in BACKGROUNDS if name != a.background])
    b = Picture(replace(wanted, background=sky))
    if rng.random() < 0.5:
        b = _spoilt(rng, a, b, cells)
    asked = [f"{POSITIONS[cell]} {thing(wanted, cell)}" for cell in cells]
    if sky != a.background:
        asked.append(f"background {sky}")
    rng.shuffle(asked)
    lines, right = [], True
    for cell in range(CELLS):
        want = thing(wanted, cell) if cell in cells else None
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


def thing(scene: Scene, cell: int) -> str:
    """What a cell holds, in words."""
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
    scene, unclear = b.scene, set(b.unclear)
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
            scene = replace(scene, background=rng.choice(tuple(BACKGROUNDS)))
    return Picture(scene, frozenset(c for c in unclear if scene.cells[c]))


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
    # Half of the pairs differ: where nearly all are the same, guessing so is learned and nothing
    # else. A quarter of the lessons have none that differs.
    odds = rng.choice((0.0, 0.6, 0.6, 0.6))
    for _ in range(rng.randint(2, 8)):
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
    odds = rng.choice((0.0, 0.0, 0.3, 0.5))
    for _ in range(rng.randint(2, 8)):
        was, want = _any_name(rng), None
        now = was
        if rng.random() < 0.45:
            want = now = _near(rng, was)
        if rng.random() < odds:
            now = rng.choice((was, _near(rng, now))) if want else _near(rng, was)
        told, good = _told(was, now, want)
        asked.append(f"{was} to {now}" + (f" wanted {want}" if want else ""))
        said.append(told)
        right &= good
    return Lesson(f"as wanted: {'; '.join(asked)}", f"{'; '.join(said)}. {_all_as_wanted(right)}")


def in_words(rng: random.Random) -> Lesson:
    """A list of what changes, put into words: as orders, or as what must be there afterwards.

    The list has all nine cells or those that change alone; some lists also say what is there now
    and what was wanted, and then the words are about what was wanted.
    """
    scene = wanted = random_scene(rng, rng.randint(1, 6))
    for _ in range(rng.choice((1, 1, 1, 2))):
        edit = random_edit(rng, wanted, rng.choice((*OPERATIONS, "swap", "move")))
        wanted = apply(wanted, edit) if edit else wanted
    whole, checked = rng.random() < 0.6, rng.random() < 0.5
    rows = [(POSITIONS[cell], thing(scene, cell), thing(wanted, cell)) for cell in range(CELLS)]
    lines = []
    for place, was, want in [*rows, ("background", scene.background, wanted.background)]:
        told = f"{was} to {want} {_same(was, want)}"
        if checked:
            cell = place != "background"
            now = rng.choice((want, want, was, _any_name(rng))) if cell else want
            told, _ = _told(was, now, want if was != want else None)
        if whole or was != want:
            lines.append(f"{place}: {told}")
    form: Form = rng.choice(("canonical", "state"))
    words, before = [], scene
    for edit in edits_between(scene, wanted):
        words.append(describe_edit(edit, before, form))
        before = apply(before, edit)
    asked = "as orders" if form == "canonical" else "as what must be"
    return Lesson(f"{asked}: {'; '.join(lines)}", "; ".join(words) or "nothing")


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
