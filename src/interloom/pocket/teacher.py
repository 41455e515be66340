"""The world's teacher: plays every part that a large model plays in the papers, from ground truth.

It reads pictures with the verifier and texts with the language, and answers in the papers' terms:
plans, critiques with reasoning and a refined prompt, root causes, decompositions. Its imperfections
are settings, since a teacher that never errs makes data that no real teacher makes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from interloom.pocket.goal import Goal
from interloom.pocket.language import (
    KEEP,
    EditForm,
    MeaningError,
    correct,
    describe_cell,
    describe_edit,
    describe_scene,
    numbered,
    parse,
    short_name,
    with_article,
)
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

EVEN_STYLES = {"plain": 1.0, "keep": 1.0, "state": 1.0, "state_keep": 1.0}


@dataclass(frozen=True)
class Imperfection:
    """How this teacher errs. All rates are shares of answers."""

    wrong_judgment: float = 0.0
    styles: Mapping[str, float] = field(default_factory=lambda: EVEN_STYLES)
    """Weights of the wordings in which it corrects."""
    wording: EditForm = "canonical"
    """How plans word their edits. Generators follow what people say less well."""


PERFECT = Imperfection()


# ---------------------------------------------------------------------------------- planning


def _step(number: int, name: str, instruction: str, prompt: str, note: str | None) -> Step:
    return Step(
        step_number=number, step_name=name, instruction=instruction, prompt=prompt,
        auxiliary_text=note,
    )  # fmt: skip


Wording = Callable[[Edit, Scene], str]


def _wording(imperfection: Imperfection, rng: random.Random | None) -> Wording:
    """How a plan words its edits."""

    def word(edit: Edit, scene: Scene) -> str:
        return describe_edit(edit, scene, "canonical" if rng is None else imperfection.wording, rng)

    return word


def scene_steps(
    target: Scene, order: Sequence[int], word: Wording, first_number: int
) -> list[Step]:
    """Build a scene from nothing: one thing as text-to-image, then one edit for each other.

    ``order`` are the target's cells in the order in which they are filled.
    """
    scene = Scene.of({cell: sprite for cell, sprite in target.sprites() if cell in order[:1]},
                     target.background)  # fmt: skip
    text = describe_scene(scene)
    steps = [_step(first_number, short_name(text), text, text, None)]
    for cell in order[1:]:
        edit = Edit("add", at=cell, sprite=target.cells[cell])
        steps.append(_edit_step(edit, scene, word, first_number + len(steps)))
        scene = apply(scene, edit)
    return steps


def _edit_step(edit: Edit, scene: Scene, word: Wording, number: int) -> Step:
    prompt, instruction = word(edit, scene), describe_edit(edit, scene)
    return _step(number, short_name(instruction), instruction, prompt, None)


def edit_steps(
    before: Scene, edits: Sequence[Edit], word: Wording, first_number: int
) -> list[Step]:
    """One atomic edit a step."""
    steps: list[Step] = []
    scene = before
    for edit in edits:
        steps.append(_edit_step(edit, scene, word, first_number + len(steps)))
        scene = apply(scene, edit)
    return steps


def _mentions(plain: str, names: Iterable[str]) -> list[int]:
    """Where a text in plain words says each name; the second of two equal names is said later.

    >>> _mentions("a red sun, a blue cup, a red sun", ["red sun", "red sun", "blue cup"])
    [2, 25, 13]
    """
    last: dict[str, int] = {}
    mentions = []
    for name in names:
        last[name] = plain.find(name, last.get(name, -1) + 1)
        mentions.append(last[name])
    return mentions


def _as_said(plain: str, target: Scene) -> list[int]:
    """The target's cells in the order in which a text in plain words names what they hold."""
    things = list(target.sprites())
    placed = [plain.find(f"{sprite} at the {POSITIONS[cell]}") for cell, sprite in things]
    named = _mentions(plain, (str(sprite) for _, sprite in things))
    said = [p if p >= 0 else n for p, n in zip(placed, named, strict=True)]
    return [cell for _, (cell, _) in sorted(zip(said, things, strict=True))]


def _in_a_row(plain: str, goal: Goal) -> Scene:
    """The scene that a goal wants; things without a place stand in the order they are named."""
    if goal.contents is None:
        return goal.nearest(Scene(background=goal.background))
    said = zip(_mentions(plain, map(str, goal.contents)), goal.contents, strict=True)
    return Scene.of(dict(enumerate(sprite for _, sprite in sorted(said))), goal.background)


def _edits_as_said(plain: str, before: Scene, goal: Goal) -> list[Edit]:
    """The edits of a row of orders in its order, else what leads straight to the goal."""
    scene, edits = before, []
    for part in plain.split("; "):
        try:
            after = parse(part, scene).nearest(scene)
        except MeaningError:
            break
        edits += edits_between(scene, after)
        scene = after
    return edits if goal.satisfied(scene) else edits_between(before, goal.nearest(before))


def procedure_plan(known: KnownProcedure, before: Scene | None) -> list[Step]:
    """The steps of a procedure that a picture does not show as done yet, numbered from 1."""
    steps: list[Step] = []
    for concrete in known.steps[known.done(before) :]:
        note, number = concrete.auxiliary_text, len(steps) + 1
        steps.append(_step(number, concrete.name, concrete.instruction, concrete.prompt, note))
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
        moved = [
            step.model_copy(update={"step_number": step.step_number + first_number - 1})
            for step in procedure_plan(known, before)
        ]
        return Plan(reasoning=known.recall, steps=tuple(moved))
    understood = understand(text, before)
    goal, when = understood.goal, ""
    if before is None or goal.before is None:
        # A picture that is to change is drawn as it is said first.
        caption, changes, orders = understood.plain.partition("; ")
        first = parse(caption) if changes else goal
        target = _in_a_row(caption, first)
        steps = scene_steps(target, _as_said(caption, target), word, first_number)
        if changes:
            edits = _edits_as_said(orders, target, goal)
            steps += edit_steps(target, edits, word, first_number + len(steps))
        when = "" if target.background == "day" else f"at {target.background}: "
    else:
        edits = _edits_as_said(understood.plain, before, goal)
        steps = edit_steps(before, edits, word, first_number)
    listed = when + numbered((step.instruction or "" for step in steps), first_number)
    return Plan(reasoning=f"{understood.recall} {listed}".strip(), steps=tuple(steps))


# ---------------------------------------------------------------------------------- critique


def _name(sprite: Sprite | None) -> str:
    return str(sprite) if sprite else "nothing"


def compare(before: Scene | None, verdict: Verdict) -> str:
    """Cell by cell: what was there and is there now, whether that is the same, and if it should be.

    A change that was asked for is ``wanted`` and there (``yes``) or not (``no``); any other is
    ``unwanted``.
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
        return f"{seen} wanted {wanted} {'yes' if now == wanted else 'no'}"
    return seen if now == wanted else f"{seen} unwanted"


def refine(before: Scene | None, verdict: Verdict, style: str) -> str:
    """The prompt that asks for the expected picture in a given style of correction.

    One that says what must be seen says so of damage too: of cells that should have stayed.
    """
    expected, stated = verdict.expected, style.startswith("state")
    if before is None:
        return describe_scene(expected, "state" if stated else "canonical")
    texts, scene = [], before
    for edit in edits_between(before, expected):
        texts.append(correct(edit, scene, style).removesuffix(f"; {KEEP}"))
        scene = apply(scene, edit)
    if stated:
        texts += [describe_cell(expected, cell) for cell in verdict.damaged]
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
    # Workmanship is the judge's to score; what is malformed cannot be read, and is refused here.
    success, reasoning = verdict.success, compare(before, verdict)
    if rng and rng.random() < imperfection.wrong_judgment:
        success = not success
    if success:
        return Critique(
            success=True, refine_prompt=used_prompt, reasoning=f"{reasoning}. all as wanted."
        )
    styles = imperfection.styles
    chosen = rng.choices(list(styles), list(styles.values()))[0] if rng else "state_keep"
    return Critique(
        success=False,
        refine_prompt=refine(before, verdict, chosen),
        reasoning=f"{reasoning}. not as wanted.",
    )


def caption(scene: Scene) -> str:
    """One sentence about a picture, for text beside images."""
    things = [with_article(str(sprite)) for _, sprite in scene.sprites()]
    when = {"day": "by day", "dusk": "at dusk", "night": "at night"}[scene.background]
    return f"{', '.join(things) or 'an empty place'} {when}"
