"""The seven benchmarks: where items come from, and who grades what was made of them.

Items are a pocket edition's or a user's copy of the real ones, both in the published layout. The
exact verifier grades the first, a chat model either of them, and a detector GenEval's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from interloom.benchmarks import (
    comm,
    geneval,
    kris,
    omnicontext,
    pocket_comm,
    pocket_geneval,
    pocket_kris,
    pocket_omnicontext,
    pocket_rise,
    pocket_ueval,
    pocket_wise,
    rise,
    ueval,
    wise,
)
from interloom.benchmarks.graded import Graded
from interloom.records import Request, Trajectory


class Pocket(Protocol):
    """What the module of a pocket edition offers."""

    NAME: str
    PROTOCOL: str

    @staticmethod
    def published(count: int, seed: int) -> list[Any]:
        """Items as the benchmark publishes them, ``count`` at most."""
        ...

    @staticmethod
    def requests(count: int, seed: int) -> list[Request]:
        """The items as requests; the same for every system."""
        ...

    @staticmethod
    def write(folder: Path, trajectories: Sequence[Trajectory], *, with_text: bool) -> None:
        """Write what a system made, in the benchmark's own layout."""
        ...

    @staticmethod
    def grade(folder: Path, count: int, seed: int) -> Graded:
        """Grade what lies in the folder, exactly."""
        ...


POCKET: dict[str, Any] = {
    edition.NAME: edition
    for edition in (
        pocket_ueval,
        pocket_comm,
        pocket_wise,
        pocket_rise,
        pocket_geneval,
        pocket_kris,
        pocket_omnicontext,
    )
}
"""Pocket editions by name."""
PUBLISHED: dict[str, Any] = {
    module.NAME: module for module in (ueval, comm, wise, rise, geneval, kris, omnicontext)
}
"""The benchmarks themselves by name: records, layout, judge, formula."""
