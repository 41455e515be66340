"""The account of a data stage, in all its forms: metrics, table and drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from interloom.construct.sankey import drawing
from interloom.construct.yields import Yield, write_csv, write_metrics

if TYPE_CHECKING:
    from interloom.runner import StageRun


def write(
    stage: StageRun, yields: Sequence[Yield], numbers: Mapping[str, float | int | str]
) -> None:
    """Write the stage's declared ``metrics``, ``yield`` (CSV) and ``flow`` (SVG)."""
    write_metrics(stage.out("metrics"), yields, numbers)
    write_csv(stage.out("yield"), stage.name, yields)
    stage.out("flow").write_text(drawing(stage.name, yields), encoding="utf-8")
