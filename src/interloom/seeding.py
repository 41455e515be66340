"""The one place that sets seeds."""

from __future__ import annotations

import hashlib
import os
import random
import sys


def derive_seed(*parts: object) -> int:
    """A stable seed in ``[0, 2³¹)`` from any printable parts.

    The same parts give the same seed on every machine and Python (``hash`` does not).

    >>> derive_seed(7, "prompts", 3) == derive_seed(7, "prompts", 3)
    True
    >>> derive_seed("ab", "c") == derive_seed("a", "bc")
    False
    """
    text = "\x1f".join(repr(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch, and ask torch for deterministic kernels.

    Libraries that are not loaded yet are loaded only if they are cheap (numpy); torch is seeded
    when it is there, and a stage that loads it later calls this again.
    """
    import numpy

    os.environ.setdefault("PYTHONHASHSEED", str(seed))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
