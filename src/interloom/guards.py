"""What holds while a stage runs: one run at a time, signals that clean up, no life as an orphan."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interloom.errors import InterloomError
from interloom.tracking import enclosing_dvc, lifecycle_owner

LOCK_PATIENCE = 20.0
"""Seconds to wait for an earlier run of the same stage that is just dying."""


@contextmanager
def stage_lock(root: Path, name: str) -> Iterator[None]:
    """One run of a stage at a time. The lock goes with the process, however it dies."""
    path = root / ".interloom" / "work" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        end = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                # Not flock: that would live on in forked children of a killed stage.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > end:
                    file.seek(0)
                    holder = file.read().strip()
                    text = f"stage {name} already runs here (process {holder}): wait or end it"
                    raise InterloomError(text) from None
                time.sleep(0.2)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def signals_unwind() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C, so that cleaning up happens."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def watch_parents(on_loss: Callable[[], None]) -> None:
    """Call ``on_loss`` when the ``dvc`` or the flow that started this process is gone.

    Nobody would commit the outputs of an orphan, and it would keep the machine and the lock.
    """
    parents = [parent for parent in (enclosing_dvc(), lifecycle_owner()) if parent is not None]
    if not parents:
        return

    def watch() -> None:
        while all(parent.alive() for parent in parents):
            time.sleep(1)
        on_loss()

    threading.Thread(target=watch, name="watch-parents", daemon=True).start()
