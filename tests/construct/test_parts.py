"""Neither a slow answer nor a model elsewhere keeps others from working."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from interloom import loop
from interloom.construct.parts import Placed, Tally, apart, taking_turns
from interloom.records import Critique, Failure, Plan, Request, Step
from interloom.roles import CritiqueCase, GenerationJob

PATIENCE = 20
REQUESTS = [Request(id=f"r{n}", text=f"draw {n}") for n in range(12)]


class Roles:
    """Two steps for every request; the second picture of a step passes."""

    name = "roles"

    def plan(self, requests: Sequence[Request]) -> list[Plan | Failure]:
        return [
            Plan(
                steps=tuple(
                    Step(step_number=n, instruction="do", prompt=f"{request.id} part {n}")
                    for n in (1, 2)
                )
            )
            for request in requests
        ]

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        return [f"{job.prompt} {job.seed}".encode() for job in jobs]

    def critique(self, cases: Sequence[CritiqueCase]) -> list[Critique | Failure]:
        return [
            Critique(success="better" in c.used_prompt, refine_prompt=f"{c.used_prompt} better")
            for c in cases
        ]


def stream_of(roles: Roles, observe: loop.Observer):
    def stream(requests: Sequence[Request], slots: int) -> Iterator[Placed]:
        return loop.stream(
            requests, roles, roles, roles, max_attempts=5, seed=1, slots=slots, observe=observe
        )

    return stream


def nothing(request: str, began: float, ended: float) -> None: ...


EXPECTED = loop.run(REQUESTS, Roles(), Roles(), Roles(), max_attempts=5, seed=1)


def test_all_ways_make_the_same_in_the_same_order():
    stream = stream_of(Roles(), nothing)
    assert list(apart(REQUESTS, stream, 3)) == EXPECTED
    assert list(taking_turns(REQUESTS, stream, 3)) == EXPECTED
    assert list(taking_turns(REQUESTS[:1], stream, 3)) == EXPECTED[:1]


def test_a_slow_request_does_not_hold_up_the_others():
    finished = threading.Semaphore(0)

    class Slow(Roles):
        def plan(self, requests: Sequence[Request]) -> list[Plan | Failure]:
            if requests[0].id == "r0":
                for _ in REQUESTS[1:8]:
                    assert finished.acquire(timeout=PATIENCE)
            return super().plan(requests)

        def critique(self, cases: Sequence[CritiqueCase]) -> list[Critique | Failure]:
            answers = super().critique(cases)
            for case, answer in zip(cases, answers, strict=True):
                if isinstance(answer, Critique) and answer.success and "part 2" in case.prompt:
                    finished.release()
            return answers

    assert list(apart(REQUESTS, stream_of(Slow(), nothing), 2)) == EXPECTED


def test_the_generator_draws_while_a_judgment_is_waited_for():
    drawing = threading.Event()
    waited: list[bool] = []

    class Elsewhere(Roles):
        def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
            drawing.set()
            return super().generate(jobs)

        def critique(self, cases: Sequence[CritiqueCase]) -> list[Critique | Failure]:
            if len(waited) < 4:
                drawing.clear()
                waited.append(drawing.wait(PATIENCE))
            return super().critique(cases)

    # Requests of one half are judged while those of the other half are drawn.
    assert list(taking_turns(REQUESTS, stream_of(Elsewhere(), nothing), 2)) == EXPECTED
    assert all(waited[:2])


def test_every_call_of_a_request_is_timed():
    tally = Tally()
    made = list(apart(REQUESTS, stream_of(Roles(), tally.observe), 4))
    for trajectory in made:
        calls = tally.times[trajectory.request.id]
        assert len(calls) == 1 + 2 * sum(len(trace.attempts) for trace in trajectory.steps)
        flat = [moment for call in calls for moment in call]
        assert flat == sorted(flat)


def test_what_is_finished_early_never_goes_far_ahead():
    begun: list[str] = []

    class Stubborn(Roles):
        """Needs all attempts for the first request."""

        def plan(self, requests: Sequence[Request]) -> list[Plan | Failure]:
            begun.extend(request.id for request in requests)
            return super().plan(requests)

        def critique(self, cases: Sequence[CritiqueCase]) -> list[Critique | Failure]:
            return [
                Critique(success=not c.prompt.startswith("r0 "), refine_prompt=c.used_prompt)
                for c in cases
            ]

    many = [Request(id=f"r{n}", text="x") for n in range(60)]
    stubborn = Stubborn()
    furthest = 0
    for place, _ in loop.stream(
        many, stubborn, stubborn, stubborn, max_attempts=20, seed=1, slots=2
    ):
        if place == 0:
            break
        furthest = max(furthest, place)
    assert furthest < loop.AHEAD * 2
    assert len(begun) < 60
