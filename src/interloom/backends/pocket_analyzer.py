"""The pocket world as SAIR's analyzer: exact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from interloom.backends.pocket import read_ahead, reading, scene_of
from interloom.pocket import analysis, verifier
from interloom.pocket.language import MeaningError
from interloom.pocket.meaning import Understood
from interloom.pocket.several import understand_all
from interloom.pocket.verifier import Verdict
from interloom.records import Evaluation, Failure, Record, Reflection, RootCause
from interloom.roles import DraftCase, FailedCase, ReflectionCase, StepCase

Case = TypeVar("Case", bound=Record)
Answer = TypeVar("Answer")


class PocketAnalyzer:
    """Every answer is a ``Failure`` where the instruction means nothing in its pictures."""

    name = "pocket-analyzer"

    def evaluate(self, cases: Sequence[DraftCase]) -> list[Evaluation | Failure]:
        def one(case: DraftCase) -> Evaluation:
            understood, verdict = _judged(case)
            return analysis.evaluate(case.instruction, understood.goal, verdict)

        return _each(cases, one, _pictures)

    def reflect(self, cases: Sequence[FailedCase]) -> list[Reflection | Failure]:
        def one(case: FailedCase) -> Reflection:
            understood, verdict = _judged(case)
            knowledge = bool(understood.recall)
            return analysis.reflect(
                case.instruction, understood.goal, verdict, needs_knowledge=knowledge
            )

        return _each(cases, one, _pictures)

    def diagnose(self, cases: Sequence[FailedCase]) -> list[RootCause | Failure]:
        def one(case: FailedCase) -> RootCause:
            understood, verdict = _judged(case)
            return analysis.root_cause(understood.goal, understood.recall, verdict.success)

        return _each(cases, one, _pictures)

    def decompose(self, cases: Sequence[FailedCase]) -> list[tuple[str, ...] | Failure]:
        def one(case: FailedCase) -> tuple[str, ...]:
            return tuple(analysis.sub_steps(case.instruction, _meaning(case).goal))

        return _each(cases, one, _pictures)

    def rate_reflections(self, cases: Sequence[ReflectionCase]) -> list[float | Failure]:
        """The mean of how right the analysis is and how far the plan leads."""

        def one(case: ReflectionCase) -> float:
            understood, verdict = _judged(case)
            said = case.reflection
            faults = analysis.faults(case.instruction, understood.goal, verdict)
            plan = analysis.step_validity(
                said.improvement_plan, verdict.reading.best_guess, verdict.expected
            )
            return (analysis.analysis_validity(said.failure_analysis, faults) + plan) / 2

        return _each(cases, one, _pictures)

    def rate_steps(self, cases: Sequence[StepCase]) -> list[float | Failure]:
        def one(case: StepCase) -> float:
            seen = scene_of(case.current)
            target = analysis.wanted_scene(_meaning(case).goal, seen)
            return analysis.step_validity(case.step, seen, target)

        def pictures(case: StepCase) -> Iterable[bytes | None]:
            return (*case.references, case.current)

        return _each(cases, one, pictures)


def _pictures(case: DraftCase) -> Iterable[bytes | None]:
    return (*case.references, case.image)


def _each(
    cases: Sequence[Case],
    answer: Callable[[Case], Answer],
    pictures: Callable[[Case], Iterable[bytes | None]],
) -> list[Answer | Failure]:
    read_ahead(picture for case in cases for picture in pictures(case))
    answers: list[Answer | Failure] = []
    for case in cases:
        try:
            answers.append(answer(case))
        except MeaningError as error:
            answers.append(Failure(role="analyzer", reason=str(error), final=True))
    return answers


def _meaning(case: DraftCase | StepCase) -> Understood:
    scenes = [reading(picture).best_guess for picture in case.references]
    return understand_all(case.instruction, scenes)


def _judged(case: DraftCase) -> tuple[Understood, Verdict]:
    understood = _meaning(case)
    return understood, verifier.judge(reading(case.image), understood.goal)
