"""Carrying out a part of the requests, so that neither the device nor an API slot waits.

========================= =====================================================================
all models are local      one loop in lockstep: full batches on one device
one role is remote        two loops in lockstep take turns with the local model: while one waits
                          for answers, the other one uses the device
all models are remote     every request on its own, as many at once as there are slots: nobody
                          waits for the slowest answer of a batch
========================= =====================================================================
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom import cast, loop
from interloom.cache import CallCache
from interloom.construct import store
from interloom.parallel import Window, merged
from interloom.records import Critique, Failure, Plan, Request, Trajectory
from interloom.roles import CritiqueCase, GenerationJob, Generator, Teacher

if TYPE_CHECKING:
    from interloom.settings.file import Settings

Placed = tuple[int, Trajectory]
Stream = Callable[[Sequence[Request], int], Iterator[Placed]]
"""``loop.stream`` of some requests with so many slots."""
Times = dict[str, list[tuple[float, float]]]
"""By request: when each of its calls began and ended, as ``loop.Observer`` is told them."""


@dataclass(frozen=True)
class Part:
    """Requests that one generator carries out, and the number of the shard that they begin."""

    shard: int
    weak: bool
    requests: Sequence[Request]


@dataclass(frozen=True)
class Places:
    """Where a part finds and keeps things; all of it in the project, for workers that share it."""

    name: str
    """Of the stage."""
    shards: Path
    calls: Path
    """File with the answers of local models."""
    cache: Path
    ledger: Path


@dataclass
class Tally:
    """What came of a part."""

    counts: Counter[str] = field(default_factory=Counter)
    times: Times = field(default_factory=lambda: defaultdict(list))

    def observe(self, request: str, began: float, ended: float) -> None:
        """A ``loop.Observer``."""
        self.times[request].append((began, ended))

    def add(self, other: Tally) -> None:
        """Take another part's in."""
        self.counts += other.counts
        self.times |= other.times


def count(trajectory: Trajectory, counts: Counter[str]) -> None:
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


def in_order(finished: Iterable[Placed]) -> Iterator[Trajectory]:
    """Trajectories in the order of their requests; those that overtake others wait in memory."""
    waiting: dict[int, Trajectory] = {}
    following = 0
    for place, trajectory in finished:
        waiting[place] = trajectory
        while following in waiting:
            yield waiting.pop(following)
            following += 1


class _TakingTurns:
    """A local model that threads use one at a time."""

    def __init__(self, model: Any) -> None:
        self.name = model.name
        self._model, self._turn = model, threading.Lock()

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        with self._turn:
            return self._model.generate(jobs)

    def plan(self, requests: Sequence[Request]) -> list[Plan | Failure]:
        with self._turn:
            return self._model.plan(requests)

    def critique(self, cases: Sequence[CritiqueCase]) -> list[Critique | Failure]:
        with self._turn:
            return self._model.critique(cases)


def taking_turns(requests: Sequence[Request], stream: Stream, slots: int) -> Iterator[Trajectory]:
    """Two loops in lockstep, with every other request each."""

    def half(which: int) -> Iterator[Placed]:
        for place, trajectory in stream(requests[which::2], slots):
            yield 2 * place + which, trajectory

    return in_order(merged([half(0), half(1)], threads=2))


def apart(requests: Sequence[Request], stream: Stream, slots: int) -> Iterator[Trajectory]:
    """Every request on its own, ``slots`` at a time."""
    window = Window(loop.AHEAD * slots)

    def alone(place: int, request: Request) -> Iterator[Placed]:
        for _, trajectory in stream([request], 1):
            yield place, trajectory

    streams = (alone(place, request) for place, request in window.numbered(requests))
    try:
        for trajectory in in_order(merged(streams, threads=slots)):
            window.advance()
            yield trajectory
    finally:
        window.close()


def carry_out(
    part: Part, settings: Settings, places: Places, tell: Callable[[], object] = lambda: None
) -> Tally:
    """Carry a part out and write its shards; ``tell`` is called for each request that is done."""
    options, models = settings.trajectories, settings.models
    if options.threads:
        # The last digits of a picture depend on the number of threads.
        import torch

        torch.set_num_threads(options.threads)
    model = models.generator_weak if part.weak else models.generator
    cache = CallCache(places.calls)
    remotes = cast.remotes(settings.remote, places)
    teacher: Teacher = cast.teacher(settings.teacher, remotes, cache)
    generator: Generator = cast.generator(model, remotes, cache)
    here = [not cast.is_remote(backend) for backend in (model.backend, settings.teacher.backend)]
    if here == [True, False]:
        generator = _TakingTurns(generator)
    elif here == [False, True]:
        teacher = _TakingTurns(teacher)
    tally = Tally()

    def stream(requests: Sequence[Request], slots: int) -> Iterator[Placed]:
        return loop.stream(
            requests,
            teacher,
            generator,
            teacher,
            max_attempts=options.max_attempts,
            seed=settings.seed,
            slots=slots,
            retries=settings.teacher.retries,
            observe=tally.observe,
        )

    def made() -> Iterator[Trajectory]:
        if all(here):
            finished = in_order(stream(part.requests, options.batch_size))
        else:
            way = taking_turns if any(here) else apart
            finished = way(part.requests, stream, options.batch_size)
        for trajectory in finished:
            count(trajectory, tally.counts)
            tell()
            yield trajectory

    facts = {
        "format": "trajectories/1",
        "seed": settings.seed,
        "teacher": settings.teacher.model,
        "generator": model.model,
        "max_attempts": options.max_attempts,
    }
    store.write_shards(
        made(), places.shards, shard_rows=options.shard_rows, about=facts, number=part.shard
    )
    cache.close()
    tally.counts["calls"] = cache.calls + remotes.calls
    tally.counts["calls_known"] = cache.hits + remotes.hits
    return tally
