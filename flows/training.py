"""Train the agents: both fine-tunings, and reinforcement learning of the critic beside them."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from flows import grpo, sft
from flows.group import run_group

STAGES = sft.STAGES + grpo.STAGES


@flow(name="training", log_prints=True)
def training(
    project: str | None = None,
    stages: list[str] | None = None,
    timeout_minutes: float | None = None,
    retries: int | None = None,
    force: bool = False,
) -> dict[str, str] | State[Any]:
    """Train the agents; what ``sft`` and ``grpo`` do, but the critic does not wait for the planner.

    Args:
        project: project folder; the present one if not given.
        stages: only these of the flow's stages.
        timeout_minutes: per stage; the params file's if not given.
        retries: per stage; the params file's if not given.
        force: run stages even if DVC finds them up to date.
    """
    return run_group(
        STAGES,
        project=project,
        stages=stages,
        timeout_minutes=timeout_minutes,
        retries=retries,
        force=force,
    )


if __name__ == "__main__":
    from flows.launch import launch_alone

    launch_alone(training)
