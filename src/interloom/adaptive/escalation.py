"""Hierarchical escalation (SAIR §3.1): from a request to a story, or to a reason for having none.

==============  ======================================================================
direct          the baseline model draws G1; the analyzer evaluates it
reflection      at most three rounds: reflect on the last picture, let the generator mend it
diagnosis       only an instruction that is too complex goes on; other causes are discarded
multi-step      two to five sub-steps from the references on, each tried a few times
==============  ======================================================================

On success of the plan the failed reflections are pruned: what is kept is G1, E1 and the plan. All
requests go through each stage together, so that local models see full batches and remote ones many
calls at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from interloom.adaptive.released import Discarded
from interloom.adaptive.story import (
    MAX_ROUNDS,
    Draft,
    Prompt,
    Round,
    Story,
    SubStep,
)
from interloom.records import MAX_STEPS, MIN_STEPS, Failure, Reflection, Thresholds
from interloom.roles import Analyzer, DraftCase, FailedCase, GenerationJob, Generator
from interloom.seeding import derive_seed

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Outcome = Story | Discarded


@dataclass(frozen=True)
class Rules:
    """When a picture is accepted, and how often things are tried."""

    accepted: Thresholds
    step_accepted: Thresholds
    rounds: int = MAX_ROUNDS
    step_tries: int = 3
    retries: int = 2
    """Repeats of a call that failed, before its request is discarded."""
    show_references: bool = True
    """Whether repairs and sub-steps see all references, or only the picture that they edit."""


@dataclass
class Tried:
    """A request on its way, with what was made of it so far."""

    prompt: Prompt
    drafts: list[Draft] = field(default_factory=list)
    reflections: list[Reflection] = field(default_factory=list)
    plan: tuple[str, ...] = ()
    steps: list[SubStep] = field(default_factory=list)
    cause: str = ""
    outcome: Outcome | None = None

    def fail(self, reason: str) -> None:
        self.outcome = Discarded(prompt=self.prompt, reason=reason)

    @property
    def case(self) -> FailedCase:
        """The latest picture, as the analyzer is shown it."""
        last = self.drafts[-1]
        return FailedCase(
            instruction=self.prompt.instruction,
            references=self.prompt.references,
            image=last.image,
            evaluation=last.evaluation,
        )


class Escalation:
    """Carries requests out with three roles.

    Args:
        baseline: the unified model itself, which makes the first try.
        generator: makes the pictures of reflections and sub-steps.
        seed: of all pictures, together with request, stage and try.
    """

    def __init__(
        self, baseline: Generator, analyzer: Analyzer, generator: Generator, rules: Rules, seed: int
    ) -> None:
        self.baseline, self.analyzer, self.generator = baseline, analyzer, generator
        self.rules, self.seed = rules, seed
        self.counts: Counter[str] = Counter()
        """What came into and out of each stage, and why the rest went."""

    def run(self, prompts: Sequence[Prompt]) -> list[Outcome]:
        """What became of each request, in order."""
        tried = [Tried(prompt) for prompt in prompts]
        self._direct(tried)
        for number in range(self.rules.rounds):
            self._reflect(_open(tried), number)
        self._plan(_open(tried))
        return [one.outcome for one in tried if one.outcome is not None]

    # ------------------------------------------------------------------------------- stages

    def _direct(self, tried: Sequence[Tried]) -> None:
        jobs = [_whole(one.prompt, self._seed(one, "direct", 0)) for one in tried]
        self._draw(tried, self.baseline, jobs, "direct")
        self.counts["direct.came"] += len(tried)
        for one in _open(tried):
            if one.drafts[-1].evaluation.passes(self.rules.accepted):
                one.outcome = Story(prompt=one.prompt, first=one.drafts[0])
                self.counts["direct.kept"] += 1

    def _draw(
        self,
        tried: Sequence[Tried],
        generator: Generator,
        jobs: Sequence[GenerationJob],
        stage: str,
    ) -> None:
        """Draw and evaluate; a request whose calls fail is discarded."""
        drawn = self._ask(tried, jobs, generator.generate, f"{stage}: generator failed")
        cases = [
            DraftCase(
                instruction=one.prompt.instruction, references=one.prompt.references, image=image
            )
            for one, image in drawn
        ]
        who = [one for one, _ in drawn]
        evaluated = self._ask(who, cases, self.analyzer.evaluate, f"{stage}: analyzer failed")
        images = {id(one): image for one, image in drawn}
        for one, evaluation in evaluated:
            one.drafts.append(Draft(image=images[id(one)], evaluation=evaluation))

    def _reflect(self, tried: Sequence[Tried], number: int) -> None:
        self.counts[f"reflection_{number + 1}.came"] += len(tried)
        cases = [one.case for one in tried]
        said = self._ask(tried, cases, self.analyzer.reflect, "reflection: analyzer failed")
        for one, reflection in said:
            one.reflections.append(reflection)
        going = [one for one, _ in said]
        jobs = [
            GenerationJob(
                prompt=one.reflections[-1].improvement_plan,
                seed=self._seed(one, "reflection", number),
                source=one.drafts[-1].image,
                references=self._others(one),
            )
            for one in going
        ]
        self._draw(going, self.generator, jobs, "reflection")
        for one in _open(going):
            if one.drafts[-1].evaluation.passes(self.rules.accepted):
                one.outcome = Story(
                    prompt=one.prompt,
                    first=one.drafts[0],
                    rounds=tuple(
                        Round(reflection=r, image=d.image, evaluation=d.evaluation)
                        for r, d in zip(one.reflections, one.drafts[1:], strict=True)
                    ),
                )
                self.counts[f"reflection_{number + 1}.kept"] += 1

    def _plan(self, tried: Sequence[Tried]) -> None:
        self.counts["diagnosis.came"] += len(tried)
        causes = self._ask(
            tried, [one.case for one in tried], self.analyzer.diagnose, "diagnosis: analyzer failed"
        )
        for one, cause in causes:
            self.counts[f"cause.{cause}"] += 1
            if cause != "instruction_too_complex":
                one.fail(f"diagnosis: {cause}")
        going = _open(tried)
        plans = self._ask(
            going, [one.case for one in going], self.analyzer.decompose, "plan: analyzer failed"
        )
        for one, plan in plans:
            if MIN_STEPS <= len(plan) <= MAX_STEPS:
                one.plan = plan
            else:
                one.fail(f"plan: {'too many' if len(plan) > MAX_STEPS else 'too few'} sub-steps")
        going = _open(going)
        self.counts["diagnosis.kept"] += len(going)
        self.counts["multi_step.came"] += len(going)
        for number in range(MAX_STEPS):
            self._step([one for one in _open(going) if len(one.plan) > number], number)
        self._finish(_open(going))

    def _step(self, tried: Sequence[Tried], number: int) -> None:
        """One sub-step of every plan that has so many, up to ``step_tries`` times."""
        for attempt in range(self.rules.step_tries):
            waiting = [one for one in _open(tried) if len(one.steps) == number]
            jobs = [
                GenerationJob(
                    prompt=one.plan[number],
                    seed=self._seed(one, f"step {number}", attempt),
                    source=_before(one),
                    references=self._others(one),
                )
                for one in waiting
            ]
            drawn = self._ask(waiting, jobs, self.generator.generate, "step: generator failed")
            cases = [
                DraftCase(
                    instruction=one.plan[number],
                    references=_only(_before(one)),
                    image=image,
                )
                for one, image in drawn
            ]
            who = [one for one, _ in drawn]
            images = {id(one): image for one, image in drawn}
            judged = self._ask(who, cases, self.analyzer.evaluate, "step: analyzer failed")
            for one, evaluation in judged:
                if evaluation.passes(self.rules.step_accepted):
                    one.steps.append(
                        SubStep(
                            instruction=one.plan[number],
                            image=images[id(one)],
                            evaluation=evaluation,
                        )
                    )
        for one in _open(tried):
            if len(one.steps) == number:
                one.fail("multi_step: a sub-step never passed")

    def _finish(self, tried: Sequence[Tried]) -> None:
        """A plan is a success only if what it leads to is what was asked for."""
        cases = [
            DraftCase(
                instruction=one.prompt.instruction,
                references=one.prompt.references,
                image=one.steps[-1].image,
            )
            for one in tried
        ]
        judged = self._ask(tried, cases, self.analyzer.evaluate, "multi_step: analyzer failed")
        for one, evaluation in judged:
            if not evaluation.passes(self.rules.accepted):
                one.fail("multi_step: the result is not what was asked for")
                continue
            one.outcome = Story(prompt=one.prompt, first=one.drafts[0], steps=tuple(one.steps))
            self.counts["multi_step.kept"] += 1

    # -------------------------------------------------------------------------------- calls

    def _others(self, one: Tried) -> tuple[bytes, ...]:
        return one.prompt.references[:-1] if self.rules.show_references else ()

    def _seed(self, one: Tried, stage: str, attempt: int) -> int:
        return derive_seed(self.seed, one.prompt.id, stage, attempt)

    def _ask(
        self,
        tried: Sequence[Tried],
        cases: Sequence[Item],
        call: Callable[[Sequence[Item]], list[Answer | Failure]],
        reason: str,
    ) -> list[tuple[Tried, Answer]]:
        """Answers by request. Failed calls are repeated; those that stay so discard the request and
        are never taken for a score."""
        answers: dict[int, Answer] = {}
        failed: dict[int, Failure] = {}
        open_ = list(range(len(cases)))
        for _ in range(1 + self.rules.retries):
            if not open_:
                break
            for place, answer in zip(open_, call([cases[i] for i in open_]), strict=True):
                if isinstance(answer, Failure):
                    failed[place] = answer
                else:
                    answers[place] = answer
            open_ = [i for i in open_ if i not in answers and not failed[i].final]
        for place in failed.keys() - answers.keys():
            self.counts["failed_calls"] += 1
            tried[place].fail(reason)
        return [(tried[place], answers[place]) for place in sorted(answers)]


def _open(tried: Sequence[Tried]) -> list[Tried]:
    return [one for one in tried if one.outcome is None]


def _whole(prompt: Prompt, seed: int) -> GenerationJob:
    """A request as one job: the last reference is edited, the others go along."""
    source = prompt.references[-1] if prompt.references else None
    return GenerationJob(
        prompt=prompt.instruction, seed=seed, source=source, references=prompt.references[:-1]
    )


def _before(one: Tried) -> bytes | None:
    """What the next sub-step edits: the last picture of the plan, else the reference."""
    if one.steps:
        return one.steps[-1].image
    return one.prompt.references[-1] if one.prompt.references else None


def _only(image: bytes | None) -> tuple[bytes, ...]:
    return () if image is None else (image,)
