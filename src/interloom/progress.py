"""Progress of a stage: a bar on a terminal, lines in a log, events for the Prefect flow.

The flow runs stages as child processes and sets ``INTERLOOM_PROGRESS=events``; then every report is
one line ``::progress {json}`` on standard output, which the flow turns into its own display. In the
same way it is given pictures (``::picture {json}``) and told the stage's MLflow run (``::run ID``).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

EVENT_PREFIX = "::progress "
PICTURE_PREFIX = "::picture "
RUN_PREFIX = "::run "
EVENT_SECONDS = 0.5
LINE_SECONDS = 10.0


@dataclass(frozen=True)
class Report:
    """Where one counted piece of work stands; ``eta`` in seconds, absent while unknown."""

    stage: str
    what: str
    done: int
    total: int | None
    seconds: float

    @property
    def rate(self) -> float:
        """Items per second so far."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds to go at the rate so far."""
        if self.total is None or not self.done:
            return None
        return (self.total - self.done) / self.rate if self.rate else None

    def line(self) -> str:
        """For people: ``draw 34/120 · 3.1/s · 0:28 to go``."""
        of = f"/{self.total}" if self.total is not None else ""
        rate = (
            f"{self.rate:.1f}/s"
            if self.rate >= 1 or not self.rate
            else f"{1 / self.rate:.1f} s each"
        )
        eta = f" · {clock(self.eta)} to go" if self.eta else ""
        return f"{self.what} {self.done}{of} · {rate}{eta}"


def clock(seconds: float) -> str:
    """``m:ss`` or ``h:mm:ss``.

    >>> clock(75), clock(3675)
    ('1:15', '1:01:15')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def to_event(report: Report) -> str:
    """A report as the line that a stage prints for the flow."""
    return EVENT_PREFIX + json.dumps(asdict(report))


def from_event(line: str) -> Report | None:
    """The report in a line of a stage's output; none if the line is ordinary output."""
    if not line.startswith(EVENT_PREFIX):
        return None
    return Report(**json.loads(line[len(EVENT_PREFIX) :]))


def flow_listens() -> bool:
    """Whether a flow reads what this process prints."""
    return os.environ.get("INTERLOOM_PROGRESS") == "events"


def to_picture(name: str, url: str) -> str:
    """A picture (a ``data:`` URL) as the line that a stage prints for the flow."""
    return PICTURE_PREFIX + json.dumps([name, url])


def from_picture(line: str) -> tuple[str, str] | None:
    """Name and ``data:`` URL of the picture in a line; none if the line is something else."""
    if not line.startswith(PICTURE_PREFIX):
        return None
    name, url = json.loads(line[len(PICTURE_PREFIX) :])
    return name, url


class Bar:
    """Counts work. Iterate over it, or ``advance`` it by hand inside ``with``.

    >>> for item in Bar("demo", [1, 2], "count"): ...
    >>> with Bar("demo", 10, "steps") as bar:
    ...     bar.advance(4)
    """

    def __init__(
        self, stage: str, work: Iterable[Any] | int, what: str, *, shown: bool = True
    ) -> None:
        self._stage, self._what, self._quiet = stage, what, not shown
        self._items: Iterable[Any] = range(work) if isinstance(work, int) else work
        self._total = work if isinstance(work, int) else None
        if isinstance(work, Sized):
            self._total = len(work)
        self._done = 0
        self._started = self._shown = time.monotonic()
        self._events = flow_listens()
        self._terminal = not self._quiet and not self._events and sys.stderr.isatty()
        self._bar: Any = None

    def __enter__(self) -> Self:
        self._started = self._shown = time.monotonic()
        if self._terminal:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, desc=self._what, leave=False, dynamic_ncols=True)
        elif self._events:
            self._show()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None and not self._quiet:
            if self._events:
                self._show()
            seconds = time.monotonic() - self._started
            rate = f" ({self._done / seconds:.1f}/s)" if seconds > 0 else ""
            print(f"{self._stage}: {self._what}: {self._done} in {seconds:.1f} s{rate}", flush=True)

    def __iter__(self) -> Iterator[Any]:
        with self:
            for item in self._items:
                yield item
                self.advance()

    def advance(self, count: int = 1) -> None:
        """``count`` more pieces of work are done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        if time.monotonic() - self._shown >= (EVENT_SECONDS if self._events else LINE_SECONDS):
            self._show()

    def _show(self) -> None:
        if self._quiet:
            return
        self._shown = time.monotonic()
        report = Report(
            self._stage, self._what, self._done, self._total, self._shown - self._started
        )
        text = to_event(report) if self._events else f"{self._stage}: {report.line()}"
        print(text, flush=True)
