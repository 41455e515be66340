"""Several processes of one training (torchrun): what all do, and what the first does for all.

Every function must be called by all of them, in the same order. With one process they do what they
are given to do, and nothing else.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch

from interloom import ranks

Item = TypeVar("Item")
Result = TypeVar("Result")
PATIENCE = timedelta(hours=6)
"""How long a process waits for the others, such as for judgments that the first asks for."""


def join() -> None:
    """Meet the other processes; the trainer then finds them met."""
    if ranks.world() == 1 or torch.distributed.is_initialized():
        return
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    # A process that ends while its threads still wait for others is aborted now and then.
    atexit.register(torch.distributed.destroy_process_group)


def wait_for_all() -> None:
    """Go on when all have come here."""
    if ranks.world() > 1:
        join()
        torch.distributed.barrier()


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process goes through the block, then the others: files that it makes are there."""
    if ranks.rank():
        wait_for_all()
    yield
    if not ranks.rank():
        wait_for_all()


def on_first(work: Callable[[], Result]) -> Result:
    """The result of ``work`` in the first process, or its error, for all."""
    if ranks.world() == 1:
        return work()
    join()
    box: list[Any] = [None, None]
    if ranks.rank() == 0:
        try:
            box[0] = work()
        except Exception as error:  # the others wait for an answer, whatever it is
            box[1] = error
    torch.distributed.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    return box[0]


def spread(
    items: Sequence[Item], work: Callable[[Sequence[Item]], Sequence[Result]]
) -> list[Result]:
    """``work`` on all items, each process on a part of them; all results, in order, for all.

    Parts are of one size, as sharded models answer in step: a short one is filled up with its last
    item, and what comes of that is left out.
    """
    if ranks.world() == 1:
        return list(work(items))
    join()
    count, world = len(items), ranks.world()
    size = -(-count // world)
    mine = list(items[size * ranks.rank() : size * (ranks.rank() + 1)])
    mine += [items[-1]] * (size - len(mine)) if items else []
    parts: list[Any] = [None] * world
    torch.distributed.all_gather_object(parts, list(work(mine)))
    return [result for part in parts for result in part][:count]
