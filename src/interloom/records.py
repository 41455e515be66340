"""What passes between planner, generator, critic and judge: frozen values, checked on entry.

Images travel as encoded bytes (PNG unless a backend says otherwise), so that every record hashes,
compares and goes to Parquet as it is. Field names follow the InterleaveThinker paper (§3.1).
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Record(BaseModel):
    """Base of all records: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Segment = str | bytes
"""A piece of an interleaved sequence: text, or an encoded picture."""
RequestKind = Literal["create", "continuation", "text_response"]


class Request(Record):
    """What a user asks for: the input sequence ``S`` of text and images.

    ``create`` has no images; ``continuation`` wants the remaining steps after ``images``;
    ``text_response`` wants one text per image and no new picture.
    """

    id: str
    text: str
    images: tuple[bytes, ...] = ()
    captions: tuple[str, ...] = ()
    """Text that stands beside each input image; empty or as long as ``images``."""
    kind: RequestKind = "create"
    category: str = ""
    subcategory: str = ""


class Step(Record):
    """One planned step ``(u_i, p_i, a_i)``; instruction and prompt are null in text responses."""

    step_number: Annotated[int, Field(ge=1)]
    step_name: str = ""
    instruction: str | None
    prompt: str | None
    auxiliary_text: str | None = None


class Plan(Record):
    """A planner's whole answer: its reasoning and the ordered steps."""

    reasoning: str = ""
    steps: tuple[Step, ...]


class Critique(Record):
    """A critic's answer ``(j, r', R)`` on one attempt."""

    success: bool
    refine_prompt: str
    reasoning: str = ""


class Score(Record):
    """VIEScore-style judgment of one image: 0–10 each, the minimum of its sub-scores."""

    semantic: Annotated[float, Field(ge=0, le=10)]
    quality: Annotated[float, Field(ge=0, le=10)]

    @property
    def overall(self) -> float:
        """``sqrt(semantic · quality)``, 0–10."""
        return (self.semantic * self.quality) ** 0.5


Axis = Literal["instruction", "consistency", "quality", "knowledge"]
AXES: tuple[Axis, ...] = get_args(Axis)
"""What SAIR's analyzer scores (§3.1): is the instruction followed, did the rest stay, is it well
made, is it plausible."""
FailureKind = Literal[
    "targeting error", "over-editing", "under-editing", "visual artifacts", "logic flaw"
]
FAILURE_KINDS: tuple[FailureKind, ...] = get_args(FailureKind)
MIN_STEPS, MAX_STEPS = 2, 5
"""Sub-steps of a plan (SAIR §3.1)."""
RootCause = Literal["instruction_too_complex", "missing_knowledge", "generator_limit", "none"]
"""Why repeated attempts failed; only an instruction that is too complex is cured by steps."""
Score5 = Annotated[int, Field(ge=1, le=5)]


def _one_line(text: object) -> object:
    return " ".join(text.split()) if isinstance(text, str) else text


Line = Annotated[str, BeforeValidator(_one_line)]
"""A text on one line, with single spaces."""
FilledLine = Annotated[Line, Field(min_length=1)]


class Thresholds(Record):
    """Least score per axis with which a picture is accepted."""

    instruction: Score5
    consistency: Score5
    quality: Score5
    knowledge: Score5


class Evaluation(Record):
    """E of SAIR: what is seen in a picture, and its four scores from 1 to 5."""

    reasoning: Line = ""
    instruction: Score5
    consistency: Score5
    quality: Score5
    knowledge: Score5

    def passes(self, least: Thresholds) -> bool:
        """Whether every axis reaches its threshold.

        >>> fine = Evaluation(instruction=5, consistency=3, quality=4, knowledge=3)
        >>> fine.passes(Thresholds(instruction=5, consistency=3, quality=3, knowledge=3))
        True
        >>> fine.passes(Thresholds(instruction=5, consistency=4, quality=3, knowledge=3))
        False
        """
        return all(getattr(self, axis) >= getattr(least, axis) for axis in AXES)


class Reflection(Record):
    """R of SAIR: why a picture failed and what to do about it.

    ``kind`` is null where nobody named one.
    """

    kind: FailureKind | None = None
    failure_analysis: FilledLine
    improvement_plan: FilledLine


class Failure(Record):
    """A call that gave no answer after its retries: counted, and never turned into a number."""

    role: Literal["planner", "generator", "critic", "judge", "analyzer"]
    reason: str
    final: bool = False
    """Whether the backend has done all its retries, so that asking again at once is no use."""


class Attempt(Record):
    """One iteration ``t`` of one step: the prompt used, what came out, what was said of it."""

    prompt: str
    seed: int
    generator: str = ""
    image: bytes | None = None
    critique: Critique | None = None
    score: Score | None = None
    failure: Failure | None = None


class StepTrace(Record):
    """All attempts at one step, in order; ``source`` is the last accepted image (``I_{i-1}``)."""

    step: Step
    source: bytes | None
    attempts: tuple[Attempt, ...]

    @property
    def accepted(self) -> Attempt | None:
        """The attempt that goes into the sequence: the passed one, else the last with an image."""
        shown = [attempt for attempt in self.attempts if attempt.image is not None]
        passed = [a for a in shown if a.critique is not None and a.critique.success]
        return (passed or shown or [None])[-1]


class Trajectory(Record):
    """A request carried out: the global plan and every image and judgment on the way."""

    request: Request
    plan: Plan | None
    steps: tuple[StepTrace, ...] = ()
    failure: Failure | None = None


def caption_of(step: Step) -> str:
    """The text that goes to the reader beside a step's picture: ``a_i``, else ``u_i``."""
    return step.auxiliary_text or step.instruction or ""
