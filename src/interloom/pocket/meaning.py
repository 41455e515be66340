"""What any request of the pocket world means: plain wordings, riddles, reasoning and procedures.

This is the floor above ``language``: it resolves what takes knowledge and hands the rest down. The
knowledge used is returned as a sentence (``recall``), which is what a good answer would have to
remember; plain wordings need none.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from interloom.pocket.goal import Goal
from interloom.pocket.knowledge import Procedure, Riddle, procedures, reasoning_rules, riddles
from interloom.pocket.language import (
    MeaningError,
    describe_edit,
    normalise,
    numbered,
    parse,
    with_article,
)
from interloom.pocket.procedures import ConcreteStep, fill_procedure
from interloom.pocket.reasoning import (
    applicable,
    example_scene,
    rule_instructions,
    rule_result,
)
from interloom.pocket.scene import Scene, apply, edits_between


@dataclass(frozen=True)
class Understood:
    """A goal, the knowledge it took to see it (empty for plain wordings), and the text in plain
    words (empty where the knowledge is more than a name)."""

    goal: Goal
    recall: str = ""
    plain: str = ""


# ---------------------------------------------------------------------------------- riddles


@cache
def _riddle_patterns() -> tuple[re.Pattern[str], dict[str, Riddle]]:
    by_phrase = {phrase: riddle for riddle in riddles() for phrase in riddle.phrases}
    longest_first = sorted(by_phrase, key=len, reverse=True)
    # The article of the answer may stand or not: "remove the thing …", "add the thing …".
    return re.compile("|".join(re.escape(phrase) for phrase in longest_first)), by_phrase


def solve_riddles(text: str) -> tuple[list[str], str]:
    """The text with every riddle replaced by its answer, and what one had to know.

    A riddle hides the answer's article, and both may fit ("add a …", "remove the …"): all readings
    are returned, the likelier ones first.

    >>> solve_riddles("a red sun at the top left")
    (['a red sun at the top left'], '')
    """
    pattern, by_phrase = _riddle_patterns()
    found = [by_phrase[phrase] for phrase in pattern.findall(text)]
    phrases = pattern.findall(text)
    recall = " ".join(
        f"{phrase} is {with_article(str(riddle.answer))}."
        for phrase, riddle in zip(phrases, found, strict=True)
    )
    pieces = pattern.split(text)
    readings = []
    choices = (
        product((False, True), repeat=len(found))
        if len(found) <= 2
        else ((definite,) * len(found) for definite in (False, True))
    )
    for definite in choices:
        names = [
            f"the {riddle.answer}" if the else with_article(str(riddle.answer))
            for the, riddle in zip(definite, found, strict=True)
        ]
        readings.append("".join(a + b for a, b in zip(pieces, [*names, ""], strict=True)))
    return readings, recall


def pose_riddle(text: str, riddle: Riddle, phrase: str) -> str:
    """The text with the answer's name (and its article) replaced by a phrase of the riddle.

    Raises:
        MeaningError: the text does not name the answer.
    """
    name = re.escape(str(riddle.answer))
    posed, count = re.subn(rf"\b(?:an?|the) {name}\b", phrase, text)
    if not count:
        raise MeaningError(f"{text!r} does not speak of the {riddle.answer}")
    return posed


# -------------------------------------------------------------------------------- reasoning


def _reason(text: str, scene: Scene) -> Understood | None:
    for rule in reasoning_rules():
        for cell in applicable(rule, scene):
            if text in rule_instructions(rule, scene, cell):
                after, _ = rule_result(rule, scene, cell)
                return Understood(Goal(scenes=(after,), before=scene), f"{rule.auxiliary_text}.")
    return None


def reasoning_article(rng: random.Random) -> tuple[Scene, str, str]:
    """A scene, a reasoning instruction that fits it, and what comes of it in plain words."""
    rule = rng.choice(reasoning_rules())
    scene, cell = example_scene(rule, rng, rng.randint(1, 4))
    after, _ = rule_result(rule, scene, cell)
    instruction = rng.choice(rule_instructions(rule, scene, cell))
    sentences, now = [], scene
    for edit in edits_between(scene, after):
        sentences.append(describe_edit(edit, now))
        now = apply(now, edit)
    return scene, instruction, f"{rule.auxiliary_text}. {numbered(sentences)}"


# ------------------------------------------------------------------------------- procedures


@dataclass(frozen=True)
class KnownProcedure:
    """A procedure as requested, with its slots filled."""

    procedure: Procedure
    steps: tuple[ConcreteStep, ...]

    @property
    def recall(self) -> str:
        """What one has to know: what is done step by step, and what is said about it."""
        return _article(self.steps)

    def done(self, before: Scene | None) -> int:
        """How many steps a picture shows as done already (the latest that fits; 0 if none)."""
        fitting = [i for i, step in enumerate(self.steps, 1) if step.scene == before]
        return fitting[-1] if fitting and before is not None else 0


@cache
def _request_patterns() -> tuple[tuple[re.Pattern[str], Procedure], ...]:
    found = []
    for procedure in procedures():
        values = dict(procedure.slots)
        for request in procedure.requests:
            pieces = re.split(r"\{(\w+)\}", request)
            seen: set[str] = set()
            pattern = ""
            for i, piece in enumerate(pieces):
                if i % 2 == 0:
                    # "a {colour}" becomes "an orange" when it is filled.
                    pattern += re.sub(r"\ba\\ $", r"an?\\ ", re.escape(piece))
                elif piece in seen:
                    pattern += f"(?P={piece})"
                else:
                    seen.add(piece)
                    pattern += f"(?P<{piece}>{'|'.join(map(re.escape, values[piece]))})"
            found.append((re.compile(pattern), procedure))
    return tuple(found)


def procedure_steps(text: str) -> KnownProcedure | None:
    """The procedure that a request asks for, or ``None``; open slots take their first value."""
    text = normalise(text)
    for pattern, procedure in _request_patterns():
        match = pattern.fullmatch(text)
        if match:
            slots = {name: values[0] for name, values in procedure.slots} | match.groupdict()
            filled = fill_procedure(procedure, slots)
            return KnownProcedure(procedure, filled.steps)
    return None


def _article(steps: Sequence[ConcreteStep]) -> str:
    told = ((step.name, step.instruction, step.prompt, step.auxiliary_text) for step in steps)
    return numbered(": ".join(filter(None, parts)) for parts in told)


def procedure_article(procedure: Procedure, rng: random.Random) -> tuple[str, str]:
    """How an encyclopedia tells of a procedure: a title, and what is done in order.

    What the title leaves open takes its first value, as in ``procedure_steps``.
    """
    slots = {name: rng.choice(values) for name, values in procedure.slots}
    title = rng.choice(fill_procedure(procedure, slots).requests)
    known = procedure_steps(title)
    assert known is not None  # a procedure's own request
    return title, known.recall


# ------------------------------------------------------------------------------ altogether


def understand(text: str, scene: Scene | None = None) -> Understood:
    """What a text wants to see, given the picture it speaks about (``None``: a blank canvas).

    A procedure's goal is its last picture.

    Raises:
        MeaningError: nothing known is said, or it cannot be done in this scene.
    """
    plain = normalise(text)
    readings, recall = solve_riddles(plain)
    reasons = []
    for reading in readings:
        try:
            return Understood(parse(reading, scene), recall, reading)
        except MeaningError as error:
            reasons.append(error)
    reasoned = _reason(plain, scene) if scene else None
    if reasoned:
        return reasoned
    known = procedure_steps(plain)
    if known:
        return Understood(Goal(scenes=(known.steps[-1].scene,), before=scene), known.recall)
    raise reasons[0]
