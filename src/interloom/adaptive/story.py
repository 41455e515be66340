"""A story: one trajectory of the self-adaptive reasoner, as a record and as a stream.

SAIR (§3) writes everything into one sequence: the request, pictures G, evaluations E, reflections R
(failure analysis and improvement plan) and sub-steps S. Three modes differ in what follows the
first picture::

    direct       G1 E1
    reflection   G1 E1 (R1 G2 E2) … (R_{K-1} G_K E_K)
    multi_step   G1 E1 (S1 G2 E2) … (S_n G_{n+1} E_{n+1})

As a stream (``spans``) a story is text and encoded pictures in turn; ``parse_story`` reads a stream
back, strictly, and names what is wrong with it. Data, masks, rewards, inference and pages all go
through these two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from interloom.dialogue import IMAGE_MARK, unified_prompt
from interloom.records import (
    AXES,
    FAILURE_KINDS,
    MAX_STEPS,
    MIN_STEPS,
    Evaluation,
    FilledLine,
    Record,
    Reflection,
    Segment,
)

Mode = Literal["direct", "reflection", "multi_step"]
MODES: tuple[Mode, ...] = get_args(Mode)
MAX_ROUNDS = 3
TAGS = (
    "<evaluate>", "</evaluate>", "<failure_analysis>", "</failure_analysis>",
    "<improvement_plan>", "</improvement_plan>",
    *(f"<step_{number}>" for number in range(1, MAX_STEPS + 1)), "</step>",
)  # fmt: skip
"""What marks the texts of a stream; a tokenizer may hold each as one token."""
EVALUATION_END = "</evaluate>"
"""After this a story may end."""
PAUSES = ("</improvement_plan>", "</step>")
"""After these it is settled what the next picture is for."""

Violation = Literal[
    "no-image", "unexpected-image", "image-missing", "unexpected-text", "tag-unclosed",
    "evaluation-missing", "evaluation-unreadable", "score-out-of-range", "reflection-incomplete",
    "empty-text", "modes-mixed", "step-order", "too-few-steps", "too-many-steps",
    "too-many-rounds", "cut-off",
]  # fmt: skip


class StoryError(ValueError):
    """A stream that is no story; ``violation`` says in one word why."""

    def __init__(self, violation: Violation, detail: str) -> None:
        super().__init__(f"{violation}: {detail}")
        self.violation: Violation = violation


def _unmarked(text: str) -> str:
    found = re.search(
        rf"</?(?:evaluate|failure_analysis|improvement_plan|step(?:_\d+)?)>|{IMAGE_MARK}"
        r"|<\|[^<>|]+\|>",  # Emu3's own tokens
        text,
    )
    if found:
        raise ValueError(f"{found[0]!r} marks a story's parts and cannot stand in their text")
    return text


def evaluation_text(evaluation: Evaluation) -> str:
    """E as it stands in a stream."""
    scores = ", ".join(f"{axis} {getattr(evaluation, axis)}" for axis in AXES)
    reasoning = f"{evaluation.reasoning} " if evaluation.reasoning else ""
    return f"<evaluate>{reasoning}scores: {scores}</evaluate>"


def reflection_text(reflection: Reflection) -> str:
    """R as it stands in a stream."""
    kind = f"{reflection.kind}: " if reflection.kind else ""
    return (
        f"<failure_analysis>{kind}{reflection.failure_analysis}</failure_analysis>"
        f"<improvement_plan>{reflection.improvement_plan}</improvement_plan>"
    )


def step_text(number: int, instruction: str) -> str:
    """S as it stands in a stream."""
    return f"<step_{number}>{instruction}</step>"


class Draft(Record):
    """A picture and its evaluation: ``G``, ``E``."""

    image: bytes
    evaluation: Evaluation

    @field_validator("evaluation")
    @classmethod
    def _evaluation_unmarked(cls, evaluation: Evaluation) -> Evaluation:
        _unmarked(evaluation.reasoning)
        return evaluation


class Round(Draft):
    """One round of reflection: what was said of the last picture, and the next."""

    reflection: Reflection

    @field_validator("reflection")
    @classmethod
    def _reflection_unmarked(cls, reflection: Reflection) -> Reflection:
        _unmarked(reflection.failure_analysis + reflection.improvement_plan)
        return reflection


class SubStep(Draft):
    """One atomic sub-step and its picture."""

    instruction: Annotated[FilledLine, AfterValidator(_unmarked)]


class Prompt(Record):
    """What is asked for: an instruction, with the reference pictures that it speaks of."""

    id: str
    instruction: Annotated[FilledLine, AfterValidator(_unmarked)]
    references: tuple[bytes, ...] = ()
    category: str = ""

    def segments(self) -> list[Segment]:
        """As the unified model is asked."""
        return unified_prompt(self.instruction, self.references)


SpanKind = Literal["prompt", "image", "evaluation", "reflection", "step", "end"]


class Span(Record):
    """A piece of a story's stream. ``number`` is the index of G, E, R or S, from 1."""

    kind: SpanKind
    number: int
    content: Segment

    @property
    def name(self) -> str:
        """``G1``, ``E2``, ``R1``, ``S3``; ``prompt`` and ``end`` as they are."""
        letter = {"image": "G", "evaluation": "E", "reflection": "R", "step": "S"}.get(self.kind)
        return f"{letter}{self.number}" if letter else self.kind


class Story(Record):
    """A whole trajectory."""

    prompt: Prompt
    first: Draft
    rounds: Annotated[tuple[Round, ...], Field(max_length=MAX_ROUNDS)] = ()
    steps: Annotated[tuple[SubStep, ...], Field(max_length=MAX_STEPS)] = ()

    @model_validator(mode="after")
    def _one_mode(self) -> Self:
        if self.rounds and self.steps:
            raise ValueError("a story has rounds of reflection or sub-steps, not both")
        if 0 < len(self.steps) < MIN_STEPS:
            raise ValueError(f"a plan has at least {MIN_STEPS} sub-steps")
        return self

    @property
    def mode(self) -> Mode:
        return "reflection" if self.rounds else "multi_step" if self.steps else "direct"

    @property
    def drafts(self) -> tuple[Draft, ...]:
        """All pictures with their evaluations, in order."""
        return (self.first, *self.rounds, *self.steps)

    @property
    def images(self) -> tuple[bytes, ...]:
        """G1, G2, … in order."""
        return tuple(draft.image for draft in self.drafts)

    @property
    def final(self) -> Draft:
        """What the story ends with."""
        return self.drafts[-1]

    def spans(self) -> list[Span]:
        """The stream, prompt and end included; the end's content is empty."""
        spans = [Span(kind="prompt", number=0, content=part) for part in self.prompt.segments()]
        return [*spans, *self._told(), Span(kind="end", number=0, content="")]

    def _told(self) -> Iterator[Span]:
        for number, draft in enumerate(self.drafts, 1):
            if isinstance(draft, Round):
                said = reflection_text(draft.reflection)
                yield Span(kind="reflection", number=number - 1, content=said)
            elif isinstance(draft, SubStep):
                yield Span(
                    kind="step", number=number - 1, content=step_text(number - 1, draft.instruction)
                )
            yield Span(kind="image", number=number, content=draft.image)
            yield Span(kind="evaluation", number=number, content=evaluation_text(draft.evaluation))

    def segments(self) -> list[Segment]:
        """What the model writes: the stream without prompt and end, texts in a row joined."""
        return joined([span.content for span in self._told()])


def joined(segments: Sequence[Segment]) -> list[Segment]:
    """Texts in a row as one."""
    found: list[Segment] = []
    for part in segments:
        last = found[-1] if found else None
        if isinstance(last, str) and isinstance(part, str):
            found[-1] = last + part
        else:
            found.append(part)
    return found


def marked(segments: Sequence[Segment]) -> str:
    """A stream as one text, with ``<image>`` for each picture."""
    return "".join(IMAGE_MARK if isinstance(part, bytes) else part for part in segments)


def interleave(text: str, images: Sequence[bytes]) -> list[Segment]:
    """A text's marks replaced by pictures.

    Raises:
        ValueError: there are not as many marks as pictures.
    """
    pieces = text.split(IMAGE_MARK)
    if len(pieces) != len(images) + 1:
        raise ValueError(f"{len(images)} images for {len(pieces) - 1} marks in the text")
    segments: list[Segment] = [pieces[0]]
    for image, piece in zip(images, pieces[1:], strict=True):
        segments += [image, piece]
    return [part for part in segments if part]


# ---------------------------------------------------------------------------------- reading


class Block(Record):
    """A marked text of a stream, or a picture (``tag`` ``image``, no text)."""

    tag: str
    text: str = ""
    image: bytes | None = None


_BLOCK = re.compile(
    r"<(evaluate|failure_analysis|improvement_plan|step_\d+)>(.*?)</(\w+)>", re.DOTALL
)
_SCORES = re.compile(
    r"(?:(.*)\s)?scores: " + ", ".join(rf"{axis} (-?\d+)" for axis in AXES), re.DOTALL
)


def read_blocks(segments: Sequence[Segment]) -> tuple[list[Block], StoryError | None]:
    """The marked texts and pictures of a stream, and the first thing that is neither.

    What can be read is read, so that the parts of a malformed trajectory can still be judged.
    """
    blocks: list[Block] = []
    problem: StoryError | None = None
    for segment in segments:
        if isinstance(segment, bytes):
            blocks.append(Block(tag="image", image=segment))
            continue
        rest = segment
        for match in _BLOCK.finditer(segment):
            tag, text, closed = match.groups()
            rest = rest.replace(match[0], "", 1)
            if closed != ("step" if tag.startswith("step_") else tag):
                problem = problem or StoryError("tag-unclosed", f"<{tag}> closed by </{closed}>")
            blocks.append(Block(tag=tag, text=text.strip()))
        if rest.strip():
            violation = "tag-unclosed" if re.search(r"</?[a-z_0-9]+>", rest) else "unexpected-text"
            problem = problem or StoryError(violation, repr(rest.strip()[:80]))
    return blocks, problem


def read_evaluation(text: str) -> Evaluation:
    """The evaluation inside an ``<evaluate>`` block.

    Raises:
        StoryError: evaluation-unreadable, score-out-of-range.
    """
    match = _SCORES.fullmatch(text.strip())
    if match is None:
        raise StoryError("evaluation-unreadable", repr(text[:80]))
    scores = dict(zip(AXES, map(int, match.groups()[1:]), strict=True))
    for axis, score in scores.items():
        if not 1 <= score <= 5:
            raise StoryError("score-out-of-range", f"{axis} {score}")
    return Evaluation(reasoning=_text("evaluate", match[1] or ""), **scores)


def read_reflection(analysis: str, plan: str) -> Reflection:
    """The two texts of a reflection.

    Raises:
        StoryError: empty-text.
    """
    for kind in FAILURE_KINDS:
        if analysis.startswith(f"{kind}:"):
            return Reflection(
                kind=kind,
                failure_analysis=_needed("failure_analysis", analysis.removeprefix(f"{kind}:")),
                improvement_plan=_needed("improvement_plan", plan),
            )
    return Reflection(
        failure_analysis=_needed("failure_analysis", analysis),
        improvement_plan=_needed("improvement_plan", plan),
    )


def _text(tag: str, text: str) -> str:
    try:
        return _unmarked(text)
    except ValueError as error:
        raise StoryError("tag-unclosed", f"{error} (inside <{tag}>)") from error


def _needed(tag: str, text: str) -> str:
    if not text.strip():
        raise StoryError("empty-text", f"<{tag}>")
    return _text(tag, text)


class _Reader:
    """Takes blocks one by one, as the grammar in the module's docstring has them."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks, self.at = blocks, 0

    @property
    def next(self) -> Block | None:
        return self.blocks[self.at] if self.at < len(self.blocks) else None

    def take(self, tag: str, missing: Violation) -> Block:
        block = self.next
        if block is None or block.tag != tag:
            found = f"<{block.tag}>" if block else "the end"
            raise StoryError(missing, f"{found} in place of <{tag}> (part {self.at + 1})")
        self.at += 1
        return block

    def draft(self) -> tuple[bytes, Evaluation]:
        image = self.take("image", "image-missing").image
        assert image is not None
        return image, read_evaluation(self.take("evaluate", "evaluation-missing").text)


def parse_story(prompt: Prompt, segments: Sequence[Segment], *, ended: bool = True) -> Story:
    """The story that a stream tells after its prompt.

    Args:
        ended: whether the writer came to its end by itself, or was cut off.

    Raises:
        StoryError: what first breaks the grammar, by name.
    """
    blocks, problem = read_blocks(segments)
    if problem is not None:
        raise problem
    if not any(block.tag == "image" for block in blocks):
        raise StoryError("no-image", "nothing was drawn")
    reader = _Reader(blocks)
    image, evaluation = reader.draft()
    first = Draft(image=image, evaluation=evaluation)
    rounds: list[Round] = []
    steps: list[SubStep] = []
    while (block := reader.next) is not None:
        if block.tag == "failure_analysis":
            rounds.append(_read_round(reader, len(rounds)))
        elif block.tag.startswith("step_"):
            steps.append(_read_step(reader, len(steps)))
        elif block.tag == "image":
            raise StoryError("unexpected-image", "a picture that nothing led to")
        elif block.tag == "improvement_plan":
            raise StoryError("reflection-incomplete", "a plan without a failure analysis")
        else:
            raise StoryError("unexpected-text", f"a further <{block.tag}>")
        if rounds and steps:
            raise StoryError("modes-mixed", "reflection and sub-steps in one story")
    if 0 < len(steps) < MIN_STEPS:
        raise StoryError("too-few-steps", f"{len(steps)} sub-step(s)")
    if not ended:
        raise StoryError("cut-off", "it has no end")
    return Story(prompt=prompt, first=first, rounds=tuple(rounds), steps=tuple(steps))


def _read_round(reader: _Reader, done: int) -> Round:
    if done == MAX_ROUNDS:
        raise StoryError("too-many-rounds", f"more than {MAX_ROUNDS} reflections")
    analysis = reader.take("failure_analysis", "reflection-incomplete").text
    plan = reader.take("improvement_plan", "reflection-incomplete").text
    reflection = read_reflection(analysis, plan)
    image, evaluation = reader.draft()
    return Round(reflection=reflection, image=image, evaluation=evaluation)


def _read_step(reader: _Reader, done: int) -> SubStep:
    block = reader.next
    assert block is not None
    number = int(block.tag.removeprefix("step_"))
    if done == MAX_STEPS:
        raise StoryError("too-many-steps", f"more than {MAX_STEPS} sub-steps")
    if number != done + 1:
        raise StoryError("step-order", f"step {number} after step {done}")
    instruction = _needed(block.tag, reader.take(block.tag, "step-order").text)
    image, evaluation = reader.draft()
    return SubStep(instruction=instruction, image=image, evaluation=evaluation)
