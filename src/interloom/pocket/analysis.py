"""SAIR's analyzer from ground truth (§3.1): evaluations, reflections, decompositions, validities.

Everything is said cell by cell, in the words of the world's language: what a picture should hold,
whether it does, and which edits would mend it. Cells come in the order in which an instruction
names them, so that who writes from left to right can follow it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from interloom.pocket.goal import Goal
from interloom.pocket.language import (
    KEEP,
    MeaningError,
    describe_edit,
    find_edits,
    normalise,
    parse,
    with_article,
)
from interloom.pocket.scene import POSITIONS, Edit, Scene, Sprite, apply, edits_between
from interloom.pocket.verifier import Verdict
from interloom.records import MAX_STEPS, Evaluation, FailureKind, Reflection, RootCause

START = 2
"""Things in the first sub-step of a plan that begins with nothing."""
NOTHING, UNCLEAR = "nothing", "unclear"


@dataclass(frozen=True)
class Check:
    """One cell (or the background, ``None``) that was asked for or damaged."""

    cell: int | None
    wanted: str
    seen: str

    @property
    def right(self) -> bool:
        return self.wanted == self.seen

    @property
    def wish(self) -> str:
        """
        >>> Check(4, "red sun", "blue cup").wish, Check(None, "day", "night").wish
        ('red sun at the center', 'background day')
        """
        if self.cell is None:
            return f"background {self.wanted}"
        return f"{self.wanted} at the {POSITIONS[self.cell]}"

    def __str__(self) -> str:
        """What is seen comes before the verdict: who writes from left to right looks first.

        >>> str(Check(4, "red sun", "nothing"))
        'red sun at the center, shows nothing, no'
        """
        return f"{self.wish}, shows {self.seen}, {'yes' if self.right else 'no'}"

    @property
    def fault(self) -> str:
        """What is wrong, in a sentence."""
        if self.cell is None:
            return f"the background is {self.seen}, not {self.wanted}"
        where = POSITIONS[self.cell]
        if self.wanted == NOTHING:
            return f"the {where} should be empty and shows {self.seen}"
        if self.seen == NOTHING:
            return f"the {self.wanted} is missing at the {where}"
        return f"the {where} shows {self.seen}, not {with_article(self.wanted)}"

    @property
    def order(self) -> str:
        """The edit that mends it; the state that is wanted where nobody knows what is seen."""
        if self.cell is None:
            return f"change the background to {self.wanted}"
        where, wanted = POSITIONS[self.cell], with_article(self.wanted)
        if self.seen == UNCLEAR:
            return f"the {where} must be {'empty' if self.wanted == NOTHING else wanted}"
        if self.wanted == NOTHING:
            return f"remove the {self.seen} at the {where}"
        if self.seen == NOTHING:
            return f"add {wanted} at the {where}"
        return f"replace the {self.seen} at the {where} with {wanted}"


def _name(sprite: Sprite | None) -> str:
    return str(sprite) if sprite else NOTHING


def _said_at(text: str, cell: int) -> int:
    """Where a text first names a cell; behind its end if nowhere."""
    found = re.search(rf"\b(?:at|in|to|from|into) the {POSITIONS[cell]}\b", text)
    return found.start() if found else len(text)


def _in_order(text: str, cells: Sequence[int]) -> list[int]:
    return sorted(cells, key=lambda cell: (_said_at(text, cell), cell))


def changes(text: str, before: Scene | None, wanted: Scene) -> list[Check]:
    """What an instruction wants, cell by cell, with what is there before it is carried out."""
    start = before or Scene()
    found = [
        Check(cell, _name(wanted.cells[cell]), _name(start.cells[cell]))
        for cell in _in_order(text, start.difference(wanted))
    ]
    if start.background != wanted.background:
        found.append(Check(None, wanted.background, start.background))
    return found


def checks(text: str, before: Scene | None, wanted: Scene, seen: Sequence[str]) -> list[Check]:
    """What an instruction asked for, and then what was damaged.

    Args:
        seen: names of what the nine cells show, and the background.
    """
    asked = [change.cell for change in changes(text, before, wanted)]
    *cells, sky = seen
    names = [_name(sprite) for sprite in wanted.cells]
    damaged = [i for i, name in enumerate(names) if name != cells[i] and i not in asked]
    found = [Check(i, names[i], cells[i]) for i in asked if i is not None]
    found += [Check(i, names[i], cells[i]) for i in damaged]
    if None in asked or sky != wanted.background:
        found.append(Check(None, wanted.background, sky))
    return found


def seen_names(scene: Scene) -> list[str]:
    """What a scene shows, as ``checks`` takes it."""
    return [*map(_name, scene.cells), scene.background]


def _checked(text: str, goal: Goal, verdict: Verdict) -> list[Check]:
    reading = verdict.reading
    names = [_name(cell.sprite) if cell.readable else UNCLEAR for cell in reading.cells]
    return checks(text, goal.before, verdict.expected, [*names, reading.background])


def evaluate(text: str, goal: Goal, verdict: Verdict) -> Evaluation:
    """E: each cell that was asked for or damaged, what it shows, and whether that is right.

    "red sun at the center, shows red sun, yes; nothing at the top left, shows blue cup, no".
    """
    return Evaluation(
        reasoning="; ".join(map(str, _checked(text, goal, verdict))) or "nothing was asked for",
        instruction=verdict.instruction,
        consistency=verdict.consistency,
        quality=verdict.craft,
        knowledge=verdict.knowledge,
    )


def faults(text: str, goal: Goal, verdict: Verdict) -> list[str]:
    """What is wrong with a picture, cell by cell."""
    return _faults(_checked(text, goal, verdict))


def _faults(found: Sequence[Check]) -> list[str]:
    return [check.fault for check in found if not check.right] or ["it is badly made"]


def _kind(verdict: Verdict, wrong: Sequence[Check], needs_knowledge: bool) -> FailureKind:
    if needs_knowledge and verdict.missed:
        return "logic flaw"
    if verdict.damaged or (verdict.background_wrong and not verdict.missed):
        return "over-editing"
    if any(check.seen not in (NOTHING, UNCLEAR) for check in wrong if check.cell is not None):
        return "targeting error"
    return "under-editing" if verdict.missed else "visual artifacts"


def mending(found: Sequence[Check]) -> str:
    """The edits that put right what is wrong, as one instruction."""
    return "; ".join([*(check.order for check in found if not check.right), KEEP])


def reflect(
    text: str, goal: Goal, verdict: Verdict, *, needs_knowledge: bool = False
) -> Reflection:
    """R: the faults, their kind, and the edits that mend them."""
    found = _checked(text, goal, verdict)
    wrong = [check for check in found if not check.right]
    return Reflection(
        kind=_kind(verdict, wrong, needs_knowledge),
        failure_analysis="; ".join(_faults(found)),
        improvement_plan=mending(found),
    )


def sub_steps(text: str, goal: Goal) -> list[str]:
    """Atomic sub-steps in the order in which an instruction says them, the background last.

    A plan from nothing begins with two things at once. Orders in a row are carried out one by one;
    of what is said in any other way, and of rows that are too long, the edits that are left at the
    end. A move is a removal and an addition, an exchange two replacements.
    """
    target = goal.nearest(goal.before or Scene(background=goal.background))
    if goal.before is not None:
        return _atomic(goal.before, _orders(text, goal.before, target))
    things = dict(target.sprites())
    cells = _in_order(text, list(things))
    first = Scene.of({cell: things[cell] for cell in cells[:START]})
    opening = ", ".join(
        f"{with_article(str(things[cell]))} at the {POSITIONS[cell]}" for cell in cells[:START]
    )
    rest = [Edit("add", at=cell, sprite=things[cell]) for cell in cells[START:]]
    if target.background != first.background:
        rest.append(Edit("background", background=target.background))
    return [opening, *_atomic(first, rest)]


def _orders(text: str, before: Scene, target: Scene) -> list[Edit]:
    """The orders of a text, if they are that and lead to the target; else what leads there."""
    scene, edits = before, []
    for part in normalise(text).split("; "):
        try:
            found = find_edits(part, scene) if part != KEEP else []
        except MeaningError:
            found = []
        if len(found) == 1:
            edits.append(found[0])
            scene = apply(scene, found[0])
    edits.sort(key=lambda edit: edit.operation == "background")
    if scene == target and len(_atomic(before, edits)) <= MAX_STEPS:
        return edits
    return edits_between(before, target)


def _atomic(scene: Scene, edits: Sequence[Edit]) -> list[str]:
    """Each edit as one or two orders, each of which says that the rest stays."""
    sentences = []
    for edit in edits:
        parts = [edit]
        if edit.operation in ("move", "swap"):
            assert edit.at is not None and edit.to is not None
            here, there = scene.cells[edit.at], scene.cells[edit.to]
            parts = [Edit("remove", at=edit.at), Edit("add", at=edit.to, sprite=here)]
            if there:
                parts = [
                    Edit("replace", at=edit.at, sprite=there),
                    Edit("replace", at=edit.to, sprite=here),
                ]
        for part in parts:
            sentences.append(f"{describe_edit(part, scene)}; {KEEP}")
            scene = apply(scene, part)
    return sentences


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


def analysis_validity(said_text: str, true_faults: Sequence[str]) -> float:
    """Agreement (F1) of the faults that a failure analysis names with those that there are."""
    said = {part.strip() for part in said_text.split(";") if part.strip()}
    true = set(true_faults)
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
