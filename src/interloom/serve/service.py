"""One service: what all requests share, and the way of a request through it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool

from interloom.records import Trajectory
from interloom.serve import inputs
from interloom.serve.answers import Composer, ResponseBody
from interloom.serve.engine import Busy, Closed, Engine
from interloom.serve.errors import ApiError, overloaded
from interloom.serve.events import Ended, Event, Order
from interloom.serve.guard import Keys
from interloom.serve.host import Host
from interloom.serve.metrics import Metrics
from interloom.serve.results import Result, Results
from interloom.serve.schema import CreateResponse
from interloom.serve.system import System, Ticket
from interloom.serve.traces import Told, Traces
from interloom.serve.web import disconnected
from interloom.settings.operation import ServingSettings

log = logging.getLogger(__name__)
PING_SECONDS = 15.0
"""An idle stream says something this often, so that proxies keep it open."""


class Service:
    """What the routes need. ``host`` is there as soon as the model is loaded."""

    def __init__(
        self,
        serving: ServingSettings,
        metrics: Metrics,
        *,
        keys: Keys | None = None,
        traces: Traces | None = None,
        log_texts: bool = False,
    ) -> None:
        self.serving, self.metrics, self.keys, self.traces = serving, metrics, keys, traces
        self.log_texts = log_texts
        self.results = Results(serving.recent)
        self.host: Host | None = None
        self.draining = False

    def engine(self) -> Engine[Any]:
        """The engine that takes requests now. Raises ``ApiError`` 503 if there is none."""
        if self.host is None or self.draining:
            said = "shutting down" if self.draining else "still loading its model"
            raise ApiError(503, f"The server is {said}.", headers={"Retry-After": "5"})
        return self.host.engine

    def check_room(self) -> None:
        """Refuse before a body is read if the queue is full."""
        try:
            self.engine().check_room()
        except Busy as error:
            raise overloaded(error.retry_after) from None

    def system(self) -> System[Any]:
        """The system that answers now."""
        return self.engine().system

    def submit(
        self, make: Callable[[System[Any]], Order], tell: Callable[[Event], None]
    ) -> tuple[Ticket[Any], System[Any]]:
        """Give an order to the present engine.

        Raises:
            ApiError: 429 if the queue is full; what ``make`` raises.
        """
        while True:
            engine = self.engine()
            try:
                return engine.submit(make(engine.system), tell), engine.system
            except Busy as error:
                raise overloaded(error.retry_after) from None
            except Closed:
                continue  # a successor has just taken over, or the service ends: look again

    async def start(self, asked: CreateResponse, owner: str) -> Run:
        """Check a request and give it to the engine."""
        now = self.system()
        order = await run_in_threadpool(inputs.order_of, asked, now, self.serving)

        def make(system: System[Any]) -> Order:
            if system is now:
                return order
            return inputs.order_of(asked, system, self.serving)

        return Run(self, asked, owner, make)


class Run:
    """One request on its way, as the event loop sees it."""

    def __init__(
        self,
        service: Service,
        asked: CreateResponse,
        owner: str,
        make: Callable[[System[Any]], Order],
    ) -> None:
        self._service, self._owner = service, owner
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.ticket, system = service.submit(make, teller(self._events))
        self.composer = Composer(asked, self.ticket.order, system)
        self.end: Ended | None = None

    async def events(self) -> AsyncIterator[dict[str, Any] | None]:
        """The stream's events; ``None`` when nothing has happened for a while.

        Leaving this early calls the request off.
        """
        try:
            for event in self.composer.opening():
                yield event
            while self.end is None:
                try:
                    told = await asyncio.wait_for(self._events.get(), PING_SECONDS)
                except TimeoutError:
                    yield None
                    continue
                if isinstance(told, Ended):
                    self.end = told
                made = self.composer.add(told, self.ticket.usage())
                if self.end is not None:
                    self._keep(self.end)
                for event in made:
                    yield event
        finally:
            if self.end is None:
                self.ticket.cancel()
                self._trace(self.ticket.flight.trajectory(), "cancelled")

    async def stream(self) -> AsyncIterator[bytes]:
        """Server-sent events."""
        async for event in self.events():
            if event is None:
                yield b": still at work\n\n"
            else:
                data = json.dumps(event, ensure_ascii=False)
                yield f"event: {event['type']}\ndata: {data}\n\n".encode()

    async def finish(self, request: HttpRequest) -> ResponseBody | None:
        """The whole answer; ``None`` if the client went away meanwhile."""
        work = asyncio.create_task(self._all())
        return None if await disconnected(request, work) else work.result()

    async def _all(self) -> ResponseBody:
        async for _ in self.events():
            pass
        end = self.end
        assert end is not None
        if end.code in ("plan_too_long", "input_too_long"):
            raise ApiError(400, f"{end.message}.", code=end.code, param="input")
        if end.outcome == "cancelled":
            raise ApiError(503, f"{end.message}.", headers={"Retry-After": "5"})
        if end.outcome == "error":
            raise ApiError(500, f"{end.message}.", code=end.code)
        return self.composer.body

    def _keep(self, end: Ended) -> None:
        body = self.composer.body
        if body.store:
            self._service.results.put(Result(self._owner, body, end.trajectory))
        self._trace(end.trajectory, end.outcome)

    def _trace(self, trajectory: Trajectory, outcome: str) -> None:
        body, ticket, service = self.composer.body, self.ticket, self._service
        text = f" {trajectory.request.text!r}" if service.log_texts else ""
        seconds = (time.time_ns() - ticket.arrived) / 1e9
        log.info(
            "%s %s, %d images, %.1f s%s", body.id, outcome, ticket.flight.images, seconds, text
        )
        if service.traces is not None:
            calls = tuple(ticket.calls)
            told = Told(
                self._owner, body, trajectory, calls, ticket.arrived, time.time_ns(), outcome,
                self.composer.story,
            )  # fmt: skip
            service.traces.write(told)


def teller(events: asyncio.Queue[Event]) -> Callable[[Event], None]:
    """A function for the engine's thread that puts events into the event loop's queue."""
    loop = asyncio.get_running_loop()

    def tell(event: Event) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(events.put_nowait, event)

    return tell
