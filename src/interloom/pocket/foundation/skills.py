"""What the miniature vision-language model learns before anyone makes an agent of it.

General skills only: describe, locate, compare, answer in a given format, rephrase, and what an
encyclopedia says. Two pictures and a list are compared, changes are put into words and answers into
JSON, but nobody asks for a plan, a critique or a correction here.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping

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
from interloom.pocket.language import describe_edit, describe_scene, numbered, with_article
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


def _as_json(rng: random.Random) -> Lesson:
    picture, cell = random_picture(rng), rng.randrange(CELLS)
    answer = json.dumps({"place": POSITIONS[cell], "thing": picture.name(cell)})
    return Lesson(f"<image>answer in json: what is at the {POSITIONS[cell]}", answer, (picture,))


def _text_as_json(rng: random.Random) -> Lesson:
    scene = random_scene(rng, rng.randint(1, 5))
    things = [{"number": i, "thing": str(s), "place": POSITIONS[c], "note": None}
              for i, (c, s) in enumerate(scene.sprites(), 1)]  # fmt: skip
    return Lesson(f"answer in json: {describe_scene(scene)}", json.dumps({"things": things}))


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
    items = [{"number": i, "text": t, "again": t, "note": note}
             for i, (t, note) in enumerate(zip(texts, notes, strict=True), first)]  # fmt: skip
    return Lesson(f"answer in json: {numbered(said, first)}.", json.dumps({"items": items}))


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
    return Lesson(f"<image>{_asked(rng, instruction)}", article, (Picture(scene),))


NUMBER_FIELDS = ("number", "step_number")
TEXT_FIELDS = ("text", "again", "prompt", "instruction", "step_name", "refine_prompt")
NOTE_FIELDS = ("note", "auxiliary_text")
TRUTH_FIELDS = ("same", "previous_step_success")
LIST_FIELDS = ("items", "things", "execution_plan")


def in_tags(rng: random.Random) -> Lesson:
    """An answer between tags and then in JSON, with the fields that the question names.

    The thought is another lesson's answer: a list, whose entries stand once more in the JSON, or a
    comparison, whose last word does.
    """
    if rng.random() < 0.25:
        told, field = same_or_different(rng), rng.choice(TRUTH_FIELDS)
        fields, content = [field], {field: told.answer.endswith("all the same.")}
    else:
        told = rng.choice((_one_by_one, _procedure))(rng)
        outer, fields, items = rng.choice(LIST_FIELDS), _some_fields(rng), []
        for number, said in re.findall(r"(\d+) (.+?)(?:; (?=\d+ )|$)", told.answer):
            text, _, note = said.partition(": ")
            values = {"number": int(number), "note": note or None}
            items.append({field: values.get(kind, text) for field, kind in fields.items()})
        fields, content = [outer, *fields], {outer: items}
    answer = f"<think>{told.answer}</think><answer>{json.dumps(content)}</answer>"
    return Lesson(f"think, then answer in json with {', '.join(fields)}: {told.question}", answer)


def _some_fields(rng: random.Random) -> dict[str, str]:
    """Names of fields in the order of an answer, and what each holds: number, text or note."""
    fields = {rng.choice(NUMBER_FIELDS): "number"} if rng.random() < 0.7 else {}
    fields |= dict.fromkeys(rng.sample(TEXT_FIELDS, rng.randint(1, 3)), "text")
    return fields | ({rng.choice(NOTE_FIELDS): "note"} if rng.random() < 0.7 else {})


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
    in_words: 0.05,
    _riddle: 0.07,
    _procedure: 0.11,
    _reasoning: 0.09,
}
"""What is learned, and how often."""

READING: Skills = {
    same_or_different: 0.24,
    as_wanted: 0.12,
    _cell_by_cell: 0.08,
    in_words: 0.12,
    _one_by_one: 0.20,
    _list_as_json: 0.16,
    _text_as_json: 0.04,
    _rephrase: 0.04,
}
"""Lessons without pictures that teach to copy, to order and to compare."""


def draw(rng: random.Random, skills: Skills = SKILLS) -> Lesson:
    """One lesson of a skill drawn by weight."""
    return rng.choices(list(skills), list(skills.values()))[0](rng)
