"""SAIR's analyzer from ground truth (§3.1): evaluations, reflections, decompositions, validities.

Everything is said cell by cell, in the words of the world's language: what a picture should hold,
whether it does, and which edits would mend it.
"""

from __future__ import annotations

import re

from interloom.pocket.goal import Goal
from interloom.pocket.language import (
    KEEP,
    MeaningError,
    describe_edit,
    describe_scene,
    parse,
    with_article,
)
from interloom.pocket.scene import POSITIONS, Edit, Scene, Sprite, apply, edits_between
from interloom.pocket.teacher import decompose
from interloom.pocket.verifier import Verdict
from interloom.records import Evaluation, FailureKind, Reflection, RootCause

START = 2
"""Things in the first sub-step of a plan that begins with nothing."""


def _name(sprite: Sprite | None) -> str:
    return str(sprite) if sprite else "nothing"


def _asked(text: str, goal: Goal, verdict: Verdict) -> list[int]:
    """Cells that an instruction is about, in the order in which it names their places."""
    start = goal.before or Scene()
    cells = start.difference(verdict.expected)
    return sorted(cells, key=lambda cell: (_said_at(text, cell), cell))


def _said_at(text: str, cell: int) -> int:
    """Where a text first names a cell; behind its end if nowhere."""
    found = re.search(rf"\b(?:at|in|to) the {POSITIONS[cell]}\b", text)
    return found.start() if found else len(text)


def _seen(verdict: Verdict, cell: int) -> str:
    reading = verdict.reading.cells[cell]
    return _name(reading.sprite) if reading.readable else "unclear"


def evaluate(text: str, goal: Goal, verdict: Verdict) -> Evaluation:
    """E: each cell that was asked for or damaged, what it should hold, what it shows, and whether
    that is right.

    "center: red sun, shows red sun, yes; top left: nothing, shows blue cup, no". What is seen comes
    before the verdict, so that who writes from left to right looks first and compares then.
    """
    asked = _asked(text, goal, verdict)
    said = []
    for cell in (*asked, *verdict.damaged):
        wanted, seen = _name(verdict.expected.cells[cell]), _seen(verdict, cell)
        right = wanted == seen
        said.append(f"{POSITIONS[cell]}: {wanted}, shows {seen}, {'yes' if right else 'no'}")
    start, sky = goal.before or Scene(), verdict.expected.background
    if sky != start.background or verdict.background_wrong:
        seen = verdict.reading.background
        said.append(f"background: {sky}, shows {seen}, {'yes' if sky == seen else 'no'}")
    if verdict.craft < 4:
        said.append("badly made")
    return Evaluation(
        reasoning="; ".join(said) or "nothing was asked for",
        instruction=verdict.instruction,
        consistency=verdict.consistency,
        quality=verdict.craft,
        knowledge=verdict.knowledge,
    )


def faults(verdict: Verdict) -> list[str]:
    """What is wrong with a picture, cell by cell."""
    found = []
    for cell in sorted((*verdict.missed, *verdict.damaged)):
        wanted, seen, where = verdict.expected.cells[cell], _seen(verdict, cell), POSITIONS[cell]
        if wanted is None:
            found.append(f"the {where} should be empty and shows {seen}")
        elif seen == "nothing":
            found.append(f"the {wanted} is missing at the {where}")
        else:
            found.append(f"the {where} shows {seen}, not {with_article(str(wanted))}")
    if verdict.background_wrong:
        sky, seen = verdict.expected.background, verdict.reading.background
        found.append(f"the background is {seen}, not {sky}")
    return found or ["it is badly made"]


def _kind(verdict: Verdict, needs_knowledge: bool) -> FailureKind:
    if needs_knowledge and verdict.missed:
        return "logic flaw"
    if verdict.damaged or (verdict.background_wrong and not verdict.missed):
        return "over-editing"
    if any(_seen(verdict, cell) not in ("nothing", "unclear") for cell in verdict.missed):
        return "targeting error"
    return "under-editing" if verdict.missed else "visual artifacts"


def mending(seen: Scene, expected: Scene) -> str:
    """The edits that make one scene the other, as one instruction."""
    texts, scene = [], seen
    for edit in edits_between(seen, expected):
        texts.append(describe_edit(edit, scene))
        scene = apply(scene, edit)
    return "; ".join([*texts, KEEP])


def reflect(verdict: Verdict, *, needs_knowledge: bool = False) -> Reflection:
    """R: the faults, their kind, and the edits that mend them."""
    return Reflection(
        kind=_kind(verdict, needs_knowledge),
        failure_analysis="; ".join(faults(verdict)),
        improvement_plan=mending(verdict.reading.best_guess, verdict.expected),
    )


def sub_steps(goal: Goal) -> list[str]:
    """Atomic sub-steps, local ones before the background; a plan from nothing begins with two
    things at once."""
    target = goal.nearest(goal.before or Scene(background=goal.background))
    if goal.before is not None:
        return decompose(goal.before, target)
    things = list(target.sprites())
    first = Scene.of(dict(things[:START]))
    return [describe_scene(first), *decompose(first, target)]


def step_validity(text: str, current: Scene | None, target: Scene) -> float:
    """How much of what a sub-step or an improvement plan changes leads to the target, 0 to 1.

    0 for a text that means nothing in the picture, or changes nothing.
    """
    before = current or Scene()
    try:
        after = parse(text, current).nearest(before)
    except MeaningError:
        return 0.0
    changed = _distance(before, after)
    gained = _distance(before, target) - _distance(after, target)
    return max(0.0, gained / changed) if changed else 0.0


def _distance(one: Scene, other: Scene) -> int:
    return len(one.difference(other)) + (one.background != other.background)


def analysis_validity(text: str, verdict: Verdict) -> float:
    """Agreement (F1) of the faults that a failure analysis names with those that there are."""
    said = {part.strip() for part in text.split(";") if part.strip()}
    true = set(faults(verdict))
    both = len(said & true)
    return 2 * both / (len(said) + len(true)) if said else 0.0


def wanted_scene(goal: Goal, seen: Scene | None) -> Scene:
    """The scene that a goal asks for, the nearest to what is there."""
    return goal.nearest(seen or goal.before or Scene(background=goal.background))


def edits_needed(goal: Goal) -> list[Edit]:
    """The edits between what was given and what is wanted; a blank canvas if nothing was."""
    start = goal.before or Scene()
    return edits_between(start, goal.nearest(start))


def root_cause(goal: Goal, recall: str, success: bool) -> RootCause:
    """Why repeated attempts failed, of which ``success`` says how the last one went.

    As ``teacher.diagnose``, for several pictures.
    """
    if success:
        return "none"
    if recall:
        return "missing_knowledge"
    return "instruction_too_complex" if len(edits_needed(goal)) >= 2 else "generator_limit"
