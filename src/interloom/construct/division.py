"""Who carries out which requests: by which generator, and in which parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from interloom.construct import store
from interloom.construct.parts import Part
from interloom.records import Request
from interloom.seeding import derive_seed

if TYPE_CHECKING:
    from interloom.settings.file import Settings


def assign(requests: Sequence[Request], weak_share: float, seed: int) -> list[bool]:
    """Which requests the weak generator carries out: the wanted share, drawn by request id."""
    order = sorted(
        range(len(requests)), key=lambda place: derive_seed(seed, "weak", requests[place].id)
    )
    weak = set(order[: round(weak_share * len(requests))])
    return [place in weak for place in range(len(requests))]


def parts_of(
    requests: Sequence[Request], weak: Sequence[bool], shard_rows: int, small: bool
) -> list[Part]:
    """The requests by generator; ``small`` parts, for many workers, are a shard each."""
    parts: list[Part] = []
    shard = 0
    for is_weak in (False, True):
        mine = [r for r, w in zip(requests, weak, strict=True) if w is is_weak]
        for first in range(0, len(mine), shard_rows if small else max(1, len(mine))):
            chosen = mine[first : first + shard_rows] if small else mine
            parts.append(Part(shard, is_weak, chosen))
            shard += -(-len(chosen) // shard_rows)
    return parts


def all_parts(settings: Settings, prompts: Path) -> list[Part]:
    """The parts that the settings make of the requests in a file."""
    options = settings.trajectories
    requests = [store.request_from(row) for row in store.read_rows(prompts)]
    weak = assign(requests, options.weak_share, settings.seed)
    return parts_of(requests, weak, options.shard_rows, options.runner != "local")
