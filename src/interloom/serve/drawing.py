"""Batches for a generator alone: jobs that may share a call are drawn together."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

from interloom.errors import InterloomError
from interloom.records import Failure
from interloom.roles import GenerationJob, Generator
from interloom.serve.engine import Busy, Closed
from interloom.serve.metrics import Metrics

log = logging.getLogger(__name__)
Call = tuple[tuple[str, Any], ...]
"""Arguments of the pipeline's call that differ from the service's own; equal ones share a call."""


@dataclass(eq=False)
class Waiting:
    """A job and where its picture goes."""

    job: GenerationJob
    call: Call
    picture: Future[bytes | Failure] = field(default_factory=Future)


class Drawing:
    """One thread that draws what waits; the oldest job decides which call is made next.

    Args:
        made_by: the generator for a call's arguments.
        batch: most pictures per call.
        queue: jobs that may wait.
    """

    def __init__(
        self, made_by: Callable[[Call], Generator], metrics: Metrics, *, batch: int, queue: int
    ) -> None:
        self._made_by, self._metrics, self._batch, self._queue = made_by, metrics, batch, queue
        self._waiting: deque[Waiting] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._pace = 1.0  # seconds of a call, about
        self._thread = threading.Thread(target=self._work, name="drawing", daemon=True)
        self._thread.start()

    def submit(self, jobs: list[GenerationJob], call: Call) -> list[Future[bytes | Failure]]:
        """Take jobs in, all or none; cancelling a picture's future drops its job.

        Raises:
            Busy: too many wait already.
            Closed: after ``close``.
        """
        with self._change:
            if self._closing:
                raise Closed
            if len(self._waiting) + len(jobs) > self._queue:
                raise Busy(max(1.0, self._pace * len(self._waiting) / self._batch))
            new = [Waiting(job, call) for job in jobs]
            self._waiting += new
            self._metrics.waiting.set(len(self._waiting))
            self._change.notify()
        return [one.picture for one in new]

    def close(self, patience: float) -> bool:
        """Draw what waits and take no more; whether all was drawn in time."""
        with self._change:
            self._closing = True
            self._change.notify()
        self._thread.join(patience)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while group := self._take():
            began = time.monotonic()
            pictures = self._draw(group)
            self._pace = 0.9 * self._pace + 0.1 * (time.monotonic() - began)
            for one, picture in zip(group, pictures, strict=True):
                one.picture.set_result(picture)

    def _take(self) -> list[Waiting]:
        """The oldest job and those that may go with it; nothing when it is over."""
        with self._change:
            group: list[Waiting] = []
            while not group:
                while not self._waiting and not self._closing:
                    self._change.wait()
                if not self._waiting:
                    return []
                call = self._waiting[0].call
                chosen = [one for one in self._waiting if one.call == call][: self._batch]
                self._waiting = deque(one for one in self._waiting if one not in set(chosen))
                group = [one for one in chosen if _starts(one)]
            self._metrics.waiting.set(len(self._waiting))
            self._metrics.in_flight.set(len(group))
            return group

    def _draw(self, group: list[Waiting]) -> list[bytes | Failure]:
        """One call for all; if it raises, one for each, so that only the culprit fails."""
        began = time.monotonic()
        try:
            pictures = self._made_by(group[0].call).generate([one.job for one in group])
        except Exception as error:
            # Whatever a pipeline raises, the service goes on with the other jobs.
            if len(group) > 1:
                return [picture for one in group for picture in self._draw([one])]
            log.error("a call failed: %s", type(error).__name__)
            log.debug("the failed call", exc_info=error)
            self._metrics.failures.labels("generator").inc()
            known = isinstance(error, InterloomError)
            reason = str(error) if known else type(error).__name__
            return [Failure(role="generator", reason=reason)]
        self._metrics.batch.labels("generator").observe(len(group))
        self._metrics.call_seconds.labels("generator").observe(time.monotonic() - began)
        self._metrics.images.inc(sum(isinstance(picture, bytes) for picture in pictures))
        return pictures


def _starts(one: Waiting) -> bool:
    """Whether somebody still waits for it; from now on it cannot be cancelled."""
    try:
        return one.picture.set_running_or_notify_cancel()
    except CancelledError:
        return False
