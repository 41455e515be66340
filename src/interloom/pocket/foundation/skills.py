"""What the miniature vision-language model learns before anyone makes an agent of it.

General skills only: describe, locate, compare, answer in a given format, rephrase, and what an
encyclopedia says. Two pictures and a list are compared, changes are put into words and answers into
JSON, but nobody asks for a plan, a critique or a correction here.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from interloom.pocket.foundation.comparing import (
    as_wanted,
    check_list,
    compare,
    in_words,
    same_or_different,
    thing,
    what_changed,
)
from interloom.pocket.foundation.lessons import Lesson, Picture, random_picture
from interloom.pocket.knowledge import procedures, riddles
from interloom.pocket.language import (
    describe_edit,
    describe_scene,
    numbered,
    short_name,
    with_article,
)
from interloom.pocket.meaning import procedure_article, reasoning_article
from interloom.pocket.scene import (
    CELLS,
    COLOURS,
    KINDS,
    OPERATIONS,
    POSITIONS,
    Edit,
    Scene,
    apply,
    random_edit,
    random_scene,
    random_sprite,
)


def listing(picture: Picture) -> Lesson:
    """Name what every cell of a picture holds."""
    cells = "; ".join(f"{POSITIONS[cell]}: {picture.name(cell)}" for cell in range(CELLS))
    answer = f"{cells}; background: {picture.background}"
    return Lesson("<image>list the cells", answer, (picture,))


def list_cells(rng: random.Random) -> Lesson:
    """Name what every cell of some picture holds."""
    return listing(random_picture(rng))


def _with_picture(rng: random.Random, question: str) -> str:
    """The picture comes before the question, or numbered after it."""
    return f"<image>{question}" if rng.random() < 0.6 else f"{question}\n1:<image>"


def _what_is_at(rng: random.Random) -> Lesson:
    picture, cell = random_picture(rng), rng.randrange(CELLS)
    question = _with_picture(rng, f"what is at the {POSITIONS[cell]}")
    return Lesson(question, picture.name(cell), (picture,))


def _where_is(rng: random.Random) -> Lesson:
    picture = random_picture(rng)
    sprites = [s for c, s in picture.scene.sprites() if c not in picture.unclear]
    sprite = rng.choice(sprites) if sprites and rng.random() < 0.8 else random_sprite(rng)
    found = [
        POSITIONS[c] for c, s in picture.scene.sprites() if s == sprite and c not in picture.unclear
    ]
    question = _with_picture(rng, f"where is the {sprite}")
    return Lesson(question, ", ".join(found) or "nowhere", (picture,))


FIELDS = (
    *COLOURS, *KINDS, "center", "items", "rows", "entries", "title", "line", "words", "number",
    "name", "told", "text", "note", "place", "thing", "same", "execution_plan", "step_number",
    "step_name", "instruction", "prompt", "auxiliary_text", "previous_step_success",
    "refine_prompt",
)  # fmt: skip
"""What fields of a JSON answer may be called. Any part of an answer goes under any name that the
question gives it: a name says nothing about what it holds, the papers' no more than others."""


def _fields(rng: random.Random, parts: Sequence[str]) -> tuple[str, list[str]]:
    """Which name each part of an answer gets: as a question says it, and in the parts' order."""
    names = rng.sample(FIELDS, len(parts))
    said = ", ".join(f"{part} as {name}" for part, name in zip(parts, names, strict=True))
    return said, names


def _as_list(
    rng: random.Random, parts: Sequence[str], entries: Iterable[Sequence[object]]
) -> tuple[str, str]:
    """Entries under a list's name, with names for their parts: as a question asks, and in JSON."""
    said, names = _fields(rng, parts)
    outer = rng.choice([name for name in FIELDS if name not in names])
    rows = [dict(zip(names, entry, strict=True)) for entry in entries]
    return f"{outer} of {said}", json.dumps({outer: rows})


def _as_json(rng: random.Random) -> Lesson:
    picture, cell = random_picture(rng), rng.randrange(CELLS)
    said, names = _fields(rng, ("place", "thing"))
    answer = json.dumps(dict(zip(names, (POSITIONS[cell], picture.name(cell)), strict=True)))
    question = f"answer in json with {said}: what is at the {POSITIONS[cell]}"
    return Lesson(_with_picture(rng, question), answer, (picture,))


def _text_as_json(rng: random.Random) -> Lesson:
    scene = random_scene(rng, rng.randint(1, 5))
    things = [(i, str(s), POSITIONS[c], None) for i, (c, s) in enumerate(scene.sprites(), 1)]
    said, answer = _as_list(rng, ("number", "thing", "place", "note"), things)
    return Lesson(f"answer in json with {said}: {describe_scene(scene)}", answer)


def _list_as_json(rng: random.Random) -> Lesson:
    """A numbered list in JSON, each text twice: one must follow its number, and copy word for word.

    Texts are of the world, or of its words in no order, which only copying gets right.
    """
    scene = random_scene(rng, rng.randint(2, 7))
    texts, notes = [], []
    for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 4, 5, 6))):
        roll = rng.random()
        if roll < 0.25:
            texts.append(_salad(rng))
        elif roll < 0.55:
            sprite, cell = random_sprite(rng), rng.randrange(CELLS)
            verb = rng.choice(("add ", "add ", "draw ", ""))
            texts.append(f"{verb}{with_article(str(sprite))} at the {POSITIONS[cell]}")
        else:
            edit, scene = any_edit(rng, scene)
            texts.append(describe_edit(edit, scene))
            scene = apply(scene, edit)
        notes.append(_salad(rng) if rng.random() < 0.15 else None)
    first = rng.choice((1, 1, 1, 2, 2, 3, 4))
    said = [t if note is None else f"{t}: {note}" for t, note in zip(texts, notes, strict=True)]
    items = [(i, t, t, note) for i, (t, note) in enumerate(zip(texts, notes, strict=True), first)]
    named, answer = _as_list(rng, ("number", "text", "text", "note"), items)
    return Lesson(f"answer in json with {named}: {numbered(said, first)}.", answer)


def _salad(rng: random.Random) -> str:
    """One to eight words of the world in no order."""
    words = ("the", "a", "at", "to", "with", *COLOURS, *KINDS, "top", "left", "right", "center")
    return " ".join(rng.choices(words, k=rng.randint(1, 8)))


def _rephrase(rng: random.Random) -> Lesson:
    edit, scene = any_edit(rng, random_scene(rng, rng.randint(1, 6)))
    said = describe_edit(edit, scene, "paraphrased", rng)
    return Lesson(f"say it plainly: {said}", describe_edit(edit, scene))


def any_edit(rng: random.Random, scene: Scene) -> tuple[Edit, Scene]:
    """An edit that the scene allows, and the scene."""
    edit = random_edit(rng, scene, rng.choice(OPERATIONS))
    return (edit, scene) if edit else any_edit(rng, scene)


def _one_by_one(rng: random.Random) -> Lesson:
    """A scene, a row of edits, or both, in plain words, numbered in the order they were said."""
    scene = random_scene(rng, rng.randint(1, 7))
    first = rng.choice((1, 1, 1, 2, 2, 3, 4))
    start = f" from {first}" if first > 1 else ""
    roll = rng.random()
    if roll < 0.3:
        said, plain = _row_of_edits(rng, scene)
        return Lesson(f"one by one{start}: {'; '.join(said)}", numbered(plain, first))
    changed = roll < 0.55
    if changed:
        scene = random_scene(rng, rng.randint(1, 3))
    things = list(scene.sprites())
    rng.shuffle(things)
    placed = changed or rng.random() < 0.85
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
    plain = list(map("".join, zip(names, places, strict=True)))
    orders, then = _row_of_edits(rng, scene) if changed else ([], [])
    question = "; ".join([f"{opening}{text}{when}", *orders])
    return Lesson(f"one by one{start}: {question}", recall + numbered([*plain, *then], first))


def _row_of_edits(rng: random.Random, scene: Scene) -> tuple[list[str], list[str]]:
    """One to three edits one after another: as they are said, and in plain words."""
    said, plain = [], []
    for _ in range(rng.choice((1, 2, 2, 3, 3))):
        edit, scene = any_edit(rng, scene)
        form = rng.choice(("canonical", "paraphrased", "paraphrased"))
        said.append(describe_edit(edit, scene, form, rng))
        plain.append(describe_edit(edit, scene))
        scene = apply(scene, edit)
    return said, plain


def _cell_by_cell(rng: random.Random) -> Lesson:
    """What an edit or a row of them wants to see, cell by cell."""
    start = scene = random_scene(rng, rng.randint(1, 6))
    said = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        edit, scene = any_edit(rng, scene)
        said.append(describe_edit(edit, scene, rng.choice(("canonical", "paraphrased")), rng))
        scene = apply(scene, edit)
    changed = start.difference(scene)
    lines = [
        f"{POSITIONS[cell]}: " + (f"wanted {thing(scene, cell)}" if cell in changed else "same")
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


ASKING = ("tell about", "tell about", "explain", "say in order", "what happens", "how does it go")


def _asked(rng: random.Random, question: str) -> str:
    """The same question as different people begin it, if with nothing, or with words at random.

    What is only ever asked in one way is only known when it is asked in that way.
    """
    roll = rng.random()
    if roll < 0.45:
        return f"{rng.choice(ASKING)}: {question}"
    return question if roll < 0.6 else f"{_salad(rng)}: {question}"


def _procedure(rng: random.Random) -> Lesson:
    title, article = procedure_article(rng.choice(procedures()), rng)
    return Lesson(_asked(rng, title), article)


def _reasoning(rng: random.Random) -> Lesson:
    scene, instruction, article = reasoning_article(rng)
    return Lesson(_with_picture(rng, _asked(rng, instruction)), article, (Picture(scene),))


PARTS: tuple[str, ...] = ("number", "name", "told", "text", "note")
"""What an entry of a list has. Where it is but one text, it is told so too, has a short name, and
no note; a procedure's step has all of them."""


def in_tags(rng: random.Random) -> Lesson:
    """An answer between tags and then in JSON, with the fields that the question names.

    The thought is another lesson's answer: a list, whose entries stand once more in the JSON, part
    by part, or a comparison, whose last words do.
    """
    if rng.random() < 0.15:
        told = rng.choice((same_or_different, as_wanted, check_list))(rng)
        said, [name] = _fields(rng, ("the answer",))
        answer = json.dumps({name: told.answer.endswith(("all the same.", "all as wanted."))})
    else:
        told = rng.choice((_one_by_one, _one_by_one, _procedure, _procedure, _reasoning))(rng)
        chosen, entries = _some_parts(rng), []
        for number, text in re.findall(r"(\d+) (.+?)(?:; (?=\d+ )|$)", told.answer):
            held = text.split(": ") if ": " in text else (short_name(text), text, text, None)
            entry = dict(zip(PARTS, (int(number), *held), strict=True))
            entries.append([entry[part] for part in chosen])
        said, answer = _as_list(rng, chosen, entries)
    return Lesson(
        f"think, then answer in json with {said}: {told.question}",
        f"<think>{told.answer}</think><answer>{answer}</answer>",
        told.pictures,
    )


def _some_parts(rng: random.Random) -> list[str]:
    """Some parts in their order, the text always, and now and then once more somewhere."""
    chosen = [part for part in PARTS if part == "text" or rng.random() < 0.85]
    if rng.random() < 0.4:
        chosen.insert(rng.randint(1, len(chosen)), "text")
    return chosen


Skills = Mapping[Callable[[random.Random], Lesson], float]

SKILLS: Skills = {
    list_cells: 0.07,
    _what_is_at: 0.04,
    _where_is: 0.03,
    compare: 0.09,
    what_changed: 0.03,
    check_list: 0.15,
    same_or_different: 0.03,
    as_wanted: 0.03,
    _as_json: 0.02,
    _text_as_json: 0.04,
    _rephrase: 0.03,
    _one_by_one: 0.11,
    _list_as_json: 0.06,
    _cell_by_cell: 0.06,
    in_words: 0.07,
    _riddle: 0.07,
    _procedure: 0.11,
    _reasoning: 0.09,
    in_tags: 0.07,
}
"""What is learned, and how often."""

READING: Skills = {
    same_or_different: 0.22,
    as_wanted: 0.11,
    _cell_by_cell: 0.07,
    in_words: 0.11,
    _one_by_one: 0.18,
    _list_as_json: 0.14,
    _text_as_json: 0.04,
    _rephrase: 0.04,
    in_tags: 0.09,
}
"""Lessons that teach to copy, to order and to compare; without pictures, but for some in tags."""


def draw(rng: random.Random, skills: Skills = SKILLS) -> Lesson:
    """One lesson of a skill drawn by weight."""
    return rng.choices(list(skills), list(skills.values()))[0](rng)
