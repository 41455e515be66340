"""Batches of samples of like length: little padding, random order, the same again after a kill."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import Sampler
from trl.trainer.sft_trainer import SFTTrainer

POOL = 16
"""Batches that are sorted together; more would let the order of lengths show in the training."""


class LikeLengths(Sampler[int]):
    """Places of samples, batch after batch; the samples of a batch have about the same length.

    The order depends on seed and epoch alone, so that a resumed epoch goes on as it began.

    >>> sampler = LikeLengths([5, 1, 4, 2], batch_size=2, seed=0)
    >>> [sampler.lengths[place] for place in sampler]
    [1, 2, 4, 5]
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's order."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(self.seed * 1_000_003 + self.epoch)
        places = list(range(len(self.lengths)))
        rng.shuffle(places)
        pool = self.batch_size * POOL
        batches: list[list[int]] = []
        for start in range(0, len(places), pool):
            alike = sorted(places[start : start + pool], key=lambda i: (self.lengths[i], i))
            batches += [
                alike[at : at + self.batch_size] for at in range(0, len(alike), self.batch_size)
            ]
        # A short batch in the middle would shift the cuts of all after it.
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        rng.shuffle(whole)
        rest = [place for batch in batches if len(batch) < self.batch_size for place in batch]
        return iter([place for batch in whole for place in batch] + rest)


class LikeLengthsSFTTrainer(SFTTrainer):
    """TRL's trainer with ``LikeLengths`` batches.

    ``batch_size`` is that of an optimiser step: the samples of a step are the same however many
    devices and accumulated passes they are spread over.
    """

    def __init__(self, *, lengths: Sequence[int], batch_size: int, **settings: Any) -> None:
        self.lengths, self.batch_size = lengths, batch_size
        super().__init__(**settings)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return LikeLengths(self.lengths, self.batch_size, self.args.seed)
