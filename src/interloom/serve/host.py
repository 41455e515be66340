"""The engine that answers now, and its successors: an alias that moves is followed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from interloom.errors import InterloomError
from interloom.serve.engine import Engine
from interloom.serve.metrics import Metrics
from interloom.serve.system import System
from interloom.settings.operation import ServingSettings

log = logging.getLogger(__name__)
LONGEST_PAUSE = 600.0


class Host:
    """Holds the present engine.

    Args:
        resolve: the version that the served alias stands for now; none follows nothing.
        load: loads it.
    """

    def __init__(
        self,
        system: System[Any],
        serving: ServingSettings,
        metrics: Metrics,
        *,
        resolve: Callable[[], str] | None = None,
        load: Callable[[], System[Any]] | None = None,
    ) -> None:
        self._serving, self._metrics = serving, metrics
        self._resolve, self._load = resolve, load
        self._closing: list[threading.Thread] = []
        self._stop = threading.Event()
        self.engine = self._engine(system)
        self._follower: threading.Thread | None = None
        if resolve is not None and load is not None:
            self._follower = threading.Thread(target=self._follow, name="follower", daemon=True)
            self._follower.start()

    def _engine(self, system: System[Any]) -> Engine[Any]:
        self._metrics.serves(system.name, system.version)
        return Engine(
            system,
            self._metrics,
            slots=self._serving.slots,
            queue=self._serving.queue,
            gather=self._serving.gather_milliseconds / 1000,
        )

    def swap(self, system: System[Any]) -> None:
        """New requests go to ``system``; the old one ends what it has, and is let go."""
        old = self.engine
        self.engine = self._engine(system)
        self._metrics.swaps.inc()
        log.info("now serving %s version %s", system.name, system.version)
        closing = threading.Thread(target=old.close, name="closing", daemon=True)
        closing.start()
        self._closing = [thread for thread in self._closing if thread.is_alive()] + [closing]

    def _follow(self) -> None:
        """Look at the alias now and then; a version that does not load is tried again later."""
        assert self._resolve is not None and self._load is not None
        pause, again_at = self._serving.follow_seconds, 0.0
        while not self._stop.wait(self._serving.follow_seconds):
            try:
                if self._resolve() == self.engine.system.version:
                    pause = self._serving.follow_seconds
                    continue
                if time.monotonic() < again_at:
                    continue
                system = self._load()
                system.warm_up()
            except Exception as error:
                # The old model goes on, whatever is wrong with the registry or the new one.
                said = str(error) if isinstance(error, InterloomError) else type(error).__name__
                log.error("the new model is not served: %s", said)
                log.debug("the failed change", exc_info=error)
                self._metrics.swap_failures.inc()
                pause = min(2 * pause, LONGEST_PAUSE)
                again_at = time.monotonic() + pause
                continue
            if self._stop.is_set():
                return
            self.swap(system)

    def close(self, patience: float | None = None) -> bool:
        """End what is in flight, old engines' requests too; whether all of it ended in time."""
        self._stop.set()
        end = None if patience is None else time.monotonic() + patience

        def left() -> float | None:
            return None if end is None else max(0.0, end - time.monotonic())

        whole = self.engine.close(left())
        for thread in self._closing:
            thread.join(left())
            whole = whole and not thread.is_alive()
        return whole
