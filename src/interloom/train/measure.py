"""Held-out figures of a planner's or critic's answers: pure functions over texts."""

from __future__ import annotations

from collections.abc import Sequence

from interloom.dialogue import AnswerError, parse_critique, parse_plan, plan_faults
from interloom.records import Critique, Plan, Request, Score


def read_plans(answers: Sequence[str]) -> list[Plan | None]:
    """Plans where they can be read."""
    plans: list[Plan | None] = []
    for answer in answers:
        try:
            plans.append(parse_plan(answer))
        except AnswerError:
            plans.append(None)
    return plans


def read_critiques(answers: Sequence[str]) -> list[Critique | None]:
    """Critiques where they can be read."""
    critiques: list[Critique | None] = []
    for answer in answers:
        try:
            critiques.append(parse_critique(answer))
        except AnswerError:
            critiques.append(None)
    return critiques


def planner_figures(
    answers: Sequence[str], requests: Sequence[Request], targets: Sequence[Plan]
) -> dict[str, float]:
    """Shares in [0, 1] over all items; an unreadable answer counts as a miss everywhere.

    ``format_validity``: can be read. ``plan_validity``: also fits its request (numbering, kind,
    one text per image). ``step_count``: has as many steps as the target. ``prompt_match``: mean
    share of the target's steps whose prompt (or, without one, text) is reproduced word for word;
    of use for tiny models only.
    """
    plans = read_plans(answers)
    valid = [p is not None and not plan_faults(p, r) for p, r in zip(plans, requests, strict=True)]
    counts = [
        p is not None and len(p.steps) == len(t.steps) for p, t in zip(plans, targets, strict=True)
    ]
    match = [_match(plan, target) for plan, target in zip(plans, targets, strict=True)]
    return {
        "format_validity": mean([plan is not None for plan in plans]),
        "plan_validity": mean(valid),
        "step_count": mean(counts),
        "prompt_match": mean(match),
    }


def _match(plan: Plan | None, target: Plan) -> float:
    if plan is None:
        return 0.0
    said = {step.step_number: step.prompt or step.auxiliary_text for step in plan.steps}
    return mean(
        [
            said.get(step.step_number) == (step.prompt or step.auxiliary_text)
            for step in target.steps
        ]
    )


def critic_figures(answers: Sequence[str], success: Sequence[bool]) -> dict[str, float]:
    """Shares in [0, 1]; an unreadable answer is neither valid nor right.

    ``judgment_accuracy`` is over all items, ``accuracy_on_true`` and ``accuracy_on_false`` over
    the items with that truth, ``said_true`` the share judged a success (a collapsed critic shows
    here).
    """
    critiques = read_critiques(answers)
    right = [c is not None and c.success == s for c, s in zip(critiques, success, strict=True)]
    by_truth = {
        truth: [hit for hit, s in zip(right, success, strict=True) if s is truth]
        for truth in (True, False)
    }
    return {
        "format_validity": mean([critique is not None for critique in critiques]),
        "judgment_accuracy": mean(right),
        "accuracy_on_true": mean(by_truth[True]),
        "accuracy_on_false": mean(by_truth[False]),
        "said_true": mean([critique is not None and critique.success for critique in critiques]),
    }


def mean(values: Sequence[float]) -> float:
    """Their mean, 0 of none."""
    return sum(values) / len(values) if values else 0.0


REPAIRED = 9.5
"""Semantic score from which an executed refinement counts as a repair."""


def repaired(after: object) -> float:
    """1 if an executed refinement does what the step asked for, else 0."""
    return float(isinstance(after, Score) and after.semantic >= REPAIRED)
