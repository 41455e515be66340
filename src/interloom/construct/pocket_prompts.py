"""Requests about the pocket world: pictures, edits, riddles, procedures and questions.

Each writer below turns a random state into one draft of its sort; what the sorts have in common
(shares, uniqueness, ids) is in ``prompts.py``. Only texts of the training side are used.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from interloom import images
from interloom.construct.drafts import Draft, Writer
from interloom.pocket import knowledge
from interloom.pocket.language import Form, MeaningError, describe_edit, describe_scene
from interloom.pocket.meaning import pose_riddle, procedure_steps
from interloom.pocket.procedures import instantiate
from interloom.pocket.reasoning import example_scene, rule_instructions
from interloom.pocket.render import render
from interloom.pocket.scene import (
    GEOMETRIC_KINDS,
    OPERATIONS,
    SPRITES,
    Operation,
    Scene,
    apply,
    random_edit,
    random_scene,
)

MOST_THINGS = 7
SCENE_FORMS: tuple[tuple[Form, int], ...] = (("canonical", 3), ("paraphrased", 4), ("vague", 2))
EDIT_FORMS: tuple[tuple[Form, int], ...] = (("canonical", 2), ("paraphrased", 4), ("vague", 1))
CHANGE_FORMS: tuple[tuple[Form, int], ...] = (("canonical", 1), ("paraphrased", 2))
QUESTIONS = (
    "describe each picture",
    "write a caption for each picture",
    "say what each picture shows",
)


def _form(rng: random.Random, forms: tuple[tuple[Form, int], ...]) -> Form:
    weights = [weight for _, weight in forms]
    return rng.choices(forms, weights)[0][0]


def _picture(rng: random.Random, scene: Scene) -> bytes:
    return images.to_png(render(scene, jitter_seed=rng.getrandbits(31)))


def _crowd(count: int) -> str:
    return {1: "one thing", 2: "a pair"}.get(count, "a few things" if count < 5 else "many things")


# --- pictures -------------------------------------------------------------------------------------


def picture(rng: random.Random) -> Draft:
    """A whole picture by its caption, with one to seven things."""
    scene = random_scene(rng, rng.randint(1, MOST_THINGS))
    form = _form(rng, SCENE_FORMS)
    return Draft(
        text=describe_scene(scene, form, rng),
        category="image_description",
        subcategory=_crowd(scene.count),
        template=f"picture-{form}",
        slots={"things": [str(sprite) for _, sprite in scene.sprites()], "when": scene.background},
    )


def composition(rng: random.Random) -> Draft:
    """A picture of shapes alone, as art students arrange them."""
    scene = random_scene(rng, rng.randint(3, MOST_THINGS))
    shapes = [sprite for sprite in SPRITES if sprite.kind in GEOMETRIC_KINDS]
    cells = {cell: rng.choice(shapes) for cell, _ in scene.sprites()}
    scene = Scene.of(cells, scene.background)
    form = _form(rng, SCENE_FORMS)
    return Draft(
        text=describe_scene(scene, form, rng),
        category="art",
        subcategory="compositions",
        template=f"composition-{form}",
        slots={"shapes": [str(sprite) for sprite in cells.values()], "when": scene.background},
    )


def riddle_picture(rng: random.Random) -> Draft:
    """A picture in which one thing is not named but has to be known."""
    riddle = rng.choice(knowledge.riddles("train"))
    scene = random_scene(rng, rng.randint(1, 4))
    cell = rng.choice([cell for cell, _ in scene.sprites()])
    others = [c for c, sprite in scene.sprites() if sprite == riddle.answer and c != cell]
    for other in others:  # The riddle's answer stands there once, or the riddle is ambiguous.
        scene = scene.with_cell(other, None)
    scene = scene.with_cell(cell, riddle.answer)
    phrase = rng.choice(riddle.phrases)
    return Draft(
        text=pose_riddle(describe_scene(scene, "canonical", rng), riddle, phrase),
        category="science" if riddle.category != "culture" else "daily_life",
        subcategory=f"riddles of {riddle.category}",
        template="riddle-picture",
        slots={"riddle": riddle.id, "things": scene.count},
    )


# --- edits of a given picture ---------------------------------------------------------------------

TRADES: tuple[tuple[str, str, tuple[Operation, ...]], ...] = (
    ("robotics", "moving things", ("move", "swap")),
    ("robotics", "pick and place", ("add", "remove", "move")),
    ("professional_skills", "retouching", ("recolour", "replace")),
    ("professional_skills", "cleaning up", ("remove", "move")),
    ("storytelling", "what happens next", ("move", "background", "remove")),
    ("daily_life", "arranging a place", ("add", "move", "replace")),
    ("art", "changing colours", ("recolour", "swap")),
    ("workflows", "orders in a row", OPERATIONS),
)


def edits(rng: random.Random) -> Draft:
    """One to three edits of a given picture, as orders in a row."""
    category, subcategory, operations = rng.choice(TRADES)
    start = random_scene(rng, rng.randint(2, 5))
    form = _form(rng, EDIT_FORMS)
    count = rng.choices((1, 2, 3), (2, 3, 2))[0]
    # A vague order leaves the next one without a known picture: it stands alone.
    texts, done = _orders(rng, start, operations, 1 if form == "vague" else count, form)
    return Draft(
        text="; ".join(texts),
        category=category,
        subcategory=subcategory,
        template=f"edits-{form}",
        slots={"operations": done},
        kind="continuation",
        pictures=(_picture(rng, start),),
    )


def changes(rng: random.Random) -> Draft:
    """A picture of one to three things by its caption, and one to three orders that change it."""
    category, subcategory, operations = rng.choice(TRADES)
    start = random_scene(rng, rng.randint(1, 3))
    form = _form(rng, CHANGE_FORMS)
    texts, done = _orders(rng, start, operations, rng.randint(1, 3), form)
    return Draft(
        text="; ".join([describe_scene(start, "canonical", rng), *texts]),
        category=category,
        subcategory=subcategory,
        template=f"changes-{form}",
        slots={"operations": done},
    )


def _orders(
    rng: random.Random, start: Scene, operations: Sequence[Operation], count: int, form: Form
) -> tuple[list[str], list[Operation]]:
    """``count`` orders that change a picture, at most: one that holds nothing ends them."""
    scene, texts, done = start, [], []
    while len(texts) < count and scene.count:
        edit = random_edit(rng, scene, rng.choice(operations))
        if edit is None:
            continue
        texts.append(describe_edit(edit, scene, form, rng))
        done.append(edit.operation)
        scene = apply(scene, edit)
    if scene == start:
        raise MeaningError("the orders undo each other")
    return texts, done


def reasoning(rng: random.Random) -> Draft:
    """An edit of a given picture that has to be worked out (time, cause, space, logic)."""
    rule = rng.choice(knowledge.reasoning_rules("train"))
    scene, cell = example_scene(rule, rng)
    category = {"logical": "workflows", "spatial": "robotics", "temporal": "storytelling"}
    return Draft(
        text=rng.choice(rule_instructions(rule, scene, cell)),
        category=category.get(rule.category, "science"),
        subcategory=f"{rule.category} reasoning",
        template="reasoning",
        slots={"rule": rule.id},
        kind="continuation",
        pictures=(_picture(rng, scene),),
    )


# --- procedures and stories -----------------------------------------------------------------------


def procedure(rng: random.Random) -> Draft:
    """How something is done or happens, step by step, from nothing."""
    instance = instantiate(rng.choice(knowledge.procedures("train")), rng)
    number = rng.randrange(len(instance.requests))
    return Draft(
        text=instance.requests[number],
        category=instance.procedure.category,
        subcategory=instance.procedure.subcategory,
        template=f"{instance.procedure.id}-{number}",
        slots=dict(instance.slots),
    )


def begun_procedure(rng: random.Random) -> Draft:
    """The same with the first steps given as pictures: the rest is wanted."""
    instance = instantiate(rng.choice(knowledge.procedures("train")), rng)
    number = rng.randrange(len(instance.requests))
    # What the request leaves open (a colour it does not name) has to be as it is understood.
    known = procedure_steps(instance.requests[number])
    assert known is not None, instance.requests[number]
    begun = rng.randint(1, len(known.steps) - 1)
    done = known.steps[:begun]
    if known.done(done[-1].scene) != begun:
        raise MeaningError("the picture does not tell how far the procedure has come")
    return Draft(
        text=instance.requests[number],
        category=instance.procedure.category,
        subcategory=instance.procedure.subcategory,
        template=f"{instance.procedure.id}-{number}-begun",
        slots={**dict(instance.slots), "begun": begun},
        kind="continuation",
        pictures=tuple(_picture(rng, step.scene) for step in done),
        captions=tuple(step.auxiliary_text or step.instruction for step in done),
    )


def question(rng: random.Random) -> Draft:
    """Pictures of a procedure or of random things, and text is wanted for each of them."""
    if rng.random() < 0.5:
        instance = instantiate(rng.choice(knowledge.procedures("train")), rng)
        category, subcategory = instance.procedure.category, instance.procedure.subcategory
        scenes = [step.scene for step in instance.steps][: rng.randint(2, 4)]
    else:
        category, subcategory = "image_description", "captions"
        scenes = [random_scene(rng, rng.randint(1, 4)) for _ in range(rng.randint(1, 4))]
    text = rng.choice(QUESTIONS)
    return Draft(
        text=text,
        category=category,
        subcategory=subcategory,
        template="question",
        slots={"pictures": len(scenes)},
        kind="text_response",
        pictures=tuple(_picture(rng, scene) for scene in scenes),
    )


SHARES: tuple[tuple[Writer, float], ...] = (
    (picture, 0.10),
    (composition, 0.04),
    (riddle_picture, 0.08),
    (edits, 0.43),
    (changes, 0.16),
    (reasoning, 0.05),
    (procedure, 0.08),
    (begun_procedure, 0.04),
    (question, 0.02),
)
"""What the requests consist of; the shares add up to 1. Edits of what is there are what generators
fail at, and a critic learns from failures: they are the largest part."""
