"""UEval's pocket edition: its record layout, tasks and aggregation, with an exact judge.

A third of the items ask for a procedure of the world's evaluation split, a third for a scene of the
evaluation split with several things in it, and a third for a small scene and what becomes of it,
order by order, up to a scene of the evaluation split. Criteria are sentences that the verifier can
check:

- ``One of the pictures shows exactly: CAPTION`` and ``The last picture shows exactly: CAPTION``
- ``The last picture has a red sun at the top left``
- ``The text says: SENTENCE`` (three fifths of its content words occur)
- ``The text names the red sun``
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path

from interloom.backends.pocket import read_ahead, reading
from interloom.benchmarks import ueval
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.pocket_scenes import asked_procedure, changed_scenes, evaluation_scene
from interloom.benchmarks.ueval import Grades, Item, Rubric, Verdict
from interloom.pocket.knowledge import MAIN_CATEGORIES, Procedure, procedures
from interloom.pocket.language import (
    as_sprite,
    describe_scene,
    parse_canonical_scene,
    with_article,
)
from interloom.pocket.scene import POSITIONS, Scene
from interloom.records import Request
from interloom.seeding import derive_seed

NAME = ueval.NAME
PROTOCOL = f"{ueval.PROTOCOL}, pocket edition 3"
JUDGE = "pocket-verifier"
write = ueval.write
CATEGORY_OF: dict[str, str] = dict(
    zip(
        ("tech", "space", "art", "paper", "diagram", "life", "textbook", "exercise"),
        MAIN_CATEGORIES,
        strict=True,
    )
)
"""Which of the world's main categories stands for a task of UEval."""
SAID = 0.6
"""Share of a sentence's content words that have to occur for the text to say it."""
SMALL_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the of to in on at is are be and or it its his her for from with by as that this",
    )
)
THINGS = (3, 4, 5)
SORTS = ("procedure", "changes", "scene")
CHANGES = (2, 3)
"""Orders in a request for a scene and what becomes of it."""


@lru_cache(maxsize=4)
def items(count: int, seed: int) -> tuple[Item, ...]:
    """``count`` items at most, spread evenly over the eight tasks."""
    made: list[Item] = []
    for turn, task in enumerate(ueval.TASKS):
        bank = [p for p in procedures("evaluation") if p.category == CATEGORY_OF[task]]
        asked: set[str] = set()
        for number in range(count // len(ueval.TASKS)):
            name = f"{task}-{number:03d}"
            rng = random.Random(derive_seed(seed, NAME, name))
            sort = SORTS[(turn + number) % len(SORTS)]
            item = None
            if sort == "procedure":
                item = _procedure_item(name, task, bank[(number // 3) % len(bank)], rng, asked)
            elif sort == "changes":
                item = _changes_item(name, task, rng)
            made.append(item or _scene_item(name, task, rng))
            asked.add(made[-1].prompt)
    return tuple(made)


def _procedure_item(
    name: str, task: str, procedure: Procedure, rng: random.Random, asked: Collection[str]
) -> Item | None:
    """``None`` where every way to ask for the procedure has been used."""
    found = asked_procedure(procedure, rng, asked)
    if found is None:
        return None
    prompt, known = found
    shown = [describe_scene(step.scene) for step in known.steps]
    pictures = [f"One of the pictures shows exactly: {text}" for text in shown[:-1]]
    pictures.append(f"The last picture shows exactly: {shown[-1]}")
    pictures += _things(known.steps[-1].scene)
    said = [step.auxiliary_text for step in known.steps if step.auxiliary_text]
    return Item(
        id=name,
        prompt=prompt,
        task=task,
        question_type="procedure",
        text_rubrics=tuple(Rubric(f"The text says: {text}", ("knowledge",)) for text in said),
        image_rubrics=tuple(Rubric(text, ("depiction",)) for text in pictures),
        text_ref="\n".join(said),
    )


def _scene_item(name: str, task: str, rng: random.Random) -> Item:
    scene = evaluation_scene(rng, THINGS)
    sprites = sorted({str(sprite) for _, sprite in scene.sprites()})
    pictures = [f"The last picture shows exactly: {describe_scene(scene)}", *_things(scene)]
    return Item(
        id=name,
        prompt=describe_scene(scene, "paraphrased", rng),
        task=task,
        question_type="scene",
        text_rubrics=tuple(Rubric(f"The text names the {s}", ("content",)) for s in sprites),
        image_rubrics=tuple(Rubric(text, ("depiction",)) for text in pictures),
        text_ref=describe_scene(scene),
    )


def _changes_item(name: str, task: str, rng: random.Random) -> Item:
    scenes, orders = changed_scenes(rng, rng.choice(CHANGES))
    shown = [describe_scene(scene) for scene in scenes]
    pictures = [f"One of the pictures shows exactly: {text}" for text in shown[:-1]]
    pictures += [f"The last picture shows exactly: {shown[-1]}", *_things(scenes[-1])]
    sprites = sorted({str(sprite) for _, sprite in scenes[0].sprites()})
    return Item(
        id=name,
        prompt="; ".join([shown[0], *orders]),
        task=task,
        question_type="changes",
        text_rubrics=tuple(Rubric(f"The text names the {s}", ("content",)) for s in sprites),
        image_rubrics=tuple(Rubric(text, ("depiction",)) for text in pictures),
        text_ref="\n".join(shown),
    )


def _things(scene: Scene) -> list[str]:
    return [
        f"The last picture has {with_article(str(sprite))} at the {POSITIONS[cell]}"
        for cell, sprite in scene.sprites()
    ]


def published(count: int, seed: int) -> list[Item]:
    """The items as they are published."""
    return list(items(count, seed))


def requests(count: int, seed: int) -> list[Request]:
    """The items as requests, in the world's categories."""
    return [
        request.model_copy(update={"category": CATEGORY_OF[request.category]})
        for request in ueval.requests(items(count, seed))
    ]


def grade(folder: Path, count: int, seed: int) -> Graded:
    """Judge every rubric of every item, then score as the benchmark does."""
    chosen = items(count, seed)
    answers = ueval.read_answers(folder / "answers.json")
    shown = {
        item.id: [(folder / name).read_bytes() for name in answers[item.id].images]
        for item in chosen
    }
    read_ahead(picture for pictures in shown.values() for picture in pictures)
    grades = {
        item.id: Grades(
            item.id,
            tuple(
                judge_text(rubric.criterion, answers[item.id].text) for rubric in item.text_rubrics
            ),
            tuple(
                judge_pictures(rubric.criterion, shown[item.id]) for rubric in item.image_rubrics
            ),
        )
        for item in chosen
    }
    return ueval.graded(chosen, grades, protocol=PROTOCOL, judge=JUDGE)


def judge_text(criterion: str, text: str) -> Verdict:
    """Check a text criterion.

    >>> judge_text("The text says: the base must stand firmly", "a base stands firmly")
    'not met'
    >>> judge_text("The text says: the base must stand firmly", "The base must stand.")
    'met'
    >>> judge_text("The text names the red sun", "draw a red sun")
    'met'
    """
    spoken = re.findall(r"[a-z0-9]+", text.lower())
    if named := re.fullmatch(r"The text names the (.+)", criterion):
        return _verdict(f" {named[1]} " in f" {' '.join(spoken)} ")
    said = re.fullmatch(r"The text says: (.+)", criterion)
    assert said, criterion
    words = set(re.findall(r"[a-z0-9]+", said[1].lower())) - SMALL_WORDS
    return _verdict(len(words & set(spoken)) >= SAID * len(words))


def judge_pictures(criterion: str, pictures: Sequence[bytes]) -> Verdict:
    """Check a picture criterion; without any picture it is not met."""
    if has := re.fullmatch(r"The last picture has an? (.+) at the (.+)", criterion):
        cell = POSITIONS.index(has[2])
        seen = [reading(picture).cells[cell] for picture in pictures[-1:]]
        return _verdict(any(c.readable and c.sprite == as_sprite(has[1]) for c in seen))
    shows = re.fullmatch(r"(One of the pictures|The last picture) shows exactly: (.+)", criterion)
    assert shows, criterion
    scene = parse_canonical_scene(shows[2])
    looked_at = pictures if shows[1].startswith("One") else pictures[-1:]
    return _verdict(any(reading(picture).scene == scene for picture in looked_at))


def _verdict(met: bool) -> Verdict:
    return "met" if met else "not met"
