from __future__ import annotations

import random

import pytest

from interloom.train.batches import LikeLengths


@pytest.mark.parametrize("count", [1, 7, 64, 1000])
def test_every_sample_comes_once_an_epoch(count: int):
    sampler = LikeLengths([random.Random(i).randrange(400) for i in range(count)], 16, seed=1)
    assert sorted(sampler) == list(range(count)) and len(sampler) == count


def test_batches_hold_samples_alike():
    rng = random.Random(0)
    lengths = [rng.randrange(50, 500) for _ in range(2000)]
    order = list(LikeLengths(lengths, 16, seed=1))
    spread = [
        max(lengths[i] for i in order[at : at + 16]) - min(lengths[i] for i in order[at : at + 16])
        for at in range(0, 1984, 16)
    ]
    assert sum(spread) / len(spread) < 80  # 450 without sorting


def test_epochs_differ_and_repeat():
    sampler = LikeLengths(list(range(100)), 8, seed=1)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first
    sampler.set_epoch(0)
    assert list(sampler) == first
