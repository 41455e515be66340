"""What can go wrong between a client and the API server, on demand."""

from __future__ import annotations

import re
import socket
import threading
from dataclasses import dataclass, field

from kube_server.kinds import ApiError


@dataclass
class Failure:
    """Answers to the next ``times`` requests that match ``METHOD path?query``."""

    match: re.Pattern[str]
    code: int
    reason: str
    message: str
    times: int
    headers: dict[str, str] = field(default_factory=dict)
    slow: float = 0.0
    """Seconds before the answer; with ``code`` 0 the request is then answered as usual."""


class Faults:
    """The faults that are set, and the connections that are open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: list[Failure] = []
        self._open: set[socket.socket] = set()
        self.silent = threading.Event()
        """While set, streams stay open and say nothing: half-open connections."""

    def answer(
        self,
        match: str,
        code: int = 0,
        *,
        reason: str = "InternalError",
        message: str = "told to fail",
        times: int = 1,
        headers: dict[str, str] | None = None,
        slow: float = 0.0,
    ) -> None:
        """Fail, or slow down, the next ``times`` requests whose ``METHOD path?query`` matches."""
        with self._lock:
            self._failures.append(
                Failure(re.compile(match), code, reason, message, times, headers or {}, slow)
            )

    def meet(self, request: str, wait: threading.Event) -> None:
        """Suffer what is set for a request: be slow, then raise."""
        with self._lock:
            for failure in self._failures:
                if failure.times > 0 and failure.match.search(request):
                    failure.times -= 1
                    break
            else:
                return
        wait.wait(failure.slow)
        if failure.code:
            raise ApiError(failure.code, failure.reason, failure.message, failure.headers)

    def opened(self, connection: socket.socket) -> None:
        """A connection has begun."""
        with self._lock:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """A connection has ended."""
        with self._lock:
            self._open.discard(connection)

    def drop(self) -> None:
        """Cut every open connection off."""
        with self._lock:
            present = list(self._open)
        for connection in present:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it has ended meanwhile
