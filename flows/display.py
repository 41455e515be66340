"""The live view of a lifecycle on a terminal: every stage, what it does, how fast, how long yet."""

from __future__ import annotations

import threading
import time
from typing import Any

from interloom.progress import Report, clock

MARKS = {
    "waiting": "·",
    "running": "▶",
    "done": "✓",
    "up to date": "=",
    "failed": "✗",
    "killed": "✗",
}
STYLES = {"running": "bold", "failed": "red", "killed": "red", "done": "green", "waiting": "dim"}


class Display:
    """Silent until ``open``; all methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._status: dict[str, str] = {}
        self._began: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._note: dict[str, str] = {}
        self._live: Any = None
        self._opened = time.monotonic()

    def open(self, names: list[str]) -> None:
        """Begin to draw, with these stages waiting."""
        from rich.live import Live

        self._status = dict.fromkeys(names, "waiting")
        self._opened = time.monotonic()
        self._live = Live(get_renderable=self._render, refresh_per_second=4, transient=False)
        self._live.start()

    def close(self) -> None:
        """Draw once more and stop."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def statuses(self) -> dict[str, str]:
        """What came of each stage so far."""
        return dict(self._status)

    def begin(self, stage: str) -> None:
        """The stage starts, or starts again."""
        with self._lock:
            self._status[stage], self._began[stage] = "running", time.monotonic()

    def end(self, stage: str, status: str) -> None:
        """The stage ended: done, up to date, failed or killed."""
        with self._lock:
            self._status[stage] = status
            self._took[stage] = time.monotonic() - self._began[stage]
            if status != "failed":
                self._note[stage] = ""

    def report(self, report: Report) -> None:
        """Progress inside a stage."""
        with self._lock:
            share = report.done / report.total if report.total else 0.0
            filled = round(20 * share)
            bar = "█" * filled + "░" * (20 - filled) if report.total else ""
            self._note[report.stage] = f"{bar} {report.line()}"

    def line(self, stage: str, text: str) -> None:
        """A line that the stage printed; the last one stands beside it until progress comes."""
        with self._lock:
            if not self._note.get(stage, "").startswith(("█", "░")):
                self._note[stage] = text.removeprefix(f"{stage}: ")

    def _render(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 1))
        with self._lock:
            for stage, status in self._status.items():
                seconds = self._took.get(stage)
                if status == "running":
                    seconds = time.monotonic() - self._began[stage]
                table.add_row(
                    MARKS[status],
                    Text(stage, style=STYLES.get(status, "")),
                    clock(seconds) if seconds is not None else "",
                    Text(self._note.get(stage) or ("" if status == "waiting" else status),
                         style="dim", overflow="ellipsis", no_wrap=True),
                )  # fmt: skip
            ended = sum(status not in ("waiting", "running") for status in self._status.values())
            took = clock(time.monotonic() - self._opened)
            whole = f"{ended} of {len(self._status)} stages · {took}"
        return Group(table, Text(f"  {whole}", style="dim"))
