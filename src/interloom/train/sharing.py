"""Training in several processes: who writes, and how held-out work is shared among them.

Under ``torchrun`` or ``accelerate launch`` every process runs the same stage. Only the main one
writes files and metrics; answers are shared, since a sharded model's forward pass needs all
processes at once, and since a rank that answers alone would keep the others waiting.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from interloom.errors import InterloomError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def processes() -> int:
    """How many processes train, as ``torchrun`` and ``accelerate launch`` say; one device each."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_devices() -> None:
    """Refuse one process with several GPUs: it would split every batch and fit none of ours.

    Raises:
        InterloomError: naming what to do.
    """
    seen = torch.cuda.device_count()
    if seen > 1 and processes() == 1:
        raise InterloomError(
            f"{seen} GPUs and one process: start the stage with `accelerate launch "
            f"--config_file profiles/accelerate/fsdp.yaml -m interloom run …` (or torchrun), or "
            "show it one GPU with CUDA_VISIBLE_DEVICES"
        )


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return PartialState().is_main_process


def wait() -> None:
    """Until all processes are here."""
    PartialState().wait_for_everyone()


def spread(items: Sequence[Item], ask: Callable[[list[Item]], list[Answer]]) -> list[Answer]:
    """All answers, in order, on every process; each asks for its share.

    Shares are equally long, the last item filling up, so that all make the same number of calls.
    """
    state = PartialState()
    if state.num_processes == 1 or not items:
        return ask(list(items))
    size = -(-len(items) // state.num_processes)
    mine = list(items[state.process_index * size : (state.process_index + 1) * size])
    answers = ask(mine + [items[-1]] * (size - len(mine)))
    return gather_object(answers)[: len(items)]
