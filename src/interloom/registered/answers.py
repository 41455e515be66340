"""Trajectories as rows of the registered pipeline's answer."""

from __future__ import annotations

import base64
import json
from typing import Any

from interloom.dialogue import plan_fields
from interloom.records import Attempt, StepTrace, Trajectory


def to_text(data: bytes | None) -> str:
    """An image as base64, or an empty text."""
    return "" if data is None else base64.b64encode(data).decode()


def step_text(trace: StepTrace) -> str:
    """What a step says beside its picture."""
    return trace.step.auxiliary_text or trace.step.instruction or ""


def answer_row(trajectory: Trajectory) -> dict[str, Any]:
    """Columns ``texts`` and ``images`` (one entry per step; base64 PNG, empty without a picture),
    ``trajectory`` (JSON: plan and every attempt with its critique) and ``failure``."""
    steps = trajectory.steps
    told = {
        "plan": [plan_fields(s) for s in trajectory.plan.steps] if trajectory.plan else None,
        "steps": [[attempt_fields(attempt) for attempt in t.attempts] for t in steps],
    }
    return {
        "texts": [step_text(t) for t in steps],
        "images": [to_text(t.accepted.image if t.accepted else None) for t in steps],
        "trajectory": json.dumps(told),
        "failure": str(trajectory.failure.reason) if trajectory.failure else "",
    }


def story_row(trajectory: Trajectory) -> dict[str, Any]:
    """The same of a unified model's story, and its columns ``mode`` (direct, reflection,
    multi_step) and ``images_used``."""
    return answer_row(trajectory) | {
        "mode": trajectory.plan.reasoning if trajectory.plan else "",
        "images_used": sum(len(trace.attempts) for trace in trajectory.steps),
    }


def attempt_fields(attempt: Attempt) -> dict[str, Any]:
    """An attempt with its picture (base64 PNG) and its critique."""
    critique = attempt.critique
    return {
        "prompt": attempt.prompt,
        "seed": attempt.seed,
        "generator": attempt.generator,
        "image": to_text(attempt.image),
        "success": None if critique is None else critique.success,
        "refine_prompt": None if critique is None else critique.refine_prompt,
        "reasoning": None if critique is None else critique.reasoning,
        "failure": attempt.failure.reason if attempt.failure else None,
    }
