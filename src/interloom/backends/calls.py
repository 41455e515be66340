"""One question to a remote model, its answer, and the ways to have none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

from interloom.backends.lanes import Lane
from interloom.backends.ledger import NOTHING, Usage

Answer = TypeVar("Answer")
Role = Literal["planner", "generator", "critic", "judge", "analyzer"]


class Unanswered(Exception):
    """A call without an answer.

    Args:
        again: the same call may have more luck later.
        pause: seconds for which the server wants no more calls with this key.
        usage: what the call cost all the same.
    """

    def __init__(
        self, reason: str, *, again: bool = False, pause: float = 0.0, usage: Usage = NOTHING
    ) -> None:
        super().__init__(reason)
        self.again = again
        self.pause = pause
        self.usage = usage


class Refused(Unanswered):
    """The model declines this question; it is well otherwise."""

    def __init__(self, reason: str, usage: Usage = NOTHING) -> None:
        super().__init__(f"refused: {reason}", usage=usage)


class Unusable(Unanswered):
    """The model answered, but not with what was asked for; another sample may be better."""

    def __init__(self, reason: str, usage: Usage = NOTHING) -> None:
        super().__init__(reason, again=True, usage=usage)


class Reply(NamedTuple):
    """A text or an encoded image, and what it took."""

    content: bytes
    usage: Usage


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One question to a model.

    ``send`` gets a lane and how many samples were unusable so far; ``read`` raises ``ValueError``
    for an answer that cannot be used. ``key`` is the digest of all that decides the answer.
    """

    role: Role
    model: str
    key: bytes
    send: Callable[[Lane, int], Awaitable[Reply]]
    read: Callable[[bytes], Answer]
