"""Raw trajectories: the teacher plans and critiques, two generators of different strength draw.

The complete record is kept: the plan, every image of every iteration, every critique and refined
prompt, every failed call (InterleaveThinker §3.3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from interloom import cast, loop
from interloom.cache import CallCache
from interloom.construct import store
from interloom.construct.yields import Yield, write_csv, write_metrics
from interloom.errors import InterloomError
from interloom.records import Request, Trajectory
from interloom.seeding import derive_seed

if TYPE_CHECKING:
    from interloom.runner import StageRun
    from interloom.settings import Settings


def assign(requests: Sequence[Request], weak_share: float, seed: int) -> list[bool]:
    """Which requests the weak generator carries out: the wanted share, drawn by request id."""
    order = sorted(
        range(len(requests)), key=lambda place: derive_seed(seed, "weak", requests[place].id)
    )
    weak = set(order[: round(weak_share * len(requests))])
    return [place in weak for place in range(len(requests))]


def in_order(finished: Iterable[tuple[int, Trajectory]]) -> Iterator[Trajectory]:
    """Trajectories in the order of their requests; those that overtake others wait in memory."""
    waiting: dict[int, Trajectory] = {}
    following = 0
    for place, trajectory in finished:
        waiting[place] = trajectory
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def tally(trajectory: Trajectory, counts: Counter[str]) -> None:
    """Add one trajectory to the counts that metrics and yields are made of."""
    counts["requests"] += 1
    if trajectory.failure is not None:
        counts[f"failed.{trajectory.failure.role}"] += 1
    for trace in trajectory.steps:
        counts["steps"] += 1
        counts["attempts"] += len(trace.attempts)
        for attempt in trace.attempts:
            counts["failed_calls"] += attempt.failure is not None
            counts["images"] += attempt.image is not None
        if not trace.attempts:
            counts["steps.text-only"] += 1
        elif any(a.critique is not None and a.critique.success for a in trace.attempts):
            counts["steps.passed"] += 1
            counts["steps.passed-at-once"] += len(trace.attempts) == 1
        elif trace.attempts[-1].critique is None:
            counts["steps.unjudged"] += 1
        else:
            counts["steps.never-passed"] += 1


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
    options, models = settings.trajectories, settings.models
    if options.threads:
        # The last digits of a picture depend on the number of threads.
        import torch

        torch.set_num_threads(options.threads)
    requests = [store.request_from(row) for row in store.read_rows(stage.dep("prompts"))]
    weak = assign(requests, options.weak_share, settings.seed)
    cache = CallCache(stage.work / "calls.sqlite")
    remotes = cast.remotes(settings.remote, stage)
    teacher = cast.teacher(settings.teacher, remotes, cache)
    counts: Counter[str] = Counter()

    def finished() -> Iterator[Trajectory]:
        for is_weak, model in ((False, models.generator), (True, models.generator_weak)):
            part = [r for r, w in zip(requests, weak, strict=True) if w is is_weak]
            if not part:
                continue
            generator = cast.generator(model, remotes, cache)
            stream = loop.stream(
                part,
                teacher,
                generator,
                teacher,
                max_attempts=options.max_attempts,
                seed=settings.seed,
                slots=options.batch_size,
                retries=settings.teacher.retries,
            )
            for trajectory in in_order(stream):
                tally(trajectory, counts)
                yield trajectory

    facts = {
        "format": "trajectories/1",
        "seed": settings.seed,
        "teacher": settings.teacher.model,
        "generators": [models.generator.model, models.generator_weak.model],
        "max_attempts": options.max_attempts,
    }
    with stage.progress(len(requests), "carrying out requests") as bar:

        def counted() -> Iterator[Trajectory]:
            for trajectory in finished():
                bar.advance()
                yield trajectory

        store.write_shards(
            counted(), stage.out("trajectories"), shard_rows=options.shard_rows, about=facts
        )
    cache.close()
    if counts["requests"] and not counts["steps"]:
        raise InterloomError(f"trajectories: every request failed: {dict(counts)}")
    numbers: dict[str, float | int | str] = {
        name: counts[name]
        for name in ("attempts", "images", "failed_calls", "steps.passed-at-once")
    }
    numbers |= {"calls": cache.calls + remotes.calls, "calls_known": cache.hits + remotes.hits}
    write_metrics(stage.out("metrics"), account(counts), numbers)
    write_csv(stage.out("yield"), "trajectories", account(counts))
