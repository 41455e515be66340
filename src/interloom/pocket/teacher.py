"""The world's teacher: plays every part that a large model plays in the papers, from ground truth.

It reads pictures with the verifier and texts with the language, and answers in the papers' terms:
plans, critiques with reasoning and a refined prompt, root causes, decompositions. Its imperfections
are settings, since a teacher that never errs makes data that no real teacher makes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from interloom.pocket.language import KEEP, correct, describe_edit, describe_scene, with_article
from interloom.pocket.meaning import KnownProcedure, procedure_steps, understand
from interloom.pocket.scene import (
    CELLS,
    POSITIONS,
    Edit,
    Scene,
    Sprite,
    apply,
    edits_between,
)
from interloom.pocket.verifier import Reading, Verdict, judge
from interloom.records import Critique, Plan, Step

MIN_QUALITY = 4.0
"""A picture below this (0–10) is refused even if it shows the right thing."""

EVEN_STYLES = {"plain": 1.0, "keep": 1.0, "state": 1.0, "state_keep": 1.0}


@dataclass(frozen=True)
class Imperfection:
    """How this teacher errs. All rates are shares of answers."""

    wrong_judgment: float = 0.0
    styles: Mapping[str, float] = field(default_factory=lambda: EVEN_STYLES)
    """Weights of the wordings in which it corrects."""
    paraphrased_prompts: float = 0.0
    """Share of edits that a plan words as people do, which generators follow less well."""


PERFECT = Imperfection()


# ---------------------------------------------------------------------------------- planning


def _step(number: int, name: str, instruction: str, prompt: str, note: str | None) -> Step:
    return Step(
        step_number=number, step_name=name, instruction=instruction, prompt=prompt,
        auxiliary_text=note,
    )  # fmt: skip


def _edit_name(edit: Edit, scene: Scene) -> str:
    if edit.operation == "background":
        return f"{edit.background} falls" if edit.background != "day" else "day breaks"
    assert edit.at is not None
    sprite = edit.sprite or scene.cells[edit.at]
    return f"{edit.operation} the {sprite}"


Wording = Callable[[Edit, Scene], str]


def _wording(imperfection: Imperfection, rng: random.Random | None) -> Wording:
    """How a plan words its edits."""

    def word(edit: Edit, scene: Scene) -> str:
        plainly = rng is None or rng.random() >= imperfection.paraphrased_prompts
        return describe_edit(edit, scene, "canonical" if plainly else "paraphrased", rng)

    return word


def scene_steps(target: Scene, word: Wording, first_number: int = 1) -> list[Step]:
    """Build a scene from nothing: one thing as text-to-image, then one edit for each other."""
    things = list(target.sprites())
    start = Scene.of(dict(things[:1]), target.background)
    text = describe_scene(start)
    steps = [_step(first_number, "start the picture", f"draw {text}", text, None)]
    scene = start
    for cell, sprite in things[1:]:
        edit = Edit("add", at=cell, sprite=sprite)
        prompt = word(edit, scene)
        instruction = describe_edit(edit, scene)
        name = f"add the {sprite}"
        steps.append(_step(first_number + len(steps), name, instruction, prompt, None))
        scene = apply(scene, edit)
    return steps


def edit_steps(before: Scene, after: Scene, word: Wording, first_number: int = 1) -> list[Step]:
    """Turn one scene into another, one atomic edit a step, local ones before the background."""
    steps: list[Step] = []
    scene = before
    for edit in edits_between(before, after):
        prompt = word(edit, scene)
        instruction = describe_edit(edit, scene)
        name = _edit_name(edit, scene)
        steps.append(_step(first_number + len(steps), name, instruction, prompt, None))
        scene = apply(scene, edit)
    return steps


def procedure_plan(known: KnownProcedure, before: Scene | None, word: Wording) -> list[Step]:
    """The steps of a procedure that a picture does not show as done yet, numbered from 1."""
    steps: list[Step] = []
    done = known.done(before)
    scene = known.steps[done - 1].scene if done else Scene()
    for concrete in known.steps[done:]:
        prompt = concrete.prompt
        if steps and len(concrete.edits) == 1:
            prompt = word(concrete.edits[0], scene)
        note = concrete.auxiliary_text
        steps.append(_step(len(steps) + 1, concrete.name, concrete.instruction, prompt, note))
        scene = concrete.scene
    return steps


def plan(
    text: str,
    before: Scene | None = None,
    first_number: int = 1,
    imperfection: Imperfection = PERFECT,
    rng: random.Random | None = None,
) -> Plan:
    """Plan a request from scratch (``before`` None) or from the picture that is there.

    Without ``rng`` nothing is left to chance and every wording is canonical.

    Raises:
        MeaningError: the request says nothing that the world knows.
    """
    word = _wording(imperfection, rng)
    known = procedure_steps(text)
    if known is not None:
        steps = procedure_plan(known, before, word)
        moved = [
            step.model_copy(update={"step_number": step.step_number + first_number - 1})
            for step in steps
        ]
        return Plan(reasoning=known.recall, steps=tuple(moved))
    understood = understand(text, before)
    goal = understood.goal
    target = goal.nearest(before or Scene(background=goal.background))
    if before is None or goal.before is None:
        steps = scene_steps(target, word, first_number)
    else:
        steps = edit_steps(before, target, word, first_number)
    shown = describe_scene(target)
    reasoning = f"{understood.recall} the picture must show {shown}.".strip()
    return Plan(reasoning=reasoning, steps=tuple(steps))


def decompose(before: Scene, after: Scene) -> list[str]:
    """SAIR's atomic sub-steps: a move is a removal and an addition, the background comes last,
    and every step says that the rest stays."""
    scene, sentences = before, []
    for edit in edits_between(before, after):
        parts = [edit]
        if edit.operation in ("move", "swap"):
            assert edit.at is not None and edit.to is not None
            here, there = scene.cells[edit.at], scene.cells[edit.to]
            parts = [Edit("remove", at=edit.at)]
            if there:
                parts += [Edit("remove", at=edit.to), Edit("add", at=edit.at, sprite=there)]
            parts.append(Edit("add", at=edit.to, sprite=here))
        for part in parts:
            sentences.append(f"{describe_edit(part, scene)}; {KEEP}")
            scene = apply(scene, part)
    return sentences


# ---------------------------------------------------------------------------------- critique


def _name(sprite: Sprite | None) -> str:
    return str(sprite) if sprite else "nothing"


def compare(before: Scene | None, verdict: Verdict) -> str:
    """Cell by cell: what was there and is there now, whether that is the same, and if it should be.

    A change that was asked for is ``done`` or ``wrong``; one that was not is ``damaged``.
    """
    expected, reading = verdict.expected, verdict.reading
    start = before or Scene()
    lines = []
    for cell in range(CELLS):
        seen = reading.cells[cell]
        now = _name(seen.sprite) if seen.readable else "unclear"
        told = _told(_name(start.cells[cell]), now, _name(expected.cells[cell]))
        lines.append(f"{POSITIONS[cell]}: {told}")
    sky = before.background if before else "blank"
    lines.append(f"background: {_told(sky, reading.background, expected.background)}")
    return "; ".join(lines)


def _told(was: str, now: str, wanted: str) -> str:
    seen = f"{was} to {now} {'same' if was == now else 'different'}"
    if was != wanted:
        return f"{seen} want {wanted} {'done' if now == wanted else 'wrong'}"
    return seen if now == wanted else f"{seen} damaged"


def refine(before: Scene | None, expected: Scene, style: str) -> str:
    """The prompt that asks for the expected picture in a given style of correction."""
    if before is None:
        return describe_scene(expected, "state" if style.startswith("state") else "canonical")
    texts, scene = [], before
    for edit in edits_between(before, expected):
        texts.append(correct(edit, scene, style).removesuffix(f"; {KEEP}"))
        scene = apply(scene, edit)
    if style in ("keep", "state_keep"):
        texts.append(KEEP)
    return "; ".join(texts)


def critique(
    before: Scene | None,
    after: Reading,
    prompt: str,
    used_prompt: str,
    imperfection: Imperfection = PERFECT,
    rng: random.Random | None = None,
) -> Critique:
    """Judge one attempt and say how to ask again.

    Raises:
        MeaningError: the prompt means nothing in this picture.
    """
    goal = understand(prompt, before).goal
    verdict = judge(after, goal)
    success = verdict.success and verdict.quality >= MIN_QUALITY
    reasoning = compare(before, verdict)
    if verdict.success and not success:
        reasoning += "; badly made"
    if rng and rng.random() < imperfection.wrong_judgment:
        success = not success
    if success:
        return Critique(
            success=True, refine_prompt=used_prompt, reasoning=f"{reasoning}. all good."
        )
    styles = imperfection.styles
    chosen = rng.choices(list(styles), list(styles.values()))[0] if rng else "state_keep"
    return Critique(
        success=False,
        refine_prompt=refine(before, verdict.expected, chosen),
        reasoning=f"{reasoning}. not done.",
    )


RootCause = Literal["instruction_too_complex", "missing_knowledge", "generator_limit", "none"]


def diagnose(text: str, before: Scene | None, verdicts: list[Verdict]) -> RootCause:
    """Why repeated attempts failed (SAIR, stage 3): only complexity can be cured by steps."""
    if any(verdict.success for verdict in verdicts):
        return "none"
    understood = understand(text, before)
    if understood.recall:
        return "missing_knowledge"
    start = before or Scene()
    changes = len(edits_between(start, understood.goal.nearest(start)))
    return "instruction_too_complex" if changes >= 2 else "generator_limit"


def caption(scene: Scene) -> str:
    """One sentence about a picture, for text beside images."""
    things = [with_article(str(sprite)) for _, sprite in scene.sprites()]
    when = {"day": "by day", "dusk": "at dusk", "night": "at night"}[scene.background]
    return f"{', '.join(things) or 'an empty place'} {when}"
