"""What containers print, kept line by line with the time, and followed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime


class Log:
    """The output of one container."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lines: list[tuple[str, str]] = []
        self._ended = False

    def write(self, text: str) -> None:
        """One line."""
        stamp = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
        with self._changed:
            self._lines.append((stamp, text))
            self._changed.notify_all()

    def end(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def text(self) -> str:
        """All of it."""
        with self._changed:
            return "\n".join(line for _, line in self._lines)

    def lines(self, follow: bool, stop: threading.Event) -> Iterator[tuple[str, str]]:
        """Time and text of every line; with ``follow`` until the container has ended."""
        place = 0
        while not stop.is_set():
            with self._changed:
                fresh, ended = self._lines[place:], self._ended
                if not fresh and follow and not ended:
                    self._changed.wait(0.2)
            yield from fresh
            place += len(fresh)
            if not fresh and (ended or not follow):
                return
