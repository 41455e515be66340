"""Training samples from the data stages' Parquet files, as conversations that are made when asked
for.

Rows stay memory-mapped on disk; a row becomes messages and decoded images only when a batch needs
it, so that 100,000 samples of megapixel images need no more memory than one batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset

from interloom.errors import InterloomError
from interloom.train import together

Row = Mapping[str, Any]
IMAGE_LENGTH = 40
HELD_OUT_SHARE = 0.15
"""At most this share of the rows is kept from training, however few there are."""


def load_rows(path: Path, cache: Path) -> Dataset:
    """The rows of one Parquet file, memory-mapped; ``cache`` receives the mapped copy.

    Raises:
        InterloomError: no such file, or no rows in it.
    """
    if not path.is_file():
        raise InterloomError(f"{path}: no such dataset; run the stage that makes it")
    if not pq.read_metadata(path).num_rows:
        raise InterloomError(f"{path} has no rows: nothing to train on")
    with together.first_alone():
        dataset = Dataset.from_parquet(str(path), cache_dir=str(cache))
    assert isinstance(dataset, Dataset)
    return dataset


def split_held_out(keys: Sequence[str], limit: int) -> tuple[list[int], list[int]]:
    """Places of the training rows and of the held-out rows.

    Rows of one key (one request) stay on one side. Which keys are held out depends on their names
    alone.

    >>> split_held_out(["a", "a", "b", "c", "d", "e", "f", "g", "h", "i"], 2)
    ([0, 1, 2, 3, 5, 6, 7, 8, 9], [4])
    """
    rows: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        rows.setdefault(key, []).append(place)
    room = min(limit, int(len(keys) * HELD_OUT_SHARE))
    held: set[int] = set()
    for key in sorted(rows, key=lambda key: hashlib.sha256(key.encode()).digest()):
        if len(held) + len(rows[key]) <= room:
            held.update(rows[key])
    train = [place for place in range(len(keys)) if place not in held]
    return train, sorted(held)


def with_conversations(dataset: Dataset, converse: Callable[[Row], dict[str, Any]]) -> Dataset:
    """The same rows as trainer samples: ``converse`` makes each of them when it is asked for."""

    def transform(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = (
            dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)
        )
        samples = [converse(row) for row in rows]
        return {name: [sample[name] for sample in samples] for name in samples[0]}

    return dataset.with_transform(transform)


def joined(parts: Sequence[Dataset]) -> Dataset:
    """Samples of several datasets as one, each made by its own dataset when it is asked for."""
    places = {
        "part": [number for number, part in enumerate(parts) for _ in range(len(part))],
        "place": [place for part in parts for place in range(len(part))],
    }

    def transform(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        samples = [
            parts[part][place] for part, place in zip(batch["part"], batch["place"], strict=True)
        ]
        return {name: [sample[name] for sample in samples] for name in samples[0]}

    return Dataset.from_dict(places).with_transform(transform)


def text_lengths(
    dataset: Dataset, pictures: Callable[[Row], int], without: Sequence[str]
) -> list[int]:
    """About how many characters each sample has; a picture counts as some.

    Args:
        pictures: how many images a row shows.
        without: columns of images, which are not read.
    """
    names = [name for name in dataset.column_names if name not in without]
    rows = dataset.select_columns(names).with_format(None)
    return [len(str(row)) + IMAGE_LENGTH * pictures(row) for row in rows if isinstance(row, dict)]


def plain_rows(dataset: Dataset, places: Sequence[int]) -> list[Row]:
    """Some rows as dictionaries, without any transform."""
    selected = dataset.select(list(places)).with_format(None)
    return [row for row in selected if isinstance(row, dict)]
