"""Remote models in their roles: a chat model as Planner, Critic and Judge; an image model.

A backend says how one question is sent; here is what is asked, what the answer has to look like
(a JSON schema that the server enforces where it can) and how it is read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from interloom import dialogue, images
from interloom.backends.calls import Call, Reply, Role
from interloom.backends.lanes import Lane
from interloom.backends.remote import Remote
from interloom.cache import call_key
from interloom.dialogue import AnswerError, Conversation
from interloom.errors import InterloomError
from interloom.records import Critique, Failure, Plan, Record, Request, Score
from interloom.roles import CritiqueCase, GenerationJob, JudgeCase

if TYPE_CHECKING:
    from interloom.settings.models import GeneratorSettings

Answer = TypeVar("Answer")

WARMER = 0.7
"""Temperature at least of another sample, where an answer could not be used."""


class Form(BaseModel):
    """Base of the JSON answers that models are held to."""

    model_config = ConfigDict(extra="forbid")


class StepForm(Form):
    step_number: int
    step_name: str
    instruction: str | None
    prompt: str | None
    auxiliary_text: str | None


class PlanForm(Form):
    reasoning: str
    execution_plan: list[StepForm]


class CritiqueForm(Form):
    reasoning: str
    previous_step_success: bool
    refine_prompt: str


Grade = Annotated[float, Field(ge=0, le=10)]


class ScoreForm(Form):
    reasoning: str
    instruction: Grade
    preservation: Grade
    naturalness: Grade
    artifacts: Grade


def read_plan(answer: bytes, request: Request) -> Plan:
    """A plan from JSON.

    Raises:
        ValueError: not the form, or a plan that does not fit its request.
    """
    form = PlanForm.model_validate_json(answer)
    steps = dialogue.read_steps([step.model_dump() for step in form.execution_plan])
    plan = Plan(reasoning=form.reasoning, steps=steps)
    faults = dialogue.plan_faults(plan, request)
    if faults:
        raise ValueError("; ".join(faults))
    return plan


def read_critique(answer: bytes) -> Critique:
    """A critique from JSON; ``ValueError`` for anything else."""
    form = CritiqueForm.model_validate_json(answer)
    if not form.refine_prompt.strip():
        raise AnswerError("empty-prompt", "refine_prompt")
    return Critique(
        success=form.previous_step_success,
        refine_prompt=form.refine_prompt,
        reasoning=form.reasoning,
    )


def read_score(answer: bytes) -> Score:
    """Each score is the minimum of its sub-scores (§3.3)."""
    form = ScoreForm.model_validate_json(answer)
    return Score(
        semantic=min(form.instruction, form.preservation),
        quality=min(form.naturalness, form.artifacts),
    )


def read_image(answer: bytes) -> bytes:
    """The encoded image as it came; ``ValueError`` unless it decodes."""
    try:
        images.from_bytes(answer, "the picture")
    except InterloomError as error:
        raise ValueError(str(error)) from error
    return answer


class Question(Record):
    """All that a chat model is told; answers are found by it."""

    messages: list[dict[str, Any]]
    images: tuple[bytes, ...]
    answer_schema: dict[str, Any]
    temperature: float
    max_output_tokens: int


class ChatSettings(Protocol):
    """How a chat model is asked; the sections ``teacher`` and ``grading`` say it."""

    @property
    def temperature(self) -> float: ...

    @property
    def max_output_tokens(self) -> int: ...


class RemoteChat(ABC):
    """A remote chat model that sees images, as Planner, Critic and Judge.

    Raises:
        InterloomError: the model has no price.
    """

    def __init__(self, remote: Remote, model: str, settings: ChatSettings) -> None:
        remote.check_model(model)
        self.remote = remote
        self.name = self.model = model
        self.temperature = settings.temperature
        self.max_output_tokens = settings.max_output_tokens

    @abstractmethod
    async def send(self, lane: Lane, question: Question, unusable: int) -> Reply:
        """Ask once. ``unusable`` samples went before, so that this one has to differ from them.

        Raises:
            Unanswered: or one of its kinds.
            InterloomError: nothing can be answered.
        """

    def temperature_of(self, question: Question, unusable: int) -> float:
        """The question's temperature, or a warmer one after unusable samples."""
        return max(question.temperature, WARMER) if unusable else question.temperature

    def cut_off(self) -> str:
        """What to say of an answer that reached the limit."""
        return f"cut off (max_output_tokens = {self.max_output_tokens})"

    def ask(
        self,
        role: Role,
        conversations: Sequence[Conversation],
        form: type[BaseModel],
        readers: Sequence[Callable[[bytes], Answer]],
    ) -> list[Answer | Failure]:
        """Each conversation's answer in the form, as its reader reads it."""
        calls = []
        for (messages, pictures), read in zip(conversations, readers, strict=True):
            question = Question(
                messages=messages,
                images=tuple(pictures),
                answer_schema=form.model_json_schema(),
                temperature=self.temperature,
                max_output_tokens=self.max_output_tokens,
            )
            calls.append(
                Call(
                    role=role,
                    model=self.model,
                    key=call_key(self.remote.name, self.model, question),
                    send=lambda lane, unusable, q=question: self.send(lane, q, unusable),
                    read=read,
                )
            )
        return self.remote.ask(calls)

    def plan(self, requests: Sequence[Request]) -> list[Plan | Failure]:
        """One plan per request that fits it."""
        said = [dialogue.planner_messages(request, "full", "json") for request in requests]
        readers = [lambda answer, r=request: read_plan(answer, r) for request in requests]
        return self.ask("planner", said, PlanForm, readers)

    def critique(self, cases: Sequence[CritiqueCase]) -> list[Critique | Failure]:
        """One critique per case."""
        said = [dialogue.critic_messages(case, "full", "json") for case in cases]
        return self.ask("critic", said, CritiqueForm, [read_critique] * len(said))

    def score(self, cases: Sequence[JudgeCase]) -> list[Score | Failure]:
        """One VIEScore-like score per case."""
        said = [dialogue.judge_messages(case) for case in cases]
        return self.ask("judge", said, ScoreForm, [read_score] * len(said))


class RemoteGenerator(ABC):
    """A remote image model that draws and edits.

    Raises:
        InterloomError: the model has no price.
    """

    decided_by: ClassVar[frozenset[str]]
    """The settings that are part of the question."""

    def __init__(self, remote: Remote, settings: GeneratorSettings) -> None:
        remote.check_model(settings.model)
        self.remote = remote
        self.settings = settings
        self.name = self.model = settings.model

    @abstractmethod
    async def send(self, lane: Lane, job: GenerationJob, unusable: int) -> Reply:
        """Ask for one picture; raises as ``RemoteChat.send`` does."""

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        """One encoded picture per job, in order."""
        identity = self.settings.model_dump_json(include=set(self.decided_by))
        return self.remote.ask(
            [
                Call(
                    role="generator",
                    model=self.model,
                    key=call_key(self.remote.name, identity, job),
                    send=lambda lane, unusable, j=job: self.send(lane, j, unusable),
                    read=read_image,
                )
                for job in jobs
            ]
        )


def pictures_of(job: GenerationJob) -> list[bytes]:
    """The picture to edit and the references; empty for text-to-image."""
    return [*([job.source] if job.source else []), *job.references]
