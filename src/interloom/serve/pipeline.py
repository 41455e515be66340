"""The agents as they are served: a planner, generators to choose from, a critic.

The rounds are those of :mod:`interloom.loop`. Drawing and judging take turns on purpose: two halves
of the requests, one drawn while the other is judged, would need twice as many calls, and a call's
time hardly depends on its size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interloom import loop
from interloom.agents import ModelCritic, ModelPlanner
from interloom.backends.ledger import Usage
from interloom.errors import InterloomError
from interloom.records import Attempt, Request, Trajectory
from interloom.registered import signatures
from interloom.registered.answers import answer_row
from interloom.roles import Critic, CritiqueCase, GenerationJob, Generator, Planner
from interloom.serve.events import Began, Drawn, Judged, Order, Planned, Role, StepDone, Wishes
from interloom.serve.system import Ending, Option, Sharing, Ticket

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

WARM_UP = "a red circle at the top left"
GENERATOR_RETRIES = 1
MAX_ATTEMPTS = 20
"""The highest T_max that can be asked for."""


@dataclass
class Journey(loop.Flight):
    """A request on its way through the loop.

    Args:
        max_steps: a longer plan is refused.
        told: steps of which ``StepDone`` was told.
    """

    max_steps: int = 0
    told: int = 0

    def place(self) -> tuple[int, int]:
        return len(self.done), len(self.attempts)

    @property
    def too_long(self) -> bool:
        return self.plan is not None and len(self.plan.steps) > self.max_steps

    def ending(self) -> Ending | None:
        if self.failure is not None:
            role = self.failure.role
            return Ending("failed", f"{role}_failed", f"{role}: {self.failure.reason}")
        assert self.plan is not None
        if self.too_long:
            said = f"the plan has {len(self.plan.steps)} steps, at most {self.max_steps}"
            return Ending("failed", "plan_too_long", f"{said} are carried out")
        if self.step is not None:
            return None
        if self.unfinished:
            return Ending("incomplete", "image_budget", "the image budget is used up")
        return Ending("completed")


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A planner, generators and a critic, loaded: a ``System``."""

    name: str
    version: str
    source: str
    planner: Planner
    critic: Critic | None
    generators: Mapping[str, Generator]
    max_attempts: int
    options: frozenset[Option] = frozenset({"generator", "t_max"})

    @property
    def defaults(self) -> Wishes:
        return Wishes(generator=next(iter(self.generators)), t_max=self.max_attempts)

    @property
    def signature(self) -> ModelSignature:
        return signatures.pipeline()

    def check(self, request: Request) -> None:
        """There is nothing that a planner might not plan."""

    def wishes(self, params: Mapping[str, Any]) -> Wishes:
        attempts = params["max_attempts"]
        if not 1 <= attempts <= MAX_ATTEMPTS:
            raise InterloomError(f"max_attempts must be 1 to {MAX_ATTEMPTS}")
        return Wishes(t_max=attempts)

    def row(self, trajectory: Trajectory) -> dict[str, Any]:
        return answer_row(trajectory)

    def flight(self, order: Order) -> Journey:
        return Journey(
            order.request,
            order.max_attempts,
            order.seed,
            order.image_budget,
            max_steps=order.max_steps,
        )

    def begin(self, tickets: list[Ticket[Journey]], at: Sharing[Journey]) -> None:
        """One planner call."""

        def plan(group: list[Ticket[Journey]]) -> list[None]:
            loop.begin([ticket.flight for ticket in group], self.planner, 0)
            return [None] * len(group)

        for ticket, _ in at.share("planner", tickets, plan):
            flight = ticket.flight
            if flight.plan is None:
                at.metrics.failures.labels("planner").inc()
            elif not flight.too_long:
                ticket.tell(Planned(flight.plan))
                _tell_steps(ticket)

    def round(self, tickets: list[Ticket[Journey]], at: Sharing[Journey]) -> None:
        """A generator call for each generator that is wanted, then one critic call."""
        drawn: dict[Ticket[Journey], Attempt] = {}
        for name, generator in self.generators.items():
            group = [ticket for ticket in tickets if ticket.order.generator == name]
            drawn |= at.share(
                "generator",
                group,
                lambda some, made_by=generator: loop.draw(
                    [ticket.flight for ticket in some], made_by, GENERATOR_RETRIES
                ),
            )
        places = {ticket: ticket.flight.place() for ticket in drawn}
        for ticket, attempt in drawn.items():
            at.metrics.images.inc(attempt.image is not None)
            ticket.tell(Drawn(*places[ticket], attempt))

        def judge(some: list[Ticket[Journey]]) -> list[Attempt]:
            flights = [ticket.flight for ticket in some]
            return loop.judge(flights, [drawn[ticket] for ticket in some], self.critic, 0)

        staying = [ticket for ticket in drawn if not ticket.cancelled]
        if self.critic is None:
            judged = list(zip(staying, judge(staying), strict=True))
        else:
            judged = at.share("critic", staying, judge)
        for ticket, attempt in judged:
            if attempt.failure is not None:
                at.metrics.failures.labels(attempt.failure.role).inc()
            ticket.tell(Judged(*places[ticket], attempt))
            _tell_steps(ticket)

    def usage(self, role: Role) -> Sequence[Usage]:
        agent = {"planner": self.planner, "critic": self.critic}.get(role)
        return agent.usage if isinstance(agent, ModelPlanner | ModelCritic) else ()

    def warm_up(self) -> None:
        request = Request(id="warm-up", text=WARM_UP)
        self.planner.plan([request])
        for generator in self.generators.values():
            (picture,) = generator.generate([GenerationJob(prompt=WARM_UP, seed=0)])
            if isinstance(picture, bytes) and self.critic is not None:
                case = CritiqueCase(before=None, after=picture, prompt=WARM_UP, used_prompt=WARM_UP)
                self.critic.critique([case])


def _tell_steps(ticket: Ticket[Journey]) -> None:
    """Tell of steps that are done now, and of the one that begins."""
    flight = ticket.flight
    for place in range(flight.told, len(flight.done)):
        ticket.tell(StepDone(place, flight.done[place]))
    flight.told = len(flight.done)
    if flight.step is not None and not flight.attempts:
        ticket.tell(Began(flight.told, flight.step))
