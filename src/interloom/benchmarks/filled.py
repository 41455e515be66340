"""A cell that has been answered: what lies in its folder, and how its answers came about."""

from __future__ import annotations

from collections.abc import Sequence

from interloom.records import Trajectory

FIGURES = "run.json"
"""How a cell's answers came about; written last."""
TRAJECTORIES = "trajectories"


def run_figures(trajectories: Sequence[Trajectory], seconds: float) -> dict[str, float]:
    """How the answers came about, per request."""
    count = len(trajectories)
    attempts = [a for t in trajectories for trace in t.steps for a in trace.attempts]
    images = sum(attempt.image is not None for attempt in attempts)
    return {
        "requests": float(count),
        "images_per_request": images / count,
        "steps_per_request": sum(len(t.steps) for t in trajectories) / count,
        "without_plan": sum(t.plan is None for t in trajectories) / count,
        "failed_calls": float(sum(attempt.failure is not None for attempt in attempts)),
        "seconds": seconds,
    }
