"""Dynamic batching: requests that come at any time share planner, generator and critic calls.

Two threads go round and round. One plans for all requests that came in meanwhile (one planner
call). The other makes the next picture of every planned request (one generator call) and has them
all judged (one critic call). So nobody waits for a batch to fill, pictures do not wait for plans,
which take longest, and a request that is done makes room for the next one. Drawing and judging take
turns on purpose: two halves of the requests, one drawn while the other is judged, would need twice
as many calls, and a call's time hardly depends on its size. The rounds are those of
:mod:`interloom.loop`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from interloom import loop
from interloom.backends.ledger import NOTHING, Usage
from interloom.errors import InterloomError
from interloom.records import Attempt, Failure
from interloom.serve.events import (
    Began,
    Call,
    Drawn,
    Ended,
    Event,
    Judged,
    Order,
    Outcome,
    Planned,
    Role,
    StepDone,
)
from interloom.serve.metrics import Metrics
from interloom.serve.pipeline import Pipeline

log = logging.getLogger(__name__)
Result = TypeVar("Result")
GENERATOR_RETRIES = 1


class Busy(Exception):
    """The queue is full; ``retry_after`` seconds from now there may be room."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"overloaded; try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class Closed(Exception):
    """The engine takes no more requests."""


@dataclass(eq=False)
class Ticket:
    """A request in the engine: what is told of it, and how to call it off."""

    order: Order
    tell: Callable[[Event], None]
    engine: Engine
    flight: loop.Flight = field(init=False)
    arrived: int = field(default_factory=time.time_ns)
    calls: list[Call] = field(default_factory=list)
    cancelled: bool = False
    told: int = 0
    """Steps of which ``StepDone`` was told."""

    def __post_init__(self) -> None:
        order = self.order
        self.flight = loop.Flight(order.request, order.max_attempts, order.seed, order.image_budget)

    def cancel(self) -> None:
        """Nobody waits for this any more: no further call is made for it."""
        self.engine.cancel(self)

    def usage(self) -> Usage:
        """All tokens and pictures so far."""
        return Usage(
            sum(call.usage.input_tokens for call in self.calls),
            sum(call.usage.output_tokens for call in self.calls),
            self.flight.images,
        )


class Engine:
    """Carries requests out, many at a time. ``close`` it when it is of no more use.

    Args:
        slots: requests in flight.
        queue: requests that may wait.
        max_steps: a longer plan is refused.
        gather: seconds that an idle engine waits for company.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        metrics: Metrics,
        *,
        slots: int,
        queue: int,
        max_steps: int,
        gather: float = 0.0,
    ) -> None:
        self.pipeline, self.metrics = pipeline, metrics
        self.slots, self.queue, self.max_steps, self.gather = slots, queue, max_steps, gather
        self._waiting: deque[Ticket] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._aboard: list[Ticket] = []  # in flight: being planned, planned, being drawn
        self._planned: list[Ticket] = []  # for the next round
        self._all_planned = False  # closed, and nothing waits
        self._pace = 1.0  # seconds of a request, about
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("planning", self._plan), ("rounds", self._draw))
        ]
        for thread in self._threads:
            thread.start()

    # --- from outside ---------------------------------------------------------------------------

    def submit(self, order: Order, tell: Callable[[Event], None]) -> Ticket:
        """Take a request in; ``tell`` gets every event, in the engine's threads.

        Raises:
            Busy: too many wait already.
            Closed: after ``close``.
        """
        assert order.generator in self.pipeline.generators, order.generator
        with self._change:
            if self._closing:
                raise Closed
            if len(self._waiting) >= self.queue:
                raise self._busy()
            ticket = Ticket(order, tell, self)
            self._waiting.append(ticket)
            self.metrics.waiting.inc()
            self._change.notify_all()
        return ticket

    def check_room(self) -> None:
        """Refuse early, before a request's body is read.

        Raises:
            Busy: too many wait already.
        """
        if len(self._waiting) >= self.queue:
            raise self._busy()

    def _busy(self) -> Busy:
        return Busy(max(1.0, self._pace * len(self._waiting) / self.slots))

    def cancel(self, ticket: Ticket) -> None:
        """Drop a request: out of the queue at once, out of flight before its next call."""
        with self._change:
            ticket.cancelled = True
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                self.metrics.waiting.dec()
                self.metrics.requests.labels("cancelled").inc()

    def close(self, patience: float | None = None) -> bool:
        """Take no more requests, and wait for those that are in; whether all have ended.

        After ``patience`` seconds the rest is called off.
        """
        with self._change:
            self._closing = True
            self._change.notify_all()
        end = None if patience is None else time.monotonic() + patience
        for thread in self._threads:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            return True
        with self._change:
            left = [*self._waiting, *self._aboard]
        for ticket in left:
            ticket.cancel()
            ticket.tell(_cancelled(ticket))
        return False

    # --- the threads ----------------------------------------------------------------------------

    def _plan(self) -> None:
        while fresh := self._take():
            self._begin(fresh)
            planned = self._staying(fresh)
            with self._change:
                self._planned += planned
                self._change.notify_all()
        with self._change:
            self._all_planned = True
            self._change.notify_all()

    def _take(self) -> list[Ticket]:
        """Who may come aboard; waits for someone. Nothing: closed, and nobody waits."""
        with self._change:
            if not self._aboard:
                while not self._waiting and not self._closing:
                    self._change.wait()
                end = time.monotonic() + self.gather
                while len(self._waiting) < self.slots and (left := end - time.monotonic()) > 0:
                    self._change.wait(left)
            while not (self._waiting and len(self._aboard) < self.slots):
                if self._closing and not self._waiting:
                    return []
                self._change.wait()
            free = self.slots - len(self._aboard)
            taken = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
            self._aboard += taken
            self.metrics.waiting.dec(len(taken))
            self.metrics.in_flight.inc(len(taken))
            return taken

    def _draw(self) -> None:
        flying: list[Ticket] = []
        while True:
            with self._change:
                while not flying and not self._planned and not self._all_planned:
                    self._change.wait()
                flying += self._planned
                self._planned = []
            if not flying:
                return
            flying = self._staying(flying)
            self._round(flying)
            flying = self._staying(flying)

    def _begin(self, fresh: list[Ticket]) -> None:
        planner = self.pipeline.planner

        def plan(group: list[Ticket]) -> list[None]:
            loop.begin([ticket.flight for ticket in group], planner, 0)
            return [None] * len(group)

        for ticket, _ in self._share("planner", fresh, plan):
            flight = ticket.flight
            if flight.plan is None:
                self.metrics.failures.labels("planner").inc()
                continue
            if len(flight.plan.steps) <= self.max_steps:
                ticket.tell(Planned(flight.plan))
                self._tell_steps(ticket)

    def _round(self, tickets: list[Ticket]) -> None:
        drawn: dict[Ticket, Attempt] = {}
        for name, generator in self.pipeline.generators.items():
            group = [ticket for ticket in tickets if ticket.order.generator == name]
            drawn |= self._share(
                "generator",
                group,
                lambda some, made_by=generator: loop.draw(
                    [ticket.flight for ticket in some], made_by, GENERATOR_RETRIES
                ),
            )
        places = {ticket: _place(ticket) for ticket in drawn}
        for ticket, attempt in drawn.items():
            self.metrics.images.inc(attempt.image is not None)
            ticket.tell(Drawn(*places[ticket], attempt))
        judged = self._share(
            "critic",
            [ticket for ticket in drawn if not ticket.cancelled],
            lambda some: loop.judge(
                [ticket.flight for ticket in some],
                [drawn[ticket] for ticket in some],
                self.pipeline.critic,
                0,
            ),
        )
        for ticket, attempt in judged:
            if attempt.failure is not None:
                self.metrics.failures.labels(attempt.failure.role).inc()
            ticket.tell(Judged(*places[ticket], attempt))
            self._tell_steps(ticket)

    def _tell_steps(self, ticket: Ticket) -> None:
        """Tell of steps that are done now, and of the one that begins."""
        flight = ticket.flight
        before = ticket.told
        for place in range(before, len(flight.done)):
            ticket.tell(StepDone(place, flight.done[place]))
        ticket.told = len(flight.done)
        if flight.step is not None and not flight.attempts:
            ticket.tell(Began(ticket.told))

    def _share(
        self, role: Role, tickets: list[Ticket], work: Callable[[list[Ticket]], list[Result]]
    ) -> list[tuple[Ticket, Result]]:
        """One call for all. If it raises, each is called alone, and only culprits end by it."""
        if not tickets:
            return []
        began, places = time.time_ns(), [_place(ticket) for ticket in tickets]
        try:
            results = work(tickets)
        except Exception as error:
            # Whatever a model's library raises, the service goes on with the other requests.
            if len(tickets) == 1:
                self._give_up(tickets[0], role, error)
                return []
            return [pair for ticket in tickets for pair in self._share(role, [ticket], work)]
        if role != "critic" or self.pipeline.critic is not None:
            self._account(role, tickets, places, began)
        return list(zip(tickets, results, strict=True))

    def _account(
        self, role: Role, tickets: list[Ticket], places: list[tuple[int, int]], began: int
    ) -> None:
        ended = time.time_ns()
        self.metrics.batch.labels(role).observe(len(tickets))
        self.metrics.call_seconds.labels(role).observe((ended - began) / 1e9)
        usages: Sequence[Usage] = self.pipeline.usage(role) or [NOTHING] * len(tickets)
        for ticket, place, usage in zip(tickets, places, usages, strict=False):
            ticket.calls.append(Call(role, began, ended, len(tickets), *place, usage))
            self.metrics.tokens.labels(role, "input").inc(usage.input_tokens)
            self.metrics.tokens.labels(role, "output").inc(usage.output_tokens)

    def _give_up(self, ticket: Ticket, role: Role, error: Exception) -> None:
        # The message may quote the request, so it goes to the one who asked, and its kind to us.
        log.error("a %s call failed: %s", role, type(error).__name__)
        log.debug("the failed call", exc_info=error)
        self.metrics.failures.labels(role).inc()
        reason = str(error) if isinstance(error, InterloomError) else type(error).__name__
        ticket.flight.failure = Failure(role=role, reason=f"error: {reason}", final=True)
        self._end(ticket, "error", "server_error", f"the {role} failed: {reason}")
        ticket.cancelled = True

    def _staying(self, tickets: list[Ticket]) -> list[Ticket]:
        """Those that go on; the others are ended."""
        staying: list[Ticket] = []
        for ticket in tickets:
            flight = ticket.flight
            if ticket.cancelled:
                self.metrics.requests.labels("cancelled").inc(flight.failure is None)
            elif flight.failure is not None:
                role = flight.failure.role
                self._end(ticket, "failed", f"{role}_failed", f"{role}: {flight.failure.reason}")
            elif flight.plan is not None and len(flight.plan.steps) > self.max_steps:
                said = f"the plan has {len(flight.plan.steps)} steps, at most {self.max_steps}"
                self._end(ticket, "failed", "plan_too_long", f"{said} are carried out")
            elif flight.step is not None:
                staying.append(ticket)
            elif flight.unfinished:
                self._end(ticket, "incomplete", "image_budget", "the image budget is used up")
            else:
                self._end(ticket, "completed")
        with self._change:
            gone = set(tickets) - set(staying)
            self._aboard = [ticket for ticket in self._aboard if ticket not in gone]
            self.metrics.in_flight.dec(len(gone))
            self._change.notify_all()
        return staying

    def _end(self, ticket: Ticket, outcome: Outcome, code: str = "", message: str = "") -> None:
        seconds = (time.time_ns() - ticket.arrived) / 1e9
        with self._change:
            self._pace = 0.9 * self._pace + 0.1 * seconds
        self.metrics.requests.labels(outcome).inc()
        self.metrics.seconds.observe(seconds)
        ticket.tell(Ended(ticket.flight.trajectory(), outcome, code, message))


def _place(ticket: Ticket) -> tuple[int, int]:
    return len(ticket.flight.done), len(ticket.flight.attempts)


def _cancelled(ticket: Ticket) -> Ended:
    said = "the server is shutting down"
    return Ended(ticket.flight.trajectory(), "cancelled", "server_error", said)
