"""What the pocket editions are made of: scenes, edits and procedures of the evaluation split.

Training prompts are refused where ``backends.pocket.on_evaluation_side`` says that they stand on
this side, so what is drawn here is held out by construction.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence

from interloom import images
from interloom.pocket.knowledge import Procedure
from interloom.pocket.language import Form, describe_edit
from interloom.pocket.meaning import KnownProcedure, procedure_steps
from interloom.pocket.procedures import instantiate
from interloom.pocket.render import render
from interloom.pocket.scene import (
    OPERATIONS,
    Edit,
    Operation,
    Scene,
    apply,
    random_edit,
    random_scene,
    scene_split,
)
from interloom.pocket.verifier import Reading

TRIES = 40


def draw(scene: Scene, rng: random.Random) -> bytes:
    """The scene as an encoded picture with some jitter."""
    return images.to_png(render(scene, jitter_seed=rng.getrandbits(31)))


def evaluation_scene(
    rng: random.Random,
    things: Sequence[int],
    fits: Callable[[Scene], bool] = lambda scene: True,
) -> Scene:
    """A random scene of the evaluation split with one of these numbers of things (two at least)."""
    while True:
        scene = random_scene(rng, rng.choice(things))
        if fits(scene) and scene_split(scene) == "evaluation":
            return scene


def edit_to_evaluation(
    rng: random.Random, things: Sequence[int], operation: Operation
) -> tuple[Scene, Edit, Scene]:
    """A scene, an edit of it, and what comes of it, which is of the evaluation split."""
    while True:
        before = random_scene(rng, rng.choice(things))
        edit = random_edit(rng, before, operation)
        if edit is not None:
            after = apply(before, edit)
            if scene_split(after) == "evaluation":
                return before, edit, after


def carry_out(
    rng: random.Random, before: Scene, operations: Sequence[Operation], form: Form = "canonical"
) -> tuple[list[Scene], list[str]] | None:
    """A random order of each operation in turn: the scene before and after each, and the orders.

    ``None`` where a scene allows no such edit.
    """
    scenes, orders = [before], []
    for operation in operations:
        edit = random_edit(rng, scenes[-1], operation)
        if edit is None:
            return None
        orders.append(describe_edit(edit, scenes[-1], form, rng))
        scenes.append(apply(scenes[-1], edit))
    return scenes, orders


def changed_scenes(rng: random.Random, count: int) -> tuple[list[Scene], list[str]]:
    """A scene of one to three things, ``count`` orders in people's words, and the scene after each.

    No two orders are of one kind; the last scene is of the evaluation split.
    """
    while True:
        start = random_scene(rng, rng.randint(1, 3))
        made = carry_out(rng, start, rng.sample(OPERATIONS, count), "paraphrased")
        if made and scene_split(made[0][-1]) == "evaluation":
            return made


def asked_procedure(
    procedure: Procedure, rng: random.Random, but: Collection[str] = ()
) -> tuple[str, KnownProcedure] | None:
    """A request for a procedure that says all that is wanted, and what it means.

    A request that leaves a slot open does not; it is asked only if all of them do. ``None`` if only
    requests ``but`` those were found in ``TRIES`` tries: procedures have few.
    """
    slots = [f"{{{slot}}}" for slot, _ in procedure.slots]
    telling = [all(slot in request for slot in slots) for request in procedure.requests]
    for _ in range(TRIES):
        requests = instantiate(procedure, rng).requests
        clear = [request for request, tells in zip(requests, telling, strict=True) if tells]
        prompt = rng.choice(clear or requests)
        if prompt not in but:
            known = procedure_steps(prompt)
            assert known is not None, prompt
            return prompt, known
    return None


def is_empty(reading: Reading) -> bool:
    """Whether a picture shows nothing at all: such a page is not well made, it is not made."""
    return not reading.unreadable and not reading.best_guess.count
