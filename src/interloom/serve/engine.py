"""Dynamic batching: requests that come at any time share a system's calls.

Two threads go round and round. One begins all requests that came in meanwhile (of the agents, one
planner call). The other goes one round with every request that has begun, which gives each its next
picture. So nobody waits for a batch to fill, pictures do not wait for plans, which take longest,
and a request that is done makes room for the next one. What is done in a round is the system's
affair (:mod:`interloom.serve.system`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic

from interloom.backends.ledger import NOTHING, Usage
from interloom.errors import InterloomError
from interloom.records import Failure
from interloom.serve.events import Call, Ended, Event, Order, Role
from interloom.serve.metrics import Metrics
from interloom.serve.system import RECORDED, Ending, F, Result, System, Ticket

log = logging.getLogger(__name__)


class Busy(Exception):
    """The queue is full; ``retry_after`` seconds from now there may be room."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"overloaded; try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class Closed(Exception):
    """The engine takes no more requests."""


class Engine(Generic[F]):
    """Carries requests out, many at a time. ``close`` it when it is of no more use.

    Args:
        slots: requests in flight.
        queue: requests that may wait.
        gather: seconds that an idle engine waits for company.
    """

    def __init__(
        self,
        system: System[F],
        metrics: Metrics,
        *,
        slots: int,
        queue: int,
        gather: float = 0.0,
    ) -> None:
        self.system, self.metrics = system, metrics
        self.slots, self.queue, self.gather = slots, queue, gather
        self._waiting: deque[Ticket[F]] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._aboard: list[Ticket[F]] = []  # in flight: being begun, begun, in a round
        self._begun: list[Ticket[F]] = []  # for the next round
        self._all_begun = False  # closed, and nothing waits
        self._pace = 1.0  # seconds of a request, about
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("beginning", self._begin), ("rounds", self._go_round))
        ]
        for thread in self._threads:
            thread.start()

    # --- from outside ---------------------------------------------------------------------------

    def submit(self, order: Order, tell: Callable[[Event], None]) -> Ticket[F]:
        """Take a request in; ``tell`` gets every event, in the engine's threads.

        Raises:
            Busy: too many wait already.
            Closed: after ``close``.
        """
        with self._change:
            if self._closing:
                raise Closed
            if len(self._waiting) >= self.queue:
                raise self._busy()
            ticket = Ticket(order, self.system.flight(order), tell, self.cancel)
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

    def cancel(self, ticket: Ticket[F]) -> None:
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
            ticket.tell(_called_off(ticket))
        return False

    # --- the threads ----------------------------------------------------------------------------

    def _begin(self) -> None:
        while fresh := self._take():
            self.system.begin(fresh, self)
            begun = self._staying(fresh)
            with self._change:
                self._begun += begun
                self._change.notify_all()
        with self._change:
            self._all_begun = True
            self._change.notify_all()

    def _take(self) -> list[Ticket[F]]:
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

    def _go_round(self) -> None:
        flying: list[Ticket[F]] = []
        while True:
            with self._change:
                while not flying and not self._begun and not self._all_begun:
                    self._change.wait()
                flying += self._begun
                self._begun = []
            if not flying:
                return
            flying = self._staying(flying)
            self.system.round(flying, self)
            flying = self._staying(flying)

    def share(
        self,
        role: Role,
        tickets: list[Ticket[F]],
        work: Callable[[list[Ticket[F]]], list[Result]],
    ) -> list[tuple[Ticket[F], Result]]:
        """One call for all. If it raises, each is called alone, and only culprits end by it."""
        if not tickets:
            return []
        began, places = time.time_ns(), [ticket.flight.place() for ticket in tickets]
        try:
            results = work(tickets)
        except Exception as error:
            # Whatever a model's library raises, the service goes on with the other requests.
            if len(tickets) == 1:
                self._give_up(tickets[0], role, error)
                return []
            return [pair for ticket in tickets for pair in self.share(role, [ticket], work)]
        self._account(role, tickets, places, began)
        return list(zip(tickets, results, strict=True))

    def _account(
        self, role: Role, tickets: list[Ticket[F]], places: list[tuple[int, int]], began: int
    ) -> None:
        ended = time.time_ns()
        self.metrics.batch.labels(role).observe(len(tickets))
        self.metrics.call_seconds.labels(role).observe((ended - began) / 1e9)
        usages: Sequence[Usage] = self.system.usage(role) or [NOTHING] * len(tickets)
        for ticket, place, usage in zip(tickets, places, usages, strict=False):
            ticket.calls.append(Call(role, began, ended, len(tickets), *place, usage))
            self.metrics.tokens.labels(role, "input").inc(usage.input_tokens)
            self.metrics.tokens.labels(role, "output").inc(usage.output_tokens)

    def _give_up(self, ticket: Ticket[F], role: Role, error: Exception) -> None:
        # The message may quote the request, so it goes to the one who asked, and its kind to us.
        log.error("a %s call failed: %s", role, type(error).__name__)
        log.debug("the failed call", exc_info=error)
        self.metrics.failures.labels(role).inc()
        reason = str(error) if isinstance(error, InterloomError) else type(error).__name__
        ticket.flight.failure = Failure(role=RECORDED[role], reason=f"error: {reason}", final=True)
        self._end(ticket, Ending("error", "server_error", f"the {role} failed: {reason}"))
        ticket.cancelled = True

    def _staying(self, tickets: list[Ticket[F]]) -> list[Ticket[F]]:
        """Those that go on; the others are ended."""
        staying: list[Ticket[F]] = []
        for ticket in tickets:
            if ticket.cancelled:
                self.metrics.requests.labels("cancelled").inc(not ticket.ended)
            elif (ending := ticket.flight.ending()) is not None:
                self._end(ticket, ending)
            else:
                staying.append(ticket)
        with self._change:
            gone = set(tickets) - set(staying)
            self._aboard = [ticket for ticket in self._aboard if ticket not in gone]
            self.metrics.in_flight.dec(len(gone))
            self._change.notify_all()
        return staying

    def _end(self, ticket: Ticket[F], ending: Ending) -> None:
        seconds = (time.time_ns() - ticket.arrived) / 1e9
        with self._change:
            self._pace = 0.9 * self._pace + 0.1 * seconds
        ticket.ended = True
        self.metrics.requests.labels(ending.outcome).inc()
        self.metrics.seconds.observe(seconds)
        ticket.tell(_ended(ticket, ending))


def _ended(ticket: Ticket[F], ending: Ending) -> Ended:
    return Ended(ticket.flight.trajectory(), ending.outcome, ending.code, ending.message)


def _called_off(ticket: Ticket[F]) -> Ended:
    return _ended(ticket, Ending("cancelled", "server_error", "the server is shutting down"))
