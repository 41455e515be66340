from __future__ import annotations

import random
from itertools import chain

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


def test_two_devices_see_the_batches_of_one() -> None:
    """What accelerate deals out to two processes are together the steps of one."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler

    lengths = [(7 * place) % 13 for place in range(48)]

    def steps(devices: int, micro: int) -> list[list[int]]:
        """The samples of every optimiser step of 8, over all devices."""
        dealt = [
            list(
                BatchSamplerShard(
                    BatchSampler(LikeLengths(lengths, 8, seed=3), micro, drop_last=False),
                    num_processes=devices,
                    process_index=device,
                )
            )
            for device in range(devices)
        ]
        passes = [list(chain(*together)) for together in zip(*dealt, strict=True)]
        each = 8 // (micro * devices)
        return [sorted(chain(*passes[at : at + each])) for at in range(0, len(passes), each)]

    assert steps(1, 8) == steps(1, 2) == steps(2, 4) == steps(2, 2)
