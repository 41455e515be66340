"""What can be served: a system turns batches of requests to events, and knows nothing of queues.

The engine takes requests in, decides who is carried out with whom, and shares calls. A system says
how one request stands (a ``Flight``), and does the next piece of work for many of them at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from interloom.backends.ledger import Usage
from interloom.records import Failure, Request, Trajectory
from interloom.serve.events import Call, Event, Order, Outcome, Role, Wishes
from interloom.serve.metrics import Metrics

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

Option = Literal["generator", "t_max", "reluctance"]
"""What only some systems can be asked for (``Wishes``)."""
RECORDED: Mapping[Role, Literal["planner", "generator", "critic"]] = {
    "planner": "planner",
    "generator": "generator",
    "critic": "critic",
    "encoder": "generator",
    "reasoner": "generator",
}
"""A role as trajectories have it, in which a unified model is its own generator."""


@dataclass(frozen=True)
class Ending:
    """How a request ended; ``code`` and ``message`` say why it is not ``completed``."""

    outcome: Outcome
    code: str = ""
    message: str = ""


class Flight(Protocol):
    """One request on its way."""

    failure: Failure | None

    @property
    def images(self) -> int:
        """Pictures so far."""
        ...

    def place(self) -> tuple[int, int]:
        """What its next call is about, as ``Call`` has it."""
        ...

    def ending(self) -> Ending | None:
        """Whether and how it has ended; asked after ``begin`` and after every round."""
        ...

    def trajectory(self) -> Trajectory:
        """What has come of it so far."""
        ...


F = TypeVar("F", bound=Flight)
Result = TypeVar("Result")


@dataclass(eq=False)
class Ticket(Generic[F]):
    """A request in the engine: what is told of it, and how to call it off."""

    order: Order
    flight: F
    tell: Callable[[Event], None]
    call_off: Callable[[Ticket[F]], None]
    arrived: int = field(default_factory=time.time_ns)
    calls: list[Call] = field(default_factory=list)
    cancelled: bool = False
    ended: bool = False

    def cancel(self) -> None:
        """Nobody waits for this any more: no further call is made for it."""
        self.call_off(self)

    def usage(self) -> Usage:
        """All tokens and pictures so far."""
        return Usage(
            sum(call.usage.input_tokens for call in self.calls),
            sum(call.usage.output_tokens for call in self.calls),
            self.flight.images,
        )


class Sharing(Protocol[F]):
    """What the engine lends to a system."""

    metrics: Metrics

    def share(
        self,
        role: Role,
        tickets: list[Ticket[F]],
        work: Callable[[list[Ticket[F]]], list[Result]],
    ) -> list[tuple[Ticket[F], Result]]:
        """One call for all of them; those for which it raises even alone are ended, and missing."""
        ...


class System(Protocol[F]):
    """A loaded model. ``version`` tells it from its successors, ``source`` is where it is from.

    ``begin`` and ``round`` are called in threads of their own, each by one thread alone.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def options(self) -> frozenset[Option]:
        """What it can be asked for."""
        ...

    @property
    def generators(self) -> Mapping[str, Any]:
        """Which generators can be chosen; the first one where a request names none."""
        ...

    @property
    def defaults(self) -> Wishes:
        """What holds where a request leaves it open."""
        ...

    @property
    def signature(self) -> ModelSignature:
        """Columns and parameters of `/invocations`."""
        ...

    def check(self, request: Request) -> None:
        """Refuse what it can never carry out.

        Raises:
            InterloomError: saying why.
        """
        ...

    def wishes(self, params: Mapping[str, Any]) -> Wishes:
        """Parameters of `/invocations`, but for the seed.

        Raises:
            InterloomError: naming one that is out of bounds.
        """
        ...

    def row(self, trajectory: Trajectory) -> dict[str, Any]:
        """The answer of `/invocations`."""
        ...

    def flight(self, order: Order) -> F:
        """A request that nothing was done for yet."""
        ...

    def begin(self, tickets: list[Ticket[F]], at: Sharing[F]) -> None:
        """What comes before the first picture, for requests that just came aboard."""
        ...

    def round(self, tickets: list[Ticket[F]], at: Sharing[F]) -> None:
        """The next picture of every request."""
        ...

    def usage(self, role: Role) -> Sequence[Usage]:
        """Tokens of each item of the role's last call; empty where nobody counts them."""
        ...

    def warm_up(self) -> None:
        """Call every part once, so that the first request need not wait for what is done once."""
        ...
