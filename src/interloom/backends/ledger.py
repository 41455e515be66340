"""What remote calls have cost: one row per backend, model and purpose, in SQLite.

Several processes may write at once (stages that run side by side, workers on other machines that
share the folder), so that a budget holds for all of them together.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from interloom.databases import told_if_damaged

LEDGER = ".interloom/ledger.sqlite"
"""Where a project has its ledger."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS costs (
    backend TEXT, model TEXT, purpose TEXT,
    calls INTEGER, failures INTEGER, input_tokens INTEGER, output_tokens INTEGER, images INTEGER,
    seconds REAL, usd REAL, dearest REAL,
    PRIMARY KEY (backend, model, purpose))
"""
ADD = """
INSERT INTO costs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (backend, model, purpose) DO UPDATE SET
    calls = calls + excluded.calls,
    failures = failures + excluded.failures,
    input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    images = images + excluded.images,
    seconds = seconds + excluded.seconds,
    usd = usd + excluded.usd,
    dearest = MAX(dearest, excluded.dearest)
"""
SPENT = """
SELECT COALESCE(SUM(usd), 0), COALESCE(MAX(dearest * (model = ?)), 0),
    COALESCE(MAX(model = ? AND (dearest > 0 OR calls > failures)), 0)
FROM costs WHERE backend = ?
"""


class Usage(NamedTuple):
    """What one call used, as the server counts it."""

    input_tokens: int = 0
    output_tokens: int = 0
    """Thinking included."""
    images: int = 0


NOTHING = Usage()


class Cost(NamedTuple):
    """The sums of one backend, model and purpose (a stage's name)."""

    backend: str
    model: str
    purpose: str
    calls: int
    failures: int
    """Calls without a usable answer; they may have cost something all the same."""
    input_tokens: int
    output_tokens: int
    images: int
    seconds: float
    """Waiting for answers, over all calls; they overlap."""
    usd: float
    dearest: float
    """The most that one call has cost."""


class Ledger:
    """The ledger in a file, which is made when missing. One thread at a time may use it.

    Raises:
        InterloomError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made where the settings are read, used where the calls are made.
        self._db = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
        with told_if_damaged(path, "what was spent is then forgotten, so lower the budgets by it"):
            # Not WAL, which processes on different machines cannot share.
            self._db.execute("PRAGMA journal_mode=TRUNCATE")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(SCHEMA)

    def add(
        self,
        backend: str,
        model: str,
        purpose: str,
        *,
        calls: int = 0,
        failures: int = 0,
        usage: Usage = NOTHING,
        seconds: float = 0.0,
        usd: float = 0.0,
    ) -> None:
        """Add to a row."""
        self._db.execute(ADD, (backend, model, purpose, calls, failures, *usage, seconds, usd, usd))

    def spent(self, backend: str, model: str = "") -> tuple[float, float, bool]:
        """US dollars spent on a backend, the most that one call of ``model`` has cost, and whether
        that is known yet."""
        return self._db.execute(SPENT, (model, model, backend)).fetchone()

    def costs(self) -> list[Cost]:
        """All rows, the dearest first."""
        rows = self._db.execute("SELECT * FROM costs ORDER BY usd DESC, backend, model, purpose")
        return [Cost(*row) for row in rows]

    def close(self) -> None:
        self._db.close()


def as_table(costs: list[Cost]) -> str:
    """For the terminal: a line per row, of which there is one at least, and one with the sums."""
    lines = [
        f"{'backend':<8} {'model':<28} {'for':<13} {'calls':>7} {'failed':>6} "
        f"{'tokens in':>11} {'tokens out':>11} {'images':>7} {'hours':>6} {'US$':>10}"
    ]
    sums: list[Any] = [sum(column) for column in zip(*(c[3:] for c in costs), strict=True)]
    for cost in [*costs, Cost("all", "", "", *sums)]:
        lines.append(
            f"{cost.backend:<8} {cost.model:<28} {cost.purpose:<13} {cost.calls:>7} "
            f"{cost.failures:>6} {cost.input_tokens:>11} {cost.output_tokens:>11} "
            f"{cost.images:>7} {cost.seconds / 3600:>6.2f} {cost.usd:>10.4f}"
        )
    return "\n".join(lines)
