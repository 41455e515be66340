"""A remote chat model as SAIR's analyzer: what it is asked, in which form, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from interloom.backends.remote_roles import Form, RemoteChat
from interloom.dialogue import AnalyzerTask, Conversation, analyzer_messages
from interloom.records import AXES, Evaluation, Failure, FailureKind, Reflection, RootCause
from interloom.roles import DraftCase, FailedCase, ReflectionCase, StepCase

Score = Annotated[int, Field(ge=1, le=5)]


class EvaluationForm(Form):
    reasoning: str
    instruction: Score
    consistency: Score
    quality: Score
    knowledge: Score


class ReflectionForm(Form):
    failure_analysis: str
    kind: FailureKind
    improvement_plan: str


class CauseForm(Form):
    reasoning: str
    cause: Literal["instruction_too_complex", "missing_knowledge", "generator_limit", "none"]


class StepsForm(Form):
    steps: list[str]


class ValidityForm(Form):
    reasoning: str
    validity: Annotated[float, Field(ge=0, le=1)]


def read_evaluation(answer: bytes) -> Evaluation:
    """An evaluation from JSON; ``ValueError`` for anything else."""
    return Evaluation(**EvaluationForm.model_validate_json(answer).model_dump())


def read_reflection(answer: bytes) -> Reflection:
    """A reflection from JSON; ``ValueError`` for anything else, empty texts included."""
    return Reflection(**ReflectionForm.model_validate_json(answer).model_dump())


def _read_cause(answer: bytes) -> RootCause:
    return CauseForm.model_validate_json(answer).cause


def _read_steps(answer: bytes) -> tuple[str, ...]:
    steps = tuple(" ".join(step.split()) for step in StepsForm.model_validate_json(answer).steps)
    if not steps or not all(steps):
        raise ValueError(f"{len(steps)} sub-steps, some of them empty")
    return steps


def _read_validity(answer: bytes) -> float:
    return ValidityForm.model_validate_json(answer).validity


def _told(evaluation: Evaluation) -> str:
    scores = ", ".join(f"{axis} {getattr(evaluation, axis)}" for axis in AXES)
    return f"{evaluation.reasoning} ({scores})"


class RemoteAnalyzer:
    """SAIR's analyzer on a remote chat model; answers are held to a schema and kept."""

    def __init__(self, chat: RemoteChat) -> None:
        self._chat = chat
        self.name = chat.name

    def evaluate(self, cases: Sequence[DraftCase]) -> list[Evaluation | Failure]:
        said = [_said("evaluate", case) for case in cases]
        return self._chat.ask("analyzer", said, EvaluationForm, [read_evaluation] * len(said))

    def reflect(self, cases: Sequence[FailedCase]) -> list[Reflection | Failure]:
        said = [_said("reflect", case, {"evaluation": _told(case.evaluation)}) for case in cases]
        return self._chat.ask("analyzer", said, ReflectionForm, [read_reflection] * len(said))

    def diagnose(self, cases: Sequence[FailedCase]) -> list[RootCause | Failure]:
        said = [_said("diagnose", case, {"evaluation": _told(case.evaluation)}) for case in cases]
        return self._chat.ask("analyzer", said, CauseForm, [_read_cause] * len(said))

    def decompose(self, cases: Sequence[FailedCase]) -> list[tuple[str, ...] | Failure]:
        said = [_said("decompose", case, {"evaluation": _told(case.evaluation)}) for case in cases]
        return self._chat.ask("analyzer", said, StepsForm, [_read_steps] * len(said))

    def rate_reflections(self, cases: Sequence[ReflectionCase]) -> list[float | Failure]:
        said = [
            _said(
                "rate_reflection", case,
                {
                    "evaluation": _told(case.evaluation),
                    "analysis": case.reflection.failure_analysis,
                    "plan": case.reflection.improvement_plan,
                },
            )
            for case in cases
        ]  # fmt: skip
        return self._rated(said)

    def rate_steps(self, cases: Sequence[StepCase]) -> list[float | Failure]:
        return self._rated(
            [
                analyzer_messages(
                    "rate_step", case.references, case.current,
                    {"instruction": case.instruction, "step": case.step},
                )
                for case in cases
            ]
        )  # fmt: skip

    def _rated(self, said: Sequence[Conversation]) -> list[float | Failure]:
        form: type[BaseModel] = ValidityForm
        return self._chat.ask("analyzer", said, form, [_read_validity] * len(said))


def _said(
    task: AnalyzerTask, case: DraftCase, values: Mapping[str, str] | None = None
) -> Conversation:
    known = {"instruction": case.instruction, **(values or {})}
    return analyzer_messages(task, case.references, case.image, known)
