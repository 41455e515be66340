"""Register a system's models as versions; then decide about the challenger."""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State

from flows.approval import decide
from flows.group import until_cancelled
from flows.stage import fetch_data, make_plan, project_folder, run_stages
from interloom.promotion.decisions import REGISTERING
from interloom.settings.fields import System


@flow(name="registration", log_prints=True)
def registration(
    project: str | None = None,
    stages: list[str] | None = None,
    timeout_minutes: float | None = None,
    retries: int | None = None,
    force: bool = False,
    approval: Literal["gate", "human", "none"] | None = None,
    system: System = "agents",
) -> dict[str, str] | State[Any]:
    """Register a system's models as versions; then decide about the challenger.

    Args:
        project: project folder; the present one if not given.
        stages: only these of the flow's stages.
        timeout_minutes: per stage; the params file's if not given.
        retries: per stage; the params file's if not given.
        force: run stages even if DVC finds them up to date.
        approval: who decides: the gate, a person (the run pauses until then), or none, so that the
            challenger waits for `interloom registry promote`; the params file's if not given.
        system: whose: planner, critic and pipeline (agents), or the unified model (adaptive).
    """
    root = project_folder(project)
    plan = make_plan(root, timeout_minutes=timeout_minutes, retries=retries, force=force)
    names = [name for name in (REGISTERING[system],) if stages is None or name in stages]

    def work() -> dict[str, str]:
        fetch_data(plan)
        return run_stages(names, plan) | {"promotion": decide(root, system, approval)}

    return until_cancelled(work)


if __name__ == "__main__":
    from flows.launch import launch_alone

    launch_alone(registration)
