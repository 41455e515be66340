"""A flow of the tiny stages: ``python tiny_flow.py`` runs it in the present folder."""

from __future__ import annotations

import sys

from tiny_stages import STAGES as TINY

import interloom.stages

interloom.stages.STAGES = tuple(TINY.values())

from prefect import flow  # noqa: E402

from flows.group import run_group, until_cancelled  # noqa: E402


@flow(name="tiny", log_prints=True)
def tiny(
    project: str | None = None, timeout_minutes: float | None = None, retries: int | None = None
) -> object:
    """Numbers, squares, total."""
    return run_group(
        tuple(TINY), project=project, stages=None, timeout_minutes=timeout_minutes,
        retries=retries, force=False,
    )  # fmt: skip


@flow(name="outer", log_prints=True)
def outer(timeout_minutes: float | None = None, retries: int | None = None) -> object:
    """The tiny flow as a sub-flow, as in the lifecycle."""
    return until_cancelled(lambda: tiny(timeout_minutes=timeout_minutes, retries=retries))


if __name__ == "__main__":
    options = {key: float(value) for key, value in (word.split("=") for word in sys.argv[1:])}
    run = outer if options.pop("nested", 0) else tiny
    print("RESULT", run(**options))
