from __future__ import annotations

import pytest

from interloom.dialogue import format_critique, format_plan
from interloom.records import Critique, Plan, Request, Score, Step
from interloom.train.measure import critic_figures, planner_figures, repaired


def plan(*prompts: str, first: int = 1) -> Plan:
    steps = [
        Step(step_number=n, step_name="s", instruction="do", prompt=prompt)
        for n, prompt in enumerate(prompts, first)
    ]
    return Plan(reasoning="r", steps=tuple(steps))


def says(success: bool, prompt: str = "p") -> str:
    return format_critique(Critique(success=success, refine_prompt=prompt, reasoning="r"))


def test_planner_figures_by_hand():
    requests = [Request(id=str(n), text="x") for n in range(4)]
    targets = [plan("a", "b")] * 4
    answers = [
        format_plan(plan("a", "b")),
        format_plan(plan("a", "c")),
        format_plan(plan("a", first=2)),  # readable, but numbering does not fit the request
        "nothing",
    ]
    assert planner_figures(answers, requests, targets) == {
        "format_validity": 0.75,
        "plan_validity": 0.5,
        "step_count": 0.5,
        "prompt_match": pytest.approx((1 + 0.5 + 0 + 0) / 4),
    }


def test_critic_figures_by_hand():
    answers = [says(True), says(True), says(False), "unreadable"]
    assert critic_figures(answers, [True, False, False, True]) == {
        "format_validity": 0.75,
        "judgment_accuracy": 0.5,
        "accuracy_on_true": 0.5,
        "accuracy_on_false": 0.5,
        "said_true": 0.5,
    }


def test_a_collapsed_critic_shows():
    figures = critic_figures([says(True)] * 4, [True, False, False, False])
    assert (figures["said_true"], figures["accuracy_on_false"]) == (1.0, 0.0)


def test_no_items_are_zero_and_no_error():
    assert set(critic_figures([], []).values()) == {0.0}


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (Score(semantic=10, quality=3), 1.0),
        (Score(semantic=9, quality=10), 0.0),
        ("unreadable", 0.0),
    ],
)
def test_repaired(after: object, expected: float):
    assert repaired(after) == expected
