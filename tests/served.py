"""A pipeline for tests: the exact teacher plans and judges, a real if simple generator draws."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocket_renderer import RenderGenerator

from interloom.adaptive.reasoner import AdaptiveReasoner, Writing
from interloom.backends.pocket import PocketTeacher
from interloom.records import Failure, Request
from interloom.roles import CritiqueCase, GenerationJob
from interloom.serve.engine import Engine
from interloom.serve.events import Ended, Event, Order
from interloom.serve.metrics import Metrics
from interloom.serve.pipeline import Pipeline
from interloom.serve.system import System, Ticket
from interloom.settings.file import Settings, load_settings
from interloom.settings.operation import ServingSettings

ROOT = Path(__file__).parents[1]
TEXT = "a red circle at the top left, a blue cup at the center"


class Gate:
    """A generator that waits for ``open`` before every call and notes its batches."""

    def __init__(self, inner: RenderGenerator) -> None:
        import threading

        self.inner, self.name = inner, inner.name
        self.batches: list[int] = []
        self.open = threading.Event()
        self.called = threading.Event()
        self.open.set()

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        self.batches.append(len(jobs))
        self.called.set()
        assert self.open.wait(30)
        if any("explode" in job.prompt for job in jobs):
            raise RuntimeError(f"cannot draw {jobs[0].prompt}")
        return self.inner.generate(jobs)


class Gated(AdaptiveReasoner):
    """A reasoner that waits for ``open`` before it writes on, and notes its batches."""

    def __init__(self, inner: AdaptiveReasoner) -> None:
        import threading

        super().__init__(inner.unified, max_tokens=inner.max_tokens)
        self.open, self.called = threading.Event(), threading.Event()
        self.batches: list[int] = []

    def go_on(self, stories: Sequence[Writing], *, seed: int = 0) -> None:
        self.batches.append(len(stories))
        self.called.set()
        assert self.open.wait(30)
        if any("explode" in story.prompt.instruction for story in stories):
            raise RuntimeError("boom")
        super().go_on(stories, seed=seed)


@dataclass
class Counted:
    """The teacher, with the sizes of its batches."""

    teacher: PocketTeacher = field(default_factory=PocketTeacher)
    name: str = "teacher"
    plans: list[int] = field(default_factory=list)
    critiques: list[int] = field(default_factory=list)

    def plan(self, requests: Sequence[Request]):
        self.plans.append(len(requests))
        return self.teacher.plan(requests)

    def critique(self, cases: Sequence[CritiqueCase]):
        self.critiques.append(len(cases))
        return self.teacher.critique(cases)


def pipeline(faults: float = 0.0, version: str = "1", generator: str = "renderer") -> Pipeline:
    """Its generator errs in a share ``faults`` of the pictures."""
    oracle = Counted()
    return Pipeline(
        name="pocket",
        version=version,
        source="test",
        planner=oracle,
        critic=oracle,
        generators={generator: Gate(RenderGenerator(faults, generator))},
        max_attempts=5,
    )


def settings(**serving: object) -> Settings:
    """The shipped params with changes of the section ``serving``."""
    shipped = load_settings(ROOT / "params.yaml")
    changed = ServingSettings.model_validate({**shipped.serving.model_dump(), **serving})
    return shipped.model_copy(update={"serving": changed})


def order(text: str = TEXT, **changes) -> Order:
    values = {
        "generator": "renderer", "max_attempts": 3, "seed": 1, "image_budget": 40, "max_steps": 10,
    }  # fmt: skip
    return Order(Request(id=changes.pop("id", text), text=text), **{**values, **changes})


def engine(served: System[Any] | None = None, **changes) -> Engine[Any]:
    values = {"slots": 8, "queue": 8, **changes}
    return Engine(served or pipeline(), Metrics(), **values)


class Heard:
    """What was told of one request."""

    def __init__(self, at: Engine[Any], asked: Order) -> None:
        self._queue: queue.Queue[Event] = queue.Queue()
        self.events: list[Event] = []
        self.ticket: Ticket[Any] = at.submit(asked, self._queue.put)

    def end(self) -> Ended:
        while not self.events or not isinstance(self.events[-1], Ended):
            self.events.append(self._queue.get(timeout=30))
        last = self.events[-1]
        assert isinstance(last, Ended)
        return last
