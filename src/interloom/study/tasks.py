"""Tasks of a study: each makes one folder once, in a few worker processes that live on.

A training stage starts in ten seconds and works for a minute or two, so a process for each would
spend much of a study on imports. A folder's ``done.json`` says that its task has ended; a study
that was killed is started again and goes on with what is not done.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from interloom.errors import InterloomError
from interloom.progress import clock

DONE = "done.json"
LOG = "log.txt"


@dataclass(frozen=True)
class Task:
    """``work`` fills ``folder`` when all folders in ``needs`` are done.

    It is called in a process of its own with ``folder`` as working directory: a function of a
    module, or a ``functools.partial`` of one.
    """

    name: str
    folder: Path
    work: Callable[[Path], None]
    needs: tuple[Path, ...] = ()


def is_done(folder: Path) -> bool:
    """Whether the task of this folder has ended."""
    return (folder / DONE).is_file()


def cost(folder: Path) -> dict[str, float]:
    """``seconds`` and ``cpu_seconds`` of a task that is done."""
    return json.loads((folder / DONE).read_text(encoding="utf-8"))


def run_all(tasks: Sequence[Task], jobs: int, said: Callable[[str], None]) -> None:
    """Carry out what is not done yet, ``jobs`` at a time, earlier ones of the list first.

    Several tasks with one folder are one task.

    Raises:
        InterloomError: a task failed; names its log. What runs beside it is waited for.
    """
    waiting = list({task.folder: task for task in reversed(tasks)}.values())[::-1]
    total, started = len(waiting), time.monotonic()
    waiting = [task for task in waiting if not is_done(task.folder)]
    if not waiting:
        return
    running: dict[Future[None], Task] = {}
    spawn = multiprocessing.get_context("spawn")  # threads of torch do not survive a fork
    with ProcessPoolExecutor(jobs, spawn, initializer=_end_with_parent) as pool:
        while waiting or running:
            ready = [task for task in waiting if all(is_done(need) for need in task.needs)]
            for task in ready[: jobs - len(running)]:
                waiting.remove(task)
                running[pool.submit(_carry_out, task.work, task.folder)] = task
            assert running, f"{waiting[0].name} waits for what nothing makes"
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                _check(task, future)
                done = total - len(waiting) - len(running)
                took, passed = cost(task.folder)["seconds"], time.monotonic() - started
                left = _seconds_left(tasks, waiting, running.values(), jobs)
                said(
                    f"{task.name}: {clock(took)} ({done} of {total} done, {clock(passed)} so far, "
                    f"about {clock(left)} to go)"
                )


def _seconds_left(
    tasks: Sequence[Task], waiting: Sequence[Task], running: Iterable[Task], jobs: int
) -> float:
    """What the tasks that are not done will take if each takes as long as the mean of its kind did,
    or of all where none of its kind is done. Half of a running one is taken as done."""
    known: dict[str, list[float]] = {}
    for folder in {task.folder for task in tasks if is_done(task.folder)}:
        known.setdefault(folder.parent.name, []).append(cost(folder)["seconds"])
    means = {kind: sum(values) / len(values) for kind, values in known.items()}
    usual = sum(means.values()) / len(means)

    def expected(of: Iterable[Task]) -> float:
        return sum(means.get(task.folder.parent.name, usual) for task in of)

    return (expected(waiting) + expected(running) / 2) / jobs


def _check(task: Task, future: Future[None]) -> None:
    error = future.exception()
    if error is not None:
        log = task.folder / LOG
        kind = "" if isinstance(error, InterloomError) else f"{type(error).__name__}: "
        raise InterloomError(f"{task.name} failed: {kind}{error}; see {log}") from error


def _carry_out(work: Callable[[Path], None], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # as `interloom run` does: models are named relative to the project
    with (folder / LOG).open("a", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    started, cpu = time.monotonic(), time.process_time()
    work(folder)
    took = {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu}
    part = folder / f"{DONE}.part"
    part.write_text(json.dumps(took), encoding="utf-8")
    part.replace(folder / DONE)


def _end_with_parent() -> None:
    """A worker whose study was killed ends too, and lets go of the locks of its stage."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(143)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
