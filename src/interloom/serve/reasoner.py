"""The unified model as it is served: many stories are written on together, picture by picture.

A round writes every story up to the point where it is settled what the next picture is for (or that
there is none). So requests of any age share a call, and what was written is told as it comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from interloom.adaptive.reasoner import AdaptiveReasoner, Budget, Told, Writing
from interloom.adaptive.story import Prompt, marked
from interloom.adaptive.trajectories import prompt_of, traces, trajectory
from interloom.backends.ledger import Usage
from interloom.errors import InterloomError
from interloom.records import Failure, Request, Trajectory
from interloom.registered import signatures
from interloom.registered.answers import story_row
from interloom.seeding import derive_seed
from interloom.serve.events import (
    Began,
    Drawn,
    Event,
    Judged,
    Order,
    Role,
    StepDone,
    Wishes,
    Wrote,
)
from interloom.serve.system import Ending, Option, Sharing, Ticket

if TYPE_CHECKING:
    from mlflow.models import ModelSignature


@dataclass
class Unfolding:
    """A request whose story is being written.

    Args:
        name: of the model, as attempts carry it.
        longest: tokens that a prompt may have.
        told: steps that have begun, and attempts of the last of them, of which events were told.
    """

    order: Order
    name: str
    longest: int
    writing: Writing | None = None
    so_far: Told | None = None
    failure: Failure | None = None
    told: tuple[int, int] = (0, 0)
    done: int = 0

    @property
    def images(self) -> int:
        return self.writing.images if self.writing else 0

    def place(self) -> tuple[int, int]:
        return 0, self.images

    @property
    def too_long(self) -> bool:
        return self.writing is not None and len(self.writing.asked) > self.longest

    def ending(self) -> Ending | None:
        if self.too_long:
            assert self.writing is not None
            said = f"the request has {len(self.writing.asked)} tokens, at most {self.longest}"
            return Ending("failed", "input_too_long", f"{said} can be read")
        if self.writing is None or not self.writing.over:
            return None
        lost = self.trajectory().failure
        if lost is not None:
            return Ending("failed", f"{lost.role}_failed", f"{lost.role}: {lost.reason}")
        if self.writing.cut_short:
            return Ending("incomplete", "image_budget", "the image budget is used up")
        if not self.writing.ended:
            return Ending("incomplete", "max_output_tokens", "the story became too long")
        return Ending("completed")

    def _seed(self) -> int:
        return derive_seed(self.order.seed, self.order.request.id)

    def trajectory(self) -> Trajectory:
        request = self.order.request
        if self.so_far is None:
            return Trajectory(request=request, plan=None, failure=self.failure)
        made = trajectory(request, self.so_far, self._seed(), self.name)
        return made if self.failure is None else made.model_copy(update={"failure": self.failure})

    def news(self, reasoner: AdaptiveReasoner) -> Iterator[Event]:
        """What is told of what was written since the last time."""
        assert self.writing is not None
        self.so_far = reasoner.told(self.writing)
        over = self.writing.over
        found = traces(self.order.request, self.so_far.segments, self._seed(), self.name)
        for place, trace in enumerate(found):
            begun, tries = self.told
            if place == begun:
                yield Began(place, trace.step)
                begun, tries = place + 1, 0
            if place == begun - 1:
                for number, attempt in enumerate(trace.attempts[tries:], tries):
                    yield Drawn(place, number, attempt)
                    yield Judged(place, number, attempt)
                self.told = begun, len(trace.attempts)
            ended = place < len(found) - 1 or over
            if ended and place == self.done and trace.attempts:
                self.done += 1
                yield StepDone(place, trace)
        violation = self.so_far.violation if over else None
        yield Wrote(self.so_far.mode, marked(self.so_far.segments), violation)


@dataclass(frozen=True, eq=False)
class Reasoner:
    """An adaptive reasoner, loaded: a ``System``.

    Args:
        usual: the budget of a request that names none.
    """

    name: str
    version: str
    source: str
    reasoner: AdaptiveReasoner
    usual: Budget = field(default_factory=Budget)
    options: frozenset[Option] = frozenset({"reluctance"})
    generators: Mapping[str, Any] = field(default_factory=dict)
    _usage: list[Usage] = field(default_factory=list)

    @property
    def defaults(self) -> Wishes:
        return Wishes(image_budget=self.usual.images, reluctance=self.usual.reluctance)

    @property
    def signature(self) -> ModelSignature:
        return signatures.reasoner()

    def check(self, request: Request) -> None:
        if request.kind == "text_response":
            raise InterloomError("a unified model makes pictures: kind text_response is not its")
        try:
            prompt_of(request)
        except ValidationError as error:
            said = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise InterloomError(f"the text cannot be asked: {said}") from None

    def wishes(self, params: Mapping[str, Any]) -> Wishes:
        most, price = params["image_budget"], params["reluctance"]
        if most < 0 or not 0 <= price < float("inf"):
            raise InterloomError("image_budget and reluctance must be 0 or more")
        return Wishes(image_budget=most or None, reluctance=price)

    def row(self, trajectory: Trajectory) -> dict[str, Any]:
        return story_row(trajectory)

    def flight(self, order: Order) -> Unfolding:
        unified = self.reasoner.unified
        longest = unified.context - len(unified.stream.form(unified.grid))  # room for a picture
        return Unfolding(order, self.reasoner.name, longest)

    def begin(self, tickets: list[Ticket[Unfolding]], at: Sharing[Unfolding]) -> None:
        """Nothing: a model's tokens are read and written by one thread alone."""

    def round(self, tickets: list[Ticket[Unfolding]], at: Sharing[Unfolding]) -> None:
        """Read the requests that are new, in one call, and write all stories on, in another."""
        fresh = [ticket for ticket in tickets if ticket.flight.writing is None]
        for ticket, writing in at.share("encoder", fresh, self._read):
            ticket.flight.writing = writing
            if not ticket.flight.too_long:
                _tell(ticket, self.reasoner)
        going = [t for t in tickets if t.flight.writing and not t.flight.too_long]
        going = [ticket for ticket in going if not ticket.cancelled]
        before = {ticket: ticket.flight.images for ticket in going}
        for ticket, _ in at.share("reasoner", going, self._write):
            at.metrics.images.inc(ticket.flight.images - before[ticket])
            _tell(ticket, self.reasoner)

    def _read(self, tickets: list[Ticket[Unfolding]]) -> list[Writing]:
        orders = [ticket.flight.order for ticket in tickets]
        budgets = [Budget(order.image_budget, order.reluctance) for order in orders]
        made = self.reasoner.begin([prompt_of(order.request) for order in orders], budgets)
        self._usage[:] = [Usage(len(writing.asked), 0, 0) for writing in made]
        return made

    def _write(self, tickets: list[Ticket[Unfolding]]) -> list[None]:
        stories = [ticket.flight.writing for ticket in tickets]
        writings = [story for story in stories if story is not None]
        before = [len(story.written) for story in writings]
        self.reasoner.go_on(writings)
        self._usage[:] = [
            Usage(0, len(story.written) - length, 0)
            for story, length in zip(writings, before, strict=True)
        ]
        return [None] * len(tickets)

    def usage(self, role: Role) -> Sequence[Usage]:
        """What a story goes on from is read once, with its request."""
        return tuple(self._usage)

    def warm_up(self) -> None:
        asked = Prompt(id="warm-up", instruction="a red circle at the top left")
        self.reasoner.reason([asked], [Budget(images=1)])


def _tell(ticket: Ticket[Unfolding], reasoner: AdaptiveReasoner) -> None:
    for event in ticket.flight.news(reasoner):
        ticket.tell(event)
