"""The outcome of one cell (a system on a benchmark), as it is kept and compared."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from interloom.benchmarks.statistics import (
    Estimate,
    grouped,
    paired_difference,
    stratified_mean,
)


@dataclass(frozen=True)
class Graded:
    """Scores of one system on one benchmark, 0–100.

    ``items`` is the score of every judged item, ``strata`` its task, ``weights`` the share of a
    task in the overall score (equal if empty; a single stratum "" means micro average). ``parts``
    are the benchmark's own further figures.
    """

    protocol: str
    judge: str
    items: dict[str, float]
    strata: dict[str, str]
    weights: dict[str, float]
    parts: dict[str, float]
    unjudged: float
    """Share of judge calls without an answer, 0–1."""
    run: dict[str, float] = field(default_factory=dict)
    """How the answers came about: images per request, failed requests, …"""
    data: str = ""
    """Digest of the benchmark's items."""

    @property
    def overall(self) -> Estimate:
        """The benchmark's overall score with its interval."""
        return stratified_mean(grouped(self.items, self.strata), self.weights or None)

    def minus(self, other: Graded) -> Estimate:
        """Paired difference of the overall scores.

        Raises:
            ValueError: another protocol; such scores are never compared.
        """
        if self.protocol != other.protocol:
            raise ValueError(f"{self.protocol} and {other.protocol} are not to be compared")
        return paired_difference(self.items, other.items, self.strata, self.weights or None)

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n", "utf-8")

    @classmethod
    def read(cls, path: Path) -> Graded:
        """Read what ``save`` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))
