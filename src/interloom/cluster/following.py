"""What happens on the cluster, as it happens: objects kept up to date, log lines of all pods.

Each follower is a thread that resumes after whatever cuts it off: a closed or silent connection, an
API server that is away, a version that is forgotten (410).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from interloom.cluster.api import Api, AwayError, GoneError, Refusal, Resource
from interloom.errors import InterloomError

Object = dict[str, Any]
News = queue.Queue["InterloomError | None"]
"""An entry for every change; an error is for the one who reads."""
PAUSE_SECONDS = 1.0
LONGEST_PAUSE = 15.0


class Mirror:
    """The objects of a kind that selectors choose, as the API server has them."""

    def __init__(self, api: Api, resource: Resource, news: News, *, labels: str = "",
                 fields: str = "") -> None:  # fmt: skip
        self._api, self._resource, self._news = api, resource, news
        self._labels, self._fields = labels, fields
        self._lock = threading.Lock()
        self._items: dict[str, Object] = {}
        self._stop = threading.Event()
        self.listed = threading.Event()
        """Set once ``items`` tells what there is."""
        threading.Thread(target=self._run, name=f"watch {resource.plural}", daemon=True).start()

    def items(self) -> list[Object]:
        """Present objects, the one that changed last at the end."""
        with self._lock:
            return list(self._items.values())

    def stop(self) -> None:
        """Follow no longer."""
        self._stop.set()

    def _run(self) -> None:
        version, pause = "", PAUSE_SECONDS
        while not self._stop.is_set():
            try:
                if not version:
                    version = self._list()
                for word, item in self._api.watch(
                    self._resource, version, self._labels, self._fields
                ):
                    version, pause = item["metadata"]["resourceVersion"], PAUSE_SECONDS
                    if self._stop.is_set():
                        return
                    self._note(word, item)
            except GoneError:
                version = ""
            except AwayError as error:
                try:
                    self._api.away(error)
                except InterloomError as final:
                    self._news.put(final)
                    return
                self._stop.wait(max(pause, error.retry_after))
                pause = min(2 * pause, LONGEST_PAUSE)
            except (Refusal, InterloomError) as error:
                self._news.put(InterloomError(str(error)))
                return

    def _list(self) -> str:
        items, version = self._api.list(self._resource, self._labels, self._fields)
        items.sort(key=lambda item: item["metadata"]["creationTimestamp"])
        with self._lock:
            self._items = {item["metadata"]["uid"]: item for item in items}
        self.listed.set()
        self._news.put(None)
        return version

    def _note(self, word: str, item: Object) -> None:
        if word == "BOOKMARK":
            return
        with self._lock:
            self._items.pop(item["metadata"]["uid"], None)
            if word != "DELETED":
                self._items[item["metadata"]["uid"]] = item
        self._news.put(None)


class LogFollower:
    """Every line of one container once, from its start to its end."""

    def __init__(self, api: Api, pod: Object, container: str, hear: Callable[[str], None]) -> None:
        self._api, self._container, self._hear = api, container, hear
        self._pod = pod["metadata"]["name"]
        self._last, self._same = "", 0
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"log {self._pod}/{container}", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """The container has ended: what is there is read, and nothing waited for."""
        self._ended.set()

    def join(self, seconds: float) -> None:
        """Wait until all is read."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while True:
            over = self._ended.is_set()
            try:
                self._read()
                if over:
                    return
            except Refusal as refusal:
                if refusal.code == 404 or over:
                    return
            except (AwayError, GoneError):
                pass  # the mirrors say so, and how long it lasts
            except InterloomError as error:
                self._hear(f"its log cannot be read: {error}")
                return
            self._ended.wait(PAUSE_SECONDS)

    def _read(self) -> None:
        """Read on from the last line that was heard.

        ``sinceTime`` is cut to seconds by the kubelet, so that lines come again; times are in
        nanoseconds, and of one time the lines that were heard are counted.
        """
        skip = self._same
        for line in self._api.log(self._pod, self._container, self._last):
            stamp, _, text = line.partition(" ")
            if stamp < self._last:
                continue
            if stamp == self._last:
                if skip:
                    skip -= 1
                    continue
                self._same += 1
            else:
                self._last, self._same = stamp, 1
            self._hear(text)
