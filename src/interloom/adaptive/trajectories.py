"""What the adaptive reasoner told, in the records of the other system's loop.

So benchmarks, galleries, registry and serving take both systems alike::

    first picture    a step that asks for the request itself; its evaluation is the judgment
    reflection       a further attempt at the same step; its prompt is the improvement plan
    sub-step         a step of its own
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from interloom.adaptive.reasoner import AdaptiveReasoner, Budget, Told
from interloom.adaptive.released import ACCEPTED
from interloom.adaptive.story import Block, Prompt, StoryError, read_blocks, read_evaluation
from interloom.records import (
    Attempt,
    Critique,
    Failure,
    Plan,
    Request,
    Segment,
    Step,
    StepTrace,
    Trajectory,
)
from interloom.seeding import derive_seed


def prompt_of(request: Request) -> Prompt:
    """A request as the reasoner takes it."""
    return Prompt(
        id=request.id,
        instruction=request.text,
        references=request.images,
        category=request.category,
    )


def answer(
    reasoner: AdaptiveReasoner, requests: Sequence[Request], budgets: Sequence[Budget], seed: int
) -> list[Trajectory]:
    """Every request carried out, in order; each may have its own budget."""
    told = reasoner.reason([prompt_of(one) for one in requests], budgets, seed=seed)
    return [
        trajectory(request, one, derive_seed(seed, request.id), reasoner.name)
        for request, one in zip(requests, told, strict=True)
    ]


@dataclass
class _Open:
    """A step in progress."""

    prompt: str
    source: bytes | None
    attempts: list[Attempt] = field(default_factory=list)

    def judge(self, block: Block) -> None:
        """Put an evaluation's verdict to the last picture; one that cannot be read says nothing."""
        try:
            evaluation = read_evaluation(block.text)
        except StoryError:
            return
        judged = Critique(
            success=evaluation.passes(ACCEPTED),
            refine_prompt=self.prompt,
            reasoning=" ".join(block.text.split()),
        )
        self.attempts[-1] = self.attempts[-1].model_copy(update={"critique": judged})

    def explain(self, analysis: str) -> None:
        """Why the last picture failed, beside what was seen in it."""
        last = self.attempts[-1]
        if last.critique is not None:
            said = f"{last.critique.reasoning} — {' '.join(analysis.split())}"
            self._say(last, {"reasoning": said})

    def mend(self, plan: str) -> None:
        """What the last picture's reflection wants instead."""
        self.prompt = plan
        last = self.attempts[-1]
        if last.critique is not None:
            self._say(last, {"refine_prompt": plan})

    def _say(self, last: Attempt, update: dict[str, str]) -> None:
        assert last.critique is not None
        judged = last.critique.model_copy(update=update)
        self.attempts[-1] = last.model_copy(update={"critique": judged})


def traces(request: Request, segments: Sequence[Segment], seed: int, name: str) -> list[StepTrace]:
    """The steps of what was written so far; the last one may have no picture yet."""
    blocks, _ = read_blocks(segments)
    given = request.images[-1] if request.images else None
    steps = [_Open(request.text, given)]
    for block in blocks:
        now = steps[-1]
        if block.tag == "image":
            now.attempts.append(
                Attempt(prompt=now.prompt, seed=seed, generator=name, image=block.image)
            )
        elif block.tag.startswith("step_"):
            # A plan begins from the references and not from the first try.
            before = given if len(steps) == 1 else _last_picture(now)
            steps.append(_Open(block.text, before))
        elif now.attempts and block.tag == "evaluate":
            now.judge(block)
        elif now.attempts and block.tag == "failure_analysis":
            now.explain(block.text)
        elif now.attempts and block.tag == "improvement_plan":
            now.mend(block.text)
    first = len(request.images) + 1
    found: list[StepTrace] = []
    for one in steps:
        if one.attempts or one is steps[-1]:
            asked = one.attempts[0].prompt if one.attempts else one.prompt
            step = Step(step_number=first + len(found), instruction=asked, prompt=asked)
            found.append(StepTrace(step=step, source=one.source, attempts=tuple(one.attempts)))
    return found


def trajectory(request: Request, told: Told, seed: int, name: str) -> Trajectory:
    """A trajectory of what was told, also where that is no story: its pictures are there all the
    same."""
    made = [trace for trace in traces(request, told.segments, seed, name) if trace.attempts]
    failure = None if made else Failure(role="generator", reason="no picture was drawn")
    plan = Plan(reasoning=told.mode, steps=tuple(trace.step for trace in made))
    return Trajectory(request=request, plan=plan, steps=tuple(made), failure=failure)


def _last_picture(step: _Open) -> bytes | None:
    """The last picture of a step; ``None`` where it has none."""
    return step.attempts[-1].image if step.attempts else step.source
