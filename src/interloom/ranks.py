"""The processes of a distributed stage, as torchrun numbers them: one without torchrun."""

from __future__ import annotations

import os


def rank() -> int:
    """Which process this is; the first (0) writes and records."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Which process of its pod this is."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))
