"""How many rows came into a step of a data stage, how many went out, and why the rest went."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Yield:
    """The account of one step; it must add up: ``came == kept + sum(lost.values())``."""

    step: str
    came: int
    kept: int
    lost: Mapping[str, int] = field(default_factory=dict)
    """Reason → number of rows that went for it."""

    def __post_init__(self) -> None:
        assert self.came == self.kept + sum(self.lost.values()), self

    @property
    def share(self) -> float:
        """Fraction kept; 1 where nothing came."""
        return self.kept / self.came if self.came else 1.0


def account(stage: str, yields: Sequence[Yield]) -> list[dict[str, str | int]]:
    """Flow rows ``(stage, step, outcome, rows)``: what a table or a Sankey plot is drawn from."""
    rows: list[dict[str, str | int]] = []
    for entry in yields:
        for outcome, count in (("kept", entry.kept), *sorted(entry.lost.items())):
            rows.append({"stage": stage, "step": entry.step, "outcome": outcome, "rows": count})
    return rows


def write_csv(path: Path, stage: str, yields: Sequence[Yield]) -> None:
    """The flow rows as CSV, for DVC plots."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, ["stage", "step", "outcome", "rows"], lineterminator="\n", strict=True
        )
        writer.writeheader()
        writer.writerows(account(stage, yields))


def write_metrics(
    path: Path, yields: Sequence[Yield], numbers: Mapping[str, float | int | str] | None = None
) -> dict[str, float | int | str]:
    """Metrics as flat JSON: ``<step>.came``, ``.kept``, ``.lost.<reason>``, and ``numbers``."""
    flat: dict[str, float | int | str] = {}
    for entry in yields:
        flat[f"{entry.step}.came"] = entry.came
        flat[f"{entry.step}.kept"] = entry.kept
        flat |= {f"{entry.step}.lost.{why}": count for why, count in sorted(entry.lost.items())}
    flat |= dict(numbers or {})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(flat, indent=2) + "\n", encoding="utf-8")
    return flat
