"""From what a policy wrote to what it is rewarded for: the analyzer looks at pictures and texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from interloom.adaptive.reasoner import Told
from interloom.adaptive.rewards import Judged, released_format
from interloom.adaptive.story import (
    Block,
    StoryError,
    read_blocks,
    read_evaluation,
    read_reflection,
)
from interloom.records import Evaluation, Failure, Reflection, Thresholds
from interloom.roles import Analyzer, DraftCase, ReflectionCase, StepCase

Case = TypeVar("Case")
Answer = TypeVar("Answer")


@dataclass
class _Texts:
    """The intermediate texts of one trajectory: cases to be rated, and those that cannot be."""

    reflections: list[ReflectionCase | None] = field(default_factory=list)
    steps: list[StepCase | None] = field(default_factory=list)


def intermediate_texts(told: Told) -> _Texts:
    """Every reflection and sub-step, also of a stream that is no story.

    Were they rated in whole stories only, breaking the form would be a way to hide bad texts.
    ``None`` stands for a text that nobody can rate, such as half a reflection: it is worth nothing.
    """
    blocks, _ = read_blocks(told.segments)
    prompt, texts = told.prompt, _Texts()
    image: bytes | None = None
    evaluation: Evaluation | None = None
    for place, block in enumerate(blocks):
        if block.tag == "image":
            image, evaluation = block.image, None
        elif block.tag == "evaluate":
            evaluation = _readable(block)
        elif block.tag == "failure_analysis":
            reflection = _reflection(blocks[place : place + 2])
            if image is None or evaluation is None or reflection is None:
                texts.reflections.append(None)
                continue
            texts.reflections.append(
                ReflectionCase(
                    instruction=prompt.instruction,
                    references=prompt.references,
                    image=image,
                    evaluation=evaluation,
                    reflection=reflection,
                )
            )
        elif block.tag.startswith("step_"):
            # A plan begins from the references and not from the first try.
            start = prompt.references[-1] if prompt.references else None
            texts.steps.append(
                StepCase(
                    instruction=prompt.instruction,
                    references=prompt.references,
                    current=image if texts.steps else start,
                    step=block.text,
                )
                if block.text
                else None
            )
    return texts


def _readable(block: Block) -> Evaluation | None:
    try:
        return read_evaluation(block.text)
    except StoryError:
        return None


def _reflection(blocks: Sequence[Block]) -> Reflection | None:
    if [block.tag for block in blocks] != ["failure_analysis", "improvement_plan"]:
        return None
    try:
        return read_reflection(blocks[0].text, blocks[1].text)
    except StoryError:
        return None


def judge(
    told: Sequence[Told], analyzer: Analyzer, accepted: Thresholds, retries: int
) -> list[Judged]:
    """What the rewards need of each trajectory; failed calls are repeated, and stay failures."""
    drawn = [one for one in told if one.final is not None]
    cases = [
        DraftCase(
            instruction=one.prompt.instruction, references=one.prompt.references, image=one.final
        )
        for one in drawn
        if one.final is not None
    ]
    evaluated = iter(_asked(analyzer.evaluate, cases, retries))
    texts = [intermediate_texts(one) for one in told]
    reflections = iter(
        _asked(analyzer.rate_reflections, [c for t in texts for c in t.reflections if c], retries)
    )
    steps = iter(_asked(analyzer.rate_steps, [c for t in texts for c in t.steps if c], retries))
    judged = []
    for one, said in zip(told, texts, strict=True):
        final = None if one.final is None else next(evaluated)
        judged.append(
            Judged(
                final=final,
                valid=one.story is not None,
                images=len(one.images),
                success=isinstance(final, Evaluation) and final.passes(accepted),
                reflections=tuple(next(reflections) if c else 0.0 for c in said.reflections),
                steps=tuple(next(steps) if c else 0.0 for c in said.steps),
                form=released_format(one.segments),
            )
        )
    return judged


def _asked(
    call: Callable[[Sequence[Case]], list[Answer | Failure]], cases: Sequence[Case], retries: int
) -> list[Answer | Failure]:
    answers: dict[int, Answer | Failure] = {}
    waiting = list(range(len(cases)))
    for _ in range(1 + retries):
        if not waiting:
            break
        answers |= dict(zip(waiting, call([cases[i] for i in waiting]), strict=True))
        waiting = [i for i in waiting if isinstance(a := answers[i], Failure) and not a.final]
    return [answers[i] for i in range(len(cases))]
