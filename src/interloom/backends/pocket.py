"""The pocket world as Planner, Critic and Judge: exact, apart from set imperfections."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from interloom import images
from interloom.errors import InterloomError
from interloom.pocket import knowledge, references, teacher, verifier
from interloom.pocket.goal import Goal
from interloom.pocket.language import CORRECTION_STYLES, EditForm, MeaningError, normalise, parse
from interloom.pocket.meaning import procedure_steps, understand
from interloom.pocket.reasoning import applicable, rule_instructions
from interloom.pocket.scene import Scene, scene_split
from interloom.pocket.verifier import Reading
from interloom.records import Critique, Failure, Plan, Request, Score, Step
from interloom.roles import CritiqueCase, JudgeCase
from interloom.seeding import derive_seed

KEPT_READINGS = 8192
_readings: dict[bytes, Reading] = {}


def read_ahead(pictures: Iterable[bytes | None]) -> None:
    """Read all pictures at once that are not known yet, which is several times faster.

    The same picture is asked about many times: as a result, as the source of the next step, by
    critic and by judge. So readings are remembered, the latest ``KEPT_READINGS`` of them.
    """
    new = list(dict.fromkeys(p for p in pictures if p is not None and p not in _readings))
    for picture, seen in zip(
        new, verifier.read_many([images.from_bytes(picture) for picture in new]), strict=True
    ):
        _readings[picture] = seen
    for oldest in list(_readings)[: max(0, len(_readings) - max(KEPT_READINGS, len(new)))]:
        del _readings[oldest]


def reading(picture: bytes) -> Reading:
    """What the verifier reads in an encoded image."""
    if picture not in _readings:
        read_ahead([picture])
    return _readings[picture]


def scene_of(image: bytes | None) -> Scene | None:
    """The scene of a picture, unreadable cells taken as empty; ``None`` where there is none."""
    return None if image is None else reading(image).best_guess


def resolve_references(text: str, pictures: Sequence[bytes]) -> str:
    """The text with what it takes from pictures put into words.

    Raises:
        MeaningError: it speaks of a picture that is not there, or that shows no single thing.
    """
    if not references.mentioned(text):
        return text
    read_ahead(pictures)
    return references.resolve(text, [reading(picture).best_guess for picture in pictures])


def on_evaluation_side(prompt: str, before: bytes | None) -> bool:
    """Whether the benchmarks may ask this: its text or its target is kept from training.

    A text that means nothing here is on neither side.
    """
    scene = scene_of(before)
    plain = normalise(prompt)
    known = procedure_steps(plain)
    if known is not None:
        return knowledge.split(known.procedure.id) == "evaluation"
    if any(phrase in plain for phrase in _evaluation_phrases()):
        return True
    try:
        goal = _plain_or_known(plain, scene)
    except MeaningError:
        return False
    if goal is None:
        return True
    # A vague wording has many targets; it is held out only if all of them are.
    return bool(goal.scenes) and all(scene_split(one) == "evaluation" for one in goal.scenes)


def _plain_or_known(plain: str, scene: Scene | None) -> Goal | None:
    """The goal of a text; ``None`` if a reasoning rule of the evaluation side says it."""
    try:
        return parse(plain, scene)
    except MeaningError:  # Only now ask the rules, which cost a hundred times more.
        if scene is not None and any(
            plain in rule_instructions(rule, scene, cell)
            for rule in knowledge.reasoning_rules("evaluation")
            for cell in applicable(rule, scene)
        ):
            return None
        return understand(plain, scene).goal


@cache
def _evaluation_phrases() -> tuple[str, ...]:
    return tuple(phrase for riddle in knowledge.riddles("evaluation") for phrase in riddle.phrases)


class PocketTeacher:
    """Plans and critiques from ground truth.

    Args:
        wrong_judgments: share of judgments that are turned round, drawn by the case's content.
        corrections: weights of ``CORRECTION_STYLES`` in which a correction is put.
        wording: how plans word their edits.

    Raises:
        InterloomError: a style that the language does not know.
    """

    name = "pocket-teacher"

    def __init__(
        self,
        *,
        wrong_judgments: float = 0.0,
        corrections: Mapping[str, float] | None = None,
        wording: EditForm = "canonical",
    ) -> None:
        styles = dict(corrections or teacher.EVEN_STYLES)
        unknown = sorted(set(styles) - set(CORRECTION_STYLES))
        if unknown or not sum(styles.values()):
            raise InterloomError(
                f"teacher.pocket.corrections: {unknown or 'all weights are 0'}; "
                f"styles are {', '.join(CORRECTION_STYLES)}"
            )
        self.imperfection = teacher.Imperfection(wrong_judgments, styles, wording)

    def plan(self, requests: Sequence[Request]) -> list[Plan | Failure]:
        """One plan per request; a ``Failure`` where the world does not know what is meant."""
        read_ahead(picture for request in requests for picture in request.images[-1:])
        return [self._plan(request) for request in requests]

    def _plan(self, request: Request) -> Plan | Failure:
        if request.kind == "text_response":
            return describe(request)
        before = scene_of(request.images[-1]) if request.images else None
        try:
            text = resolve_references(request.text, request.images)
            rng = random.Random(derive_seed("plan", request.id, request.text))
            plan = teacher.plan(text, before, len(request.images) + 1, self.imperfection, rng)
        except MeaningError as error:
            return Failure(role="planner", reason=str(error))
        if not plan.steps:
            return Failure(role="planner", reason=f"{request.text!r}: nothing is left to do")
        return plan

    def critique(self, cases: Sequence[CritiqueCase]) -> list[Critique | Failure]:
        """One critique per case; a ``Failure`` where the prompt does not fit the picture."""
        read_ahead(picture for case in cases for picture in (case.before, case.after))
        return [self._critique(case) for case in cases]

    def _critique(self, case: CritiqueCase) -> Critique | Failure:
        before = images.digest(case.before) if case.before else ""
        key = (before, images.digest(case.after), case.prompt, case.used_prompt)
        try:
            return teacher.critique(
                scene_of(case.before),
                reading(case.after),
                case.prompt,
                case.used_prompt,
                self.imperfection,
                random.Random(derive_seed("critique", *key)),
            )
        except MeaningError as error:
            return Failure(role="critic", reason=str(error))


def describe(request: Request) -> Plan:
    """The answer to a text response: one caption per picture."""
    steps = [
        Step(
            step_number=number,
            step_name=f"picture {number}",
            instruction=None,
            prompt=None,
            auxiliary_text=teacher.caption(reading(image).best_guess),
        )
        for number, image in enumerate(request.images, 1)
    ]
    return Plan(reasoning=f"{len(steps)} pictures want a text each.", steps=tuple(steps))


class PocketJudge:
    """Scores from ground truth, VIEScore-like: 0–10, each the minimum of its sub-scores."""

    name = "pocket-verifier"

    def score(self, cases: Sequence[JudgeCase]) -> list[Score | Failure]:
        """One score per case; a ``Failure`` where the prompt means nothing in the picture."""
        read_ahead(picture for case in cases for picture in (case.before, case.after))
        return [self._score(case) for case in cases]

    def _score(self, case: JudgeCase) -> Score | Failure:
        try:
            goal = understand(case.prompt, scene_of(case.before)).goal
        except MeaningError as error:
            return Failure(role="judge", reason=str(error))
        verdict = verifier.judge(reading(case.after), goal)
        # The last digits depend on which pictures were read together.
        return Score(semantic=round(verdict.semantic, 4), quality=round(verdict.quality, 4))
