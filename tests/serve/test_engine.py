"""Requests that come at any time share batches, and do not disturb each other."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from served import TEXT, Gate, Heard, engine, order, pipeline

from interloom import loop
from interloom.agents import ModelPlanner
from interloom.backends.transformers import ChatModel
from interloom.records import Failure, Plan, Request
from interloom.roles import Planner
from interloom.serve.engine import Busy, Closed
from interloom.serve.events import Began, Drawn, Judged, Planned, StepDone
from interloom.serve.pipeline import Pipeline


def wait_until(true) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_request_is_carried_out_as_the_loop_does():
    parts = pipeline(faults=0.3)
    asked = order(TEXT, id="a")
    heard = Heard(engine(parts), asked)
    end = heard.end()
    (expected,) = loop.run(
        [asked.request],
        parts.planner,
        parts.generators["renderer"],
        parts.critic,
        max_attempts=3,
        seed=1,
    )
    assert end.outcome == "completed" and end.trajectory == expected
    assert isinstance(heard.events[0], Planned) and heard.events[1] == Began(
        0, expected.steps[0].step
    )
    drawn = [event for event in heard.events if isinstance(event, Drawn)]
    judged = [event for event in heard.events if isinstance(event, Judged)]
    assert [(e.place, e.number) for e in drawn] == [(e.place, e.number) for e in judged]
    assert tuple(e.attempt for e in judged) == tuple(
        attempt for trace in expected.steps for attempt in trace.attempts
    )
    traces = [event.trace for event in heard.events if isinstance(event, StepDone)]
    assert tuple(traces) == expected.steps
    calls = heard.ticket.calls
    assert [call.role for call in calls[:3]] == ["planner", "generator", "critic"]
    assert all(call.began <= call.ended and call.batch == 1 for call in calls)


def test_newcomers_join_the_next_batches():
    parts = pipeline()
    gate = parts.generators["renderer"]
    assert isinstance(gate, Gate)
    gate.open.clear()
    at = engine(parts)
    first = Heard(at, order(id="first"))
    assert gate.called.wait(20)
    others = [Heard(at, order(id=str(n))) for n in range(5)]
    # They are planned while the first one's picture is drawn.
    wait_until(lambda: len(at._begun) == 5)
    gate.open.set()
    ends = [heard.end() for heard in (first, *others)]
    assert {end.outcome for end in ends} == {"completed"}
    assert sum(parts.planner.plans) == 6  # type: ignore[attr-defined]
    # The first request's second step shares its call with the others' first.
    assert gate.batches[:2] == [1, 6]
    assert parts.planner.critiques[:2] == [1, 6]  # type: ignore[attr-defined]


class SlowPlanner:
    """The teacher, who waits for ``open`` before every plan but the first."""

    name = "slow"

    def __init__(self, inner: Planner) -> None:
        self.inner = inner
        self.open = threading.Event()
        self.batches: list[int] = []

    def plan(self, requests: Sequence[Request]) -> list[Plan | Failure]:
        self.batches.append(len(requests))
        assert len(self.batches) == 1 or self.open.wait(30)
        return self.inner.plan(requests)


def test_pictures_do_not_wait_for_plans():
    parts = pipeline()
    slow = SlowPlanner(parts.planner)
    at = engine(replace(parts, planner=slow))
    gate = parts.generators["renderer"]
    assert isinstance(gate, Gate)
    gate.open.clear()
    first = Heard(at, order(id="first"))
    assert gate.called.wait(20)
    second = Heard(at, order(id="second"))
    wait_until(lambda: slow.batches == [1, 1])
    late = [Heard(at, order(id=str(n))) for n in range(3)]
    gate.open.set()
    assert first.end().outcome == "completed", "while the second one's plan is being made"
    assert slow.batches == [1, 1] and not second.events
    slow.open.set()
    assert [heard.end().outcome for heard in (second, *late)] == ["completed"] * 4
    assert slow.batches == [1, 1, 3], "who came meanwhile shares the next call"


def test_no_more_than_slots_are_in_flight():
    parts = pipeline()
    gate = parts.generators["renderer"]
    assert isinstance(gate, Gate)
    gate.open.clear()
    at = engine(parts, slots=2)
    heard = [Heard(at, order(id=str(n))) for n in range(6)]
    wait_until(lambda: len(at._aboard) == 2)
    time.sleep(0.05)
    assert len(at._aboard) == 2 and len(at._waiting) == 4
    gate.open.set()
    assert [one.end().outcome for one in heard] == ["completed"] * 6
    assert max(gate.batches) <= 2 and at.close() and not at._aboard


def test_overload_is_refused_and_the_queue_bounded():
    parts = pipeline()
    gate = parts.generators["renderer"]
    assert isinstance(gate, Gate)
    gate.open.clear()
    at = engine(parts, slots=1, queue=2)
    heard = [Heard(at, order(id="0"))]
    assert gate.called.wait(20)
    heard += [Heard(at, order(id=str(n))) for n in (1, 2)]
    with pytest.raises(Busy) as caught:
        Heard(at, order(id="3"))
    assert caught.value.retry_after >= 1
    heard[2].ticket.cancel()
    heard[2] = Heard(at, order(id="3"))  # a place in the queue is free again
    gate.open.set()
    assert [one.end().outcome for one in heard] == ["completed"] * 3


def test_called_off_requests_cost_no_further_call():
    parts = pipeline()
    gate = parts.generators["renderer"]
    assert isinstance(gate, Gate)
    gate.open.clear()
    at = engine(parts)
    gone = Heard(at, order(id="gone"))
    assert gate.called.wait(20)
    gone.ticket.cancel()
    gate.open.set()
    assert Heard(at, order(id="stays")).end().outcome == "completed"
    assert set(gate.batches) == {1}
    assert parts.planner.critiques[0] == 1  # type: ignore[attr-defined]
    assert len(gate.batches) == 3, "one picture for the one that went, two for the one that stayed"


def test_a_request_that_breaks_a_batch_fails_alone():
    parts = pipeline()
    gate = parts.generators["renderer"]
    assert isinstance(gate, Gate)
    direct = loop.DirectPlanner()
    parts = Pipeline("p", "1", "test", direct, None, {"renderer": gate}, max_attempts=1)  # type: ignore[attr-defined]
    at = engine(parts, gather=0.2)
    heard = [Heard(at, order(text)) for text in ("a red sun", "explode", "a blue sun")]
    ends = [one.end() for one in heard]
    assert [end.outcome for end in ends] == ["completed", "error", "completed"]
    assert ends[1].message == "the generator failed: RuntimeError" and gate.batches == [3, 1, 1, 1]
    assert Heard(at, order("a green sun")).end().outcome == "completed"


@pytest.mark.parametrize(
    ("changes", "outcome", "code"),
    [
        ({"text": "no such words at all"}, "failed", "planner_failed"),
        ({"image_budget": 1}, "incomplete", "image_budget"),
        ({}, "completed", ""),
    ],
)
def test_how_a_request_ends(changes: dict, outcome: str, code: str):
    end = Heard(engine(), order(**changes)).end()
    assert (end.outcome, end.code) == (outcome, code)


def test_tokens_of_a_chat_model_are_counted(tiny_vlm: Path):
    chat = ChatModel.from_pretrained(tiny_vlm, max_new_tokens=8)
    parts = replace(pipeline(), planner=ModelPlanner(chat, "short", retries=0))
    heard = Heard(engine(parts), order())
    assert heard.end().code == "planner_failed", "its weights are random"
    used = heard.ticket.usage()
    assert used.input_tokens > 20 and 0 < used.output_tokens <= 8


def test_long_plans_are_refused():
    end = Heard(engine(), order(max_steps=1)).end()
    assert (end.outcome, end.code) == ("failed", "plan_too_long")
    assert "2 steps, at most 1" in end.message and not end.trajectory.steps


def test_a_closed_engine_ends_what_it_has_and_takes_no_more():
    at = engine()
    heard = [Heard(at, order(id=str(n))) for n in range(4)]
    assert at.close()
    assert [one.end().outcome for one in heard] == ["completed"] * 4
    with pytest.raises(Closed):
        Heard(at, order())


def test_closing_without_patience_calls_off():
    parts = pipeline()
    gate = parts.generators["renderer"]
    assert isinstance(gate, Gate)
    gate.open.clear()
    at = engine(parts)
    heard = Heard(at, order())
    assert gate.called.wait(20)
    assert not at.close(patience=0.05)
    assert heard.end().outcome == "cancelled"
    gate.open.set()
    wait_until(lambda: not any(thread.is_alive() for thread in at._threads))
