"""What is ordered of the engine, and what it tells on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interloom.backends.ledger import Usage
from interloom.records import Attempt, Plan, Request, StepTrace, Trajectory

Role = Literal["planner", "generator", "critic"]
Outcome = Literal["completed", "incomplete", "failed", "error", "cancelled"]


@dataclass(frozen=True)
class Order:
    """A request and what it may cost; ``generator`` is a name in ``Pipeline.generators``."""

    request: Request
    generator: str
    max_attempts: int
    seed: int
    image_budget: int


@dataclass(frozen=True)
class Planned:
    """The plan is there."""

    plan: Plan


@dataclass(frozen=True)
class Began:
    """The step at ``place`` (from 0) gets its first picture next."""

    place: int


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
class Ended:
    """The last event; ``code`` and ``message`` say why it is not ``completed``."""

    trajectory: Trajectory
    outcome: Outcome
    code: str = ""
    message: str = ""


Event = Planned | Began | Drawn | Judged | StepDone | Ended


@dataclass(frozen=True)
class Call:
    """One request's part in a call that ``batch`` requests shared."""

    role: Role
    began: int
    """Nanoseconds since the epoch."""
    ended: int
    batch: int
    place: int
    """Step, from 0; of no meaning for the planner."""
    number: int
    """Attempt, from 0."""
    usage: Usage
