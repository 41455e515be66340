"""What both editions of the prompts share: a request without its id; shares as whole numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

from interloom.records import RequestKind


class Draft(NamedTuple):
    """A request without its id, and what it was made from."""

    text: str
    category: str
    subcategory: str
    template: str
    slots: Mapping[str, Any]
    kind: RequestKind = "create"
    pictures: tuple[bytes, ...] = ()
    captions: tuple[str, ...] = ()


Writer = Callable[[Random], Draft]


def quotas(shares: Sequence[float], count: int) -> list[int]:
    """How many of ``count`` each share gets: rounded down, the largest rests rounded up.

    >>> quotas([0.5, 0.3, 0.2], 9)
    [4, 3, 2]
    """
    exact = [share * count / sum(shares) for share in shares]
    numbers = [int(value) for value in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: numbers[i] - exact[i])
    for place in by_rest[: count - sum(numbers)]:
        numbers[place] += 1
    return numbers
