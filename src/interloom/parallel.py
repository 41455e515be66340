"""Several streams at once, each followed by a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")


class Window:
    """Lets pieces of work begin in order, at most ``ahead`` places before the first unfinished one.

    So what is finished early, and has to wait for what comes before it, is never much.
    """

    def __init__(self, ahead: int) -> None:
        self._ahead, self._first, self._closed = ahead, 0, False
        self._changed = threading.Condition()

    def numbered(self, items: Iterable[Item]) -> Iterator[tuple[int, Item]]:
        """Items with their places, each when its time has come; none after ``close``."""
        for place, item in enumerate(items):
            with self._changed:
                self._changed.wait_for(
                    lambda p=place: self._closed or p < self._first + self._ahead
                )
                if self._closed:
                    return
            yield place, item

    def advance(self) -> None:
        """The first unfinished piece is finished."""
        with self._changed:
            self._first += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let nothing begin any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def merged(streams: Iterable[Iterator[Item]], threads: int) -> Iterator[Item]:
    """Items of all streams as they come; so many streams are followed at a time.

    The first error in a stream ends this one; threads stop at their next item. They are daemons: a
    process that is told to end does not wait for them.
    """
    waiting, taking, stop = iter(streams), threading.Lock(), threading.Event()
    found: SimpleQueue[Future[Item] | None] = SimpleQueue()

    def follow() -> None:
        try:
            while not stop.is_set():
                with taking:
                    stream = next(waiting, None)
                if stream is None:
                    break
                for item in stream:
                    answer: Future[Item] = Future()
                    answer.set_result(item)
                    found.put(answer)
                    if stop.is_set():
                        break
        except BaseException as error:  # it is raised where the items are wanted
            answer = Future()
            answer.set_exception(error)
            found.put(answer)
        found.put(None)

    for _ in range(threads):
        threading.Thread(target=follow, daemon=True).start()
    try:
        going = threads
        while going:
            answer = found.get()
            if answer is None:
                going -= 1
            else:
                yield answer.result()
    finally:
        stop.set()
