"""Child processes that never outlive their flow: killed as a group on timeout and cancel."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

GRACE_SECONDS = 3.0
"""Between the polite signal and the kill: a stage removes its half-written outputs meanwhile."""

stopping = threading.Event()
"""Set once the flow is being cancelled: nothing new may start."""
_running: dict[subprocess.Popen[str], float] = {}
"""With the seconds that each is given to end by itself."""
_lock = threading.Lock()


def run_child(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float,
    on_line: Callable[[str], None],
    grace: float = GRACE_SECONDS,
) -> int:
    """Run ``command``, hand every line of its output to ``on_line``; its exit status.

    When it has to end, it has ``grace`` seconds for that. Raises ``TimeoutError`` after ``timeout``
    seconds, when its whole process group is dead, and ``InterruptedError`` if the flow is being
    cancelled.
    """
    with _lock:
        if stopping.is_set():
            raise InterruptedError("the flow is being cancelled")
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        _running[process] = grace
    late = threading.Event()

    def expire() -> None:
        late.set()
        end_group(process, grace)

    timer = threading.Timer(timeout, expire)
    timer.daemon = True
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            on_line(line.rstrip("\n"))
        status = process.wait()
    finally:
        timer.cancel()
        end_group(process, grace)
        with _lock:
            _running.pop(process, None)
    if late.is_set():
        raise TimeoutError(f"{' '.join(command)} took longer than {timeout:g} s; killed")
    if stopping.is_set():
        raise InterruptedError("the flow is being cancelled")
    return status


def end_group(process: subprocess.Popen[str], grace: float = GRACE_SECONDS) -> None:
    """End every process of the child's group: SIGTERM, then SIGKILL to what is left."""
    if not _signal(process.pid, signal.SIGTERM):
        return
    end = threading.Event()
    waited = 0.0
    while waited < grace:
        if process.poll() is not None and not _signal(process.pid, 0):
            return
        end.wait(0.05)
        waited += 0.05
    _signal(process.pid, signal.SIGKILL)


def end_all() -> None:
    """End all children, and let none start any more."""
    with _lock:
        stopping.set()
        present = list(_running.items())
    enders = [threading.Thread(target=end_group, args=pair) for pair in present]
    for ender in enders:
        ender.start()
    for ender in enders:
        ender.join()


def _signal(group: int, number: int) -> bool:
    """Signal a process group; false if it has no process any more."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def children_end_with_us() -> Iterator[None]:
    """While this holds, SIGTERM and SIGINT end the children first and then act as before.

    Outside the main thread (a sub-flow in a thread) signals cannot be set, and need not.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, frame: FrameType | None) -> None:
        end_all()
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        else:
            raise KeyboardInterrupt

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
