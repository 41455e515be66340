"""What is ordered of the engine, and what it tells on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interloom.adaptive.story import Mode
from interloom.backends.ledger import Usage
from interloom.records import Attempt, Plan, Request, Step, StepTrace, Trajectory

Role = Literal["planner", "generator", "critic", "encoder", "reasoner"]
"""Whose call it is: the agents' three; of a unified model, reading the request and writing on."""
Outcome = Literal["completed", "incomplete", "failed", "error", "cancelled"]


@dataclass(frozen=True)
class Wishes:
    """How a request is to be carried out; ``None`` leaves it to the server."""

    generator: str | None = None
    t_max: int | None = None
    image_budget: int | None = None
    reluctance: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Order:
    """A request and what it may cost.

    Args:
        image_budget: pictures in all.
        max_steps: a longer plan is refused.
        generator: a name in ``System.generators``; empty where there is no choice.
        max_attempts: pictures of one step; 0 where the system decides that itself.
        reluctance: the price of every further picture, in nats.
    """

    request: Request
    seed: int
    image_budget: int
    max_steps: int
    generator: str = ""
    max_attempts: int = 0
    reluctance: float = 0.0


@dataclass(frozen=True)
class Planned:
    """The plan is there."""

    plan: Plan


@dataclass(frozen=True)
class Began:
    """The step at ``place`` (from 0) gets its first picture next."""

    place: int
    step: Step


@dataclass(frozen=True)
class Drawn:
    """Attempt ``number`` (from 0) at a step is there, not judged yet."""

    place: int
    number: int
    attempt: Attempt


@dataclass(frozen=True)
class Judged:
    """The same attempt with the critic's verdict."""

    place: int
    number: int
    attempt: Attempt


@dataclass(frozen=True)
class StepDone:
    """A step is done, with all its attempts."""

    place: int
    trace: StepTrace


@dataclass(frozen=True)
class Wrote:
    """All that a unified model has written so far, as text with marks, and what that shows.

    ``violation`` says of a text that has ended why it is no story.
    """

    mode: Mode
    story: str
    violation: str | None


@dataclass(frozen=True)
class Ended:
    """The last event; ``code`` and ``message`` say why it is not ``completed``."""

    trajectory: Trajectory
    outcome: Outcome
    code: str = ""
    message: str = ""


Event = Planned | Began | Drawn | Judged | StepDone | Wrote | Ended


@dataclass(frozen=True)
class Call:
    """One request's part in a call that ``batch`` requests shared."""

    role: Role
    began: int
    """Nanoseconds since the epoch."""
    ended: int
    batch: int
    place: int
    """Step, from 0; of no meaning for the planner and for a unified model."""
    number: int
    """Attempt, from 0; of a unified model, picture."""
    usage: Usage
