"""People's feedback as critic data: the files that `interloom feedback export` writes.

Such a file has rows of the critic's schema. What people said is trained on by SFT; RL asks the
judge for its rewards and has no use for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from interloom.construct import store
from interloom.errors import InterloomError

FORMAT = "critic/1"
REQUESTS = "feedback"
"""What the ids of such rows begin with: nobody in the data asked for them."""


class Reviewed(NamedTuple):
    """Rows that may be trained on, by id with the person's judgment, and why others may not."""

    judgments: dict[str, bool]
    lost: dict[str, int]


def read(path: Path, exclusion: Callable[[Mapping[str, Any]], str | None]) -> Reviewed:
    """Look through a file, a few rows at a time.

    Args:
        exclusion: why a row may not be trained on; ``None`` if it may.

    Raises:
        InterloomError: no such file, or another one; names it and the setting.
    """
    if not path.is_file():
        raise InterloomError(
            f"critic_data.feedback = {path}: no such file; `dvc pull {path}.dvc` brings it if DVC "
            "tracks it, and an empty name is for none"
        )
    judgments: dict[str, bool] = {}
    lost: Counter[str] = Counter()
    first = next(store.read_rows(path), None)
    about = store.about(path)
    if first is None or about.get("source") != "feedback" or about.get("format") != FORMAT:
        raise InterloomError(
            f"critic_data.feedback = {path}: not a file of `interloom feedback export`"
        )
    for row in store.read_rows(path):
        reason = exclusion(row)
        if reason is not None:
            lost[reason] += 1
        else:
            judgments[row["id"]] = row["success"]
    return Reviewed(judgments, dict(lost))


def rows_of(path: Path, ids: Collection[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file that are chosen."""
    return (row for row in store.read_rows(path) if row["id"] in ids)
