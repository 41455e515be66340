"""Texts that take things from pictures: "add the thing of picture 1 at the center".

Pictures count from 1. A picture that is referred to shows one thing; which, one has to see.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from interloom.pocket.language import MeaningError, with_article
from interloom.pocket.scene import Scene

_REFERENCE = re.compile(r"the thing of picture (\d+)")


def refer(number: int) -> str:
    """
    >>> refer(2)
    'the thing of picture 2'
    """
    return f"the thing of picture {number}"


def mentioned(text: str) -> list[int]:
    """The numbers of the pictures that a text takes things from, in order.

    >>> mentioned("show the thing of picture 2 at the center")
    [2]
    """
    return [int(number) for number in _REFERENCE.findall(text)]


def resolve(text: str, scenes: Sequence[Scene]) -> str:
    """The text with every reference replaced by what the picture shows.

    Raises:
        MeaningError: there is no such picture, or it does not show exactly one thing.
    """

    def name(match: re.Match[str]) -> str:
        number = int(match[1])
        if not 1 <= number <= len(scenes):
            raise MeaningError(f"{match[0]!r}: there are {len(scenes)} pictures")
        things = [sprite for _, sprite in scenes[number - 1].sprites()]
        if len(things) != 1:
            raise MeaningError(f"{match[0]!r}: that picture shows {len(things)} things, not one")
        return with_article(str(things[0]))

    return _REFERENCE.sub(name, text)
