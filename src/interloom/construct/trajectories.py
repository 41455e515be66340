"""Raw trajectories: the teacher plans and critiques, two generators of different strength draw.

The complete record is kept: the plan, every image of every iteration, every critique and refined
prompt, every failed call (InterleaveThinker §3.3).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from interloom.construct import accounts, gallery, spans, store
from interloom.construct.division import all_parts
from interloom.construct.parts import Places, Tally, Times, carry_out
from interloom.construct.yields import Yield
from interloom.errors import InterloomError

if TYPE_CHECKING:
    from interloom.runner import StageRun
    from interloom.settings.file import Settings


def account(counts: Counter[str]) -> list[Yield]:
    """What became of the requests and of the steps."""
    failed = {
        name.removeprefix("failed."): n for name, n in counts.items() if name.startswith("failed.")
    }
    whole = counts["requests"] - sum(failed.values())
    lost = {
        name: counts[f"steps.{name}"]
        for name in ("text-only", "unjudged", "never-passed")
        if counts[f"steps.{name}"]
    }
    return [
        Yield("requests", counts["requests"], whole, failed),
        Yield("steps", counts["steps"], counts["steps.passed"], lost),
    ]


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage ``trajectories``."""
    shards = stage.out("trajectories")
    places = Places(stage.name, shards, stage.work / "calls.sqlite", stage.cache, stage.ledger)
    parts = all_parts(settings, stage.dep("prompts"))
    tally = Tally()
    with stage.progress(sum(len(p.requests) for p in parts), "carrying out requests") as bar:
        if settings.trajectories.runner == "local":
            for part in parts:
                tally.add(carry_out(part, settings, places, bar.advance))
        else:
            from interloom.construct import on_dask  # Dask may be missing here

            for requests, done in on_dask.carry_out(
                settings, places, stage.dep("prompts"), stage.work, len(parts)
            ):
                tally.add(done)
                bar.advance(requests)
    counts = tally.counts
    if counts["requests"] and not counts["steps"]:
        raise InterloomError(f"trajectories: every request failed: {dict(counts)}")
    names = ("attempts", "images", "failed_calls", "steps.passed-at-once", "calls", "calls_known")
    numbers: dict[str, float | int | str] = {name: counts[name] for name in names}
    accounts.write(stage, account(counts), numbers)
    show(shards, tally.times, settings, stage)


def show(shards: Path, times: Times, settings: Settings, stage: StageRun) -> None:
    """Trajectories of all categories and outcomes for MLflow: a page, and a trace of each."""
    if not settings.trajectories.shown:
        return
    ids = gallery.choose(shards, settings.trajectories.shown, settings.seed)
    page = stage.work / "trajectories.html"
    stage.artifact(gallery.write(shards, page, ids, f"{len(ids)} trajectories"), "gallery")
    chosen = list(store.read_chosen(shards, ids))
    stage.picture("sequence", gallery.strip(max(chosen, key=lambda one: len(one.steps))))
    for trajectory in chosen:
        span = spans.trace_of(trajectory, times[trajectory.request.id])
        stage.trace(span, spans.tags_of(trajectory))
