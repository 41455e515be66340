"""What all remote backends share: limits, patience, budget, ledger, and answers that are kept.

A call takes a *lane* (an API key at a server) when its token bucket has one for it, is sent, and is
sent again as long as that may help. Its answer is stored before anything else happens with it, so
that a killed run loses only the calls in flight and a rerun costs nothing.

All calls of a process run in one event loop in the background: the roles' methods block, and may
be called from any thread.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import httpx
from pydantic import ValidationError
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from interloom.backends.calls import Answer, Call, Refused, Reply, Unanswered, Unusable
from interloom.backends.lanes import Lane, lanes_of, retry_after
from interloom.backends.ledger import NOTHING, Ledger, Usage
from interloom.cache import CallCache
from interloom.errors import InterloomError
from interloom.records import Failure

if TYPE_CHECKING:
    from interloom.settings.models import RemoteSettings, RemotesSettings

Result = TypeVar("Result")
RemoteName = Literal["gemini", "openai", "http"]

HEALTH: Mapping[str, str] = {"http": "/health"}
"""Where a server says that it is well; it gets no call before it did."""
COOL_DOWN = 1.0
"""Seconds at most that a server is left alone after a call could not reach it."""
POLL = 0.05
"""Seconds between two looks at the budget while calls in flight use up what is left of it."""
OUTAGE = 8
"""After so many calls in a row that failed for good, the fault is not with the questions."""


class Remote:
    """One remote backend as this run may use it; ``Remotes`` makes it.

    Raises:
        InterloomError: API keys are asked for and none is set.
    """

    def __init__(
        self,
        name: RemoteName,
        settings: RemoteSettings,
        ledger: Ledger,
        answers: CallCache | None,
        purpose: str,
    ) -> None:
        self.name = name
        self.settings = settings
        self.http = httpx.AsyncClient(
            timeout=None,  # `timeout_seconds` bounds the whole call
            limits=httpx.Limits(max_connections=settings.concurrency),
        )
        self._ledger, self._answers, self._purpose = ledger, answers, purpose
        self._cool_down = min(COOL_DOWN, settings.max_wait_seconds)
        self.lanes = lanes_of(name, settings, doubtful=name in HEALTH)
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._sending = 0
        self._reserved = 0.0  # US dollars that the calls in flight may cost
        self._failed_in_a_row = 0
        self._stopped: InterloomError | None = None
        self._end = asyncio.Event()

    def setting(self, name: str) -> str:
        """The name of one of this backend's settings, for errors."""
        return f"remote.{self.name}.{name}"

    def ask(self, calls: Sequence[Call[Answer]]) -> list[Answer | Failure]:
        """One answer or ``Failure`` per call, in order; equal calls are made once.

        Raises:
            InterloomError: nothing can be answered any more (wrong key, budget used up, server
                down). Calls in flight are waited for, and what was answered is kept.
        """
        different = {call.key: call for call in calls}
        answers = dict(zip(different, _wait_for(self._together(different.values())), strict=True))
        for answer in answers.values():
            if isinstance(answer, BaseException):
                raise answer
        return [answers[call.key] for call in calls]

    async def _together(self, calls: Any) -> list[Any]:
        return await asyncio.gather(*(self._answer(c) for c in calls), return_exceptions=True)

    async def _answer(self, call: Call[Answer]) -> Answer | Failure:
        known = self._answers.get(call.key) if self._answers is not None else None
        if known is not None:
            try:
                return call.read(known)
            except ValueError:
                pass  # read more strictly than when it was kept: ask again
        unusable = 0

        async def attempt() -> Answer:
            nonlocal unusable
            try:
                async with self._slots:
                    reply = await self._send(call, unusable)
                answer = self._read(call, reply)
            except Unusable:
                unusable += 1
                raise
            if self._answers is not None:
                self._answers.put(call.key, reply.content)
            return answer

        patiently = AsyncRetrying(
            retry=retry_if_exception(lambda e: isinstance(e, Unanswered) and e.again),
            stop=stop_after_attempt(self.settings.tries),
            wait=wait_random_exponential(max=self.settings.max_wait_seconds),
            sleep=self._rest,
            reraise=True,
        )
        try:
            answer = await patiently(attempt)
        except Refused as error:
            self._failed_in_a_row = 0
            return Failure(role=call.role, reason=str(error), final=True)
        except Unanswered as error:
            self._failed_in_a_row += 1
            if self._failed_in_a_row < OUTAGE:
                return Failure(role=call.role, reason=str(error), final=True)
            self._stop(
                InterloomError(
                    f"{self.name}: {OUTAGE} calls in a row failed, the last one with: {error}; "
                    f"check {self.setting('base_urls')} and the model {call.model}"
                )
            )
        self._failed_in_a_row = 0
        return answer

    def _read(self, call: Call[Answer], reply: Reply) -> Answer:
        try:
            return call.read(reply.content)
        except ValueError as error:
            self._ledger.add(self.name, call.model, self._purpose, failures=1)
            raise Unusable(f"unreadable answer: {' '.join(str(error).split())}") from error

    async def _send(self, call: Call[Any], unusable: int) -> Reply:
        """Send once, and write down what it cost."""
        lane = await self._lane()
        reserved = await self._afford(call.model)
        began = time.monotonic()
        reply, usage = None, NOTHING
        self._sending += 1
        self._reserved += reserved
        try:
            with self._explained():
                async with asyncio.timeout(self.settings.timeout_seconds):
                    await self._check_health(lane)
                    reply = await call.send(lane, unusable)
            usage = reply.usage
            return reply
        except InterloomError as error:
            self._stop(error)
        except Unanswered as error:
            usage = error.usage
            if error.pause:
                lane.pause(error.pause)
                lane.doubtful = self.name in HEALTH
            raise
        finally:
            self._sending -= 1
            self._reserved -= reserved
            self._ledger.add(
                self.name,
                call.model,
                self._purpose,
                calls=1,
                failures=reply is None,
                usage=usage,
                seconds=time.monotonic() - began,
                usd=self._usd(call.model, usage),
            )

    async def _lane(self) -> Lane:
        """The lane that is free first, when its turn has come."""
        while True:
            if self._stopped is not None:
                raise self._stopped
            lane = min(self.lanes, key=Lane.ready_at)
            pause = lane.paused_until - time.monotonic()
            if pause > self.settings.max_wait_seconds:
                limit = f"{self.setting('max_wait_seconds')} = {self.settings.max_wait_seconds:g}"
                self._stop(
                    InterloomError(
                        f"{limit}: the server asks to wait {pause:.0f} s, so a quota is used up; "
                        "run again later"
                    )
                )
            await self._rest(lane.reserve())
            if self._stopped is None and lane.paused_until <= time.monotonic():
                return lane  # else told to wait meanwhile: choose anew

    async def _rest(self, seconds: float) -> None:
        """Sleep, but not longer than the run goes on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._end.wait()

    async def _check_health(self, lane: Lane) -> None:
        if not lane.doubtful:
            return
        answer = await self.http.get(lane.url + HEALTH[self.name])
        if answer.status_code != 200:
            raise Unanswered(
                f"{lane.url}: not well (status {answer.status_code})",
                again=True,
                pause=self._cool_down,
            )
        lane.doubtful = False

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What can go wrong on the way, as ``Unanswered``."""
        try:
            yield
        except TimeoutError:
            limit = f"{self.setting('timeout_seconds')} = {self.settings.timeout_seconds:g}"
            raise Unanswered(f"no answer in time ({limit})", again=True) from None
        except httpx.TransportError as error:
            reason = f"{type(error).__name__} {error}".strip()
            raise Unanswered(reason, again=True, pause=self._cool_down) from error
        except (json.JSONDecodeError, ValidationError) as error:
            said = " ".join(str(error).split())[:200]
            raise Unanswered(f"truncated or malformed JSON ({said})", again=True) from error

    def problem(
        self, lane: Lane, status: int, said: str, headers: Mapping[str, str], pause: float = 0.0
    ) -> Exception:
        """What an HTTP status other than 200 means; ``pause`` is what the body says of waiting."""
        said = f"{status} {' '.join(said.split())[:300]}"
        where = lane.url or self.name
        if status in (401, 403):
            key = f"the key in {lane.key_name}" if lane.key_name else "calls without a key"
            return InterloomError(f"{self.setting('api_key_env')}: {where} refuses {key} ({said})")
        if status == 402:
            return InterloomError(f"{where}: the account is out of credit ({said})")
        if status == 404:
            return InterloomError(
                f"{self.setting('base_urls')}: {where} has no such model or address ({said})"
            )
        again = status in (408, 409, 425, 429) or status >= 500
        return Unanswered(
            f"{where}: {said}", again=again, pause=max(pause, retry_after(headers)) if again else 0
        )

    async def _afford(self, model: str) -> float:
        """Wait until the budget allows another call that costs what the model's dearest one did.

        Gives that cost. While none is known, calls go one by one.
        """
        price, budget = self.settings.prices[model], self.settings.budget_usd
        if not (price.input or price.output or price.image):
            return 0.0
        while True:
            spent, dearest, answered = self._ledger.spent(self.name, model)
            if spent + dearest > budget or spent == budget:
                self._stop(
                    InterloomError(
                        f"{self.setting('budget_usd')} = {budget:g}: {spent:.4g} US$ are spent "
                        "(`interloom cost`), and the next call could be too much; all answers so "
                        "far are kept: raise it and run again"
                    )
                )
            enough = spent + self._reserved + dearest <= budget
            if not self._sending or (answered and enough):
                return dearest
            await self._rest(POLL)
            if self._stopped is not None:
                raise self._stopped

    def _usd(self, model: str, usage: Usage) -> float:
        price = self.settings.prices[model]
        tokens = usage.input_tokens * price.input + usage.output_tokens * price.output
        return tokens / 1e6 + usage.images * price.image

    def _stop(self, error: InterloomError) -> NoReturn:
        """End this call and all that wait for their turn."""
        self._stopped = self._stopped or error
        self._end.set()
        raise self._stopped

    def check_model(self, model: str) -> None:
        """Refuse a model without a price: its budget could not be kept.

        Raises:
            InterloomError: naming the setting.
        """
        if model not in self.settings.prices:
            raise InterloomError(
                f"{self.setting('prices')}: no price for {model}, so that the budget could not be "
                "kept; add one (zeros for a server of your own)"
            )


class Remotes:
    """The remote backends of a run. Each is made once, so that all its roles share its limits.

    Args:
        ledger: the file of the ledger.
        answers: the file in which answers are kept; none keeps nothing.
        purpose: what the ledger says the calls were for.
    """

    def __init__(
        self,
        settings: RemotesSettings,
        ledger: Path,
        answers: Path | None = None,
        purpose: str = "",
    ) -> None:
        self._settings = settings
        self._ledger_path, self._answers_path, self._purpose = ledger, answers, purpose
        self._opened: dict[RemoteName, Remote] = {}
        self._ledger: Ledger | None = None
        self._answers: CallCache | None = None

    def open(self, name: RemoteName) -> Remote:
        """The backend called ``name``."""
        if self._ledger is None:
            self._ledger = Ledger(self._ledger_path)
            if self._answers_path is not None:
                self._answers = CallCache(self._answers_path, shared=True)
        if name not in self._opened:
            settings = self._settings.named(name)
            self._opened[name] = Remote(name, settings, self._ledger, self._answers, self._purpose)
        return self._opened[name]

    @property
    def calls(self) -> int:
        """Questions asked, the known ones included."""
        return self._answers.calls if self._answers is not None else 0

    @property
    def hits(self) -> int:
        """Questions whose answers were known."""
        return self._answers.hits if self._answers is not None else 0


_starting = threading.Lock()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="remote-calls", daemon=True).start()
    return loop


def _wait_for(work: Coroutine[Any, Any, Result]) -> Result:
    """Run in the background loop; an interrupt here cancels what is in flight."""
    with _starting:  # the first callers may be many threads
        loop = _loop()
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
