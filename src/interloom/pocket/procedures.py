"""Procedures carried out: slots filled, every step an edit of the picture before it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from interloom.pocket.knowledge import Procedure
from interloom.pocket.language import parse_canonical_scene
from interloom.pocket.scene import Edit, Scene
from interloom.pocket.templates import carry_out, fill


@dataclass(frozen=True, slots=True)
class ConcreteStep:
    """A step with its slots filled.

    ``prompt`` is its canonical text (edits, or the caption of a first picture), ``edits`` are what
    it does to the picture before it, and ``scene`` is what the picture shows after it.
    """

    name: str
    instruction: str
    prompt: str
    edits: tuple[Edit, ...]
    scene: Scene
    auxiliary_text: str | None


@dataclass(frozen=True, slots=True)
class ProcedureInstance:
    """A procedure with its slots filled alike in all requests and steps."""

    procedure: Procedure
    slots: tuple[tuple[str, str], ...]
    requests: tuple[str, ...]
    steps: tuple[ConcreteStep, ...]


def _edits_from_nothing(scene: Scene) -> list[Edit]:
    edits = [Edit("add", at=cell, sprite=sprite) for cell, sprite in scene.sprites()]
    if scene.background != Scene().background:
        edits.append(Edit("background", background=scene.background))
    return edits


def instantiate(procedure: Procedure, rng: random.Random) -> ProcedureInstance:
    """Choose a value for each slot and carry the procedure out; see :func:`fill_procedure`."""
    return fill_procedure(procedure, {name: rng.choice(values) for name, values in procedure.slots})


def fill_procedure(procedure: Procedure, slots: Mapping[str, str]) -> ProcedureInstance:
    """Carry a procedure out from the empty day scene with these values of its slots.

    Raises:
        ValueError: a step is no canonical text, or does not fit the picture before it.
    """
    scene = Scene()
    steps = []
    for step in procedure.steps:
        if step.scene is not None:
            prompt = fill(step.scene, slots)
            scene = parse_canonical_scene(prompt)
            edits = _edits_from_nothing(scene)
        else:
            assert step.edit is not None, (procedure.id, step.name)
            prompt = fill(step.edit, slots)
            scene, edits = carry_out(prompt, scene)
        said = step.auxiliary_text and fill(step.auxiliary_text, slots)
        instruction = fill(step.instruction, slots)
        steps.append(ConcreteStep(step.name, instruction, prompt, tuple(edits), scene, said))
    requests = tuple(fill(request, slots) for request in procedure.requests)
    return ProcedureInstance(procedure, tuple(slots.items()), requests, tuple(steps))
