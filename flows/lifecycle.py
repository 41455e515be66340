"""The whole lifecycle: from prompts to registered models, over the DVC stages in their order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State

from flows import adaptive, dataset, evaluation, registration, training, validation
from flows.group import until_cancelled
from flows.stage import fetch_data, make_plan, project_folder
from interloom.promotion.decisions import REGISTERING
from interloom.settings.fields import System
from interloom.settings.file import load_settings, use_profile
from interloom.stages import wanted_stages

PARTS: tuple[tuple[Callable[..., Any], tuple[str, ...]], ...] = (
    (dataset.dataset, dataset.STAGES),
    (validation.validation, validation.STAGES),
    (training.training, training.STAGES),
    (evaluation.evaluation, evaluation.STAGES),
    (registration.registration, (REGISTERING["agents"],)),
    (adaptive.adaptive, adaptive.STAGES),
    (partial(registration.registration, system="adaptive"), (REGISTERING["adaptive"],)),
)


@flow(name="lifecycle", log_prints=True)
def lifecycle(
    project: str | None = None,
    profile: str | None = None,
    from_stage: str | None = None,
    only: str | None = None,
    timeout_minutes: float | None = None,
    retries: int | None = None,
    force: bool = False,
    system: System | None = None,
) -> dict[str, str] | State[Any]:
    """Run the lifecycle of one of the two systems.

    Args:
        project: project folder; the present one if not given.
        profile: switch to this profile first (changes params.yaml).
        from_stage: run this stage and those that need it.
        only: run just this stage.
        timeout_minutes: per stage; the params file's if not given.
        retries: per stage; the params file's if not given.
        force: run stages even if DVC finds them up to date.
        system: whose stages; those of ``from_stage`` or ``only``, else the agents', if not given.
    """
    root = project_folder(project)
    names = wanted_stages(from_stage, only, system)
    if profile is not None:
        print(use_profile(root, profile))
    plan = make_plan(root, timeout_minutes=timeout_minutes, retries=retries, force=force)

    def work() -> dict[str, str]:
        fetch_data(plan)
        done: dict[str, str] = {}
        for part, own in PARTS:
            chosen = [name for name in own if name in names]
            if chosen:
                done |= part(
                    project=str(root),
                    stages=chosen,
                    timeout_minutes=timeout_minutes,
                    retries=retries,
                    force=force,
                )
        return done

    result = until_cancelled(work)
    if isinstance(result, dict):
        rows = [{"stage": name, "state": state} for name, state in result.items()]
        active = load_settings(root / "params.yaml").profile
        create_table_artifact(rows, key="lifecycle", description=f"profile {active}")
    return result


if __name__ == "__main__":
    from interloom.cli import main

    main(["lifecycle"])
