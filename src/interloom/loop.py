"""Planner → Generator → Critic in lockstep (InterleaveThinker §3.1).

``I_i^t = Generator(r_i^t, I_{i-1})`` with ``r_i^0 = p_i``, then
``(j_i^t, r_i^{t+1}, R_i^t) = Critic(I_{i-1}, I_i^t, p_i, r_i^t)``, until ``j`` is true or
``t = T_max``. Many requests go through this at once: every round makes one planner call for the
requests that just came in, one generator call and one critic call for all requests in flight.
A request that is done makes room for the next one, so that batches stay full to the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from interloom.records import (
    Attempt,
    Critique,
    Failure,
    Plan,
    Request,
    Step,
    StepTrace,
    Trajectory,
)
from interloom.roles import Critic, CritiqueCase, GenerationJob, Generator, Planner
from interloom.seeding import derive_seed

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Observer = Callable[[str, float, float], None]
"""Told of every batch that a request was in: the request's id, and when (``time.time``) the batch
began and ended. In order: its plan, then each attempt's picture and, if there is one, judgment."""
AHEAD = 4
"""So many times ``slots`` a request may be ahead of one that is still in flight, as finished
trajectories wait for those before them, with all their pictures."""


class DirectPlanner:
    """The plan of "a generator alone": one step that passes the request's text on as it is."""

    name = "direct"

    def plan(self, requests: Sequence[Request]) -> list[Plan | Failure]:
        return [
            Plan(
                steps=(
                    Step(
                        step_number=len(request.images) + 1,
                        instruction=request.text,
                        prompt=request.text,
                    ),
                )
            )
            for request in requests
        ]


def with_retries(
    call: Callable[[Sequence[Item]], list[Answer | Failure]], items: Sequence[Item], retries: int
) -> list[Answer | Failure]:
    """One batched call, then up to ``retries`` more for the items that failed, but not for good."""
    answers = call(items) if items else []
    for _ in range(retries):
        failed = [i for i, a in enumerate(answers) if isinstance(a, Failure) and not a.final]
        if not failed:
            break
        again = call([items[place] for place in failed])
        for place, answer in zip(failed, again, strict=True):
            answers[place] = answer
    assert len(answers) == len(items), "a role must give one answer per item"
    return answers


@dataclass
class Flight:
    """One request on its way through the loop.

    Args:
        max_attempts: ``T_max``, the images that one step may cost.
        seed: image seeds are derived from it, the request's id, the step and the attempt.
        image_budget: images that the whole request may cost. It is kept by trying less often, so
            that every step still gets an image, and then by leaving out the last steps.
    """

    request: Request
    max_attempts: int
    seed: int
    image_budget: int | None = None
    plan: Plan | None = None
    done: list[StepTrace] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    prompt: str = ""
    source: bytes | None = None
    failure: Failure | None = None
    images: int = 0

    @property
    def step(self) -> Step | None:
        """The step in progress; ``None`` when the request is finished."""
        if self.plan is None or self.failure is not None or len(self.done) == len(self.plan.steps):
            return None
        step = self.plan.steps[len(self.done)]
        return None if self._spent and step.prompt is not None and not self.attempts else step

    @property
    def _spent(self) -> bool:
        return self.image_budget is not None and self.images >= self.image_budget

    @property
    def unfinished(self) -> bool:
        """Whether the image budget ended the plan before its last step."""
        assert self.plan is not None
        return self.failure is None and len(self.done) < len(self.plan.steps)

    def begin(self, plan: Plan | Failure) -> None:
        """Take off with a plan."""
        if isinstance(plan, Failure):
            self.failure = plan
            return
        self.plan = plan
        if self.request.kind != "text_response" and self.request.images:
            self.source = self.request.images[-1]
        self._enter()

    def _enter(self) -> None:
        """Go to the next step that makes a picture; steps without a prompt are text alone."""
        while (step := self.step) is not None:
            if step.prompt is not None:
                self.prompt = step.prompt
                return
            self.done.append(StepTrace(step=step, source=None, attempts=()))

    def job(self) -> GenerationJob:
        """The next picture to make."""
        assert self.step is not None
        attempt = len(self.attempts)
        seed = derive_seed(self.seed, self.request.id, self.step.step_number, attempt)
        return GenerationJob(prompt=self.prompt, seed=seed, source=self.source)

    def case(self, image: bytes) -> CritiqueCase:
        """What the critic is asked about a picture of the step in progress."""
        assert self.step is not None and self.step.prompt is not None
        return CritiqueCase(
            before=self.source, after=image, prompt=self.step.prompt, used_prompt=self.prompt
        )

    def _may_try_again(self) -> bool:
        if len(self.attempts) >= self.max_attempts:
            return False
        if self.image_budget is None:
            return True
        assert self.plan is not None
        later = self.plan.steps[len(self.done) + 1 :]
        return self.images + sum(step.prompt is not None for step in later) < self.image_budget

    def record(self, attempt: Attempt) -> None:
        """Keep the attempt, and decide: once more, next step, or end."""
        self.attempts.append(attempt)
        self.images += 1
        critique = attempt.critique
        if critique is not None and not critique.success and self._may_try_again():
            self.prompt = critique.refine_prompt
            return
        # A passed step, the last attempt, no critic at all, or a call that failed for good: what
        # has been made so far is the step's result.
        step = self.step
        assert step is not None
        trace = StepTrace(step=step, source=self.source, attempts=tuple(self.attempts))
        self.done.append(trace)
        self.attempts = []
        accepted = trace.accepted
        if accepted is None:
            self.failure = attempt.failure
            return
        self.source = accepted.image
        self._enter()

    def trajectory(self) -> Trajectory:
        """What has come of the request so far."""
        return Trajectory(
            request=self.request, plan=self.plan, steps=tuple(self.done), failure=self.failure
        )


def _unobserved(request: str, began: float, ended: float) -> None:
    pass


def _ask(
    call: Callable[[Sequence[Item]], list[Answer | Failure]],
    flights: Sequence[Flight],
    items: Sequence[Item],
    retries: int,
    observe: Observer,
) -> list[Answer | Failure]:
    """One answer per flight's item; whoever observes is told how long it took."""
    began = time.time()
    answers = with_retries(call, items, retries)
    ended = time.time()
    for flight in flights:
        observe(flight.request.id, began, ended)
    return answers


def begin(
    flights: Sequence[Flight], planner: Planner, retries: int, observe: Observer = _unobserved
) -> None:
    """One planner call for requests that just came in."""
    asked = [flight.request for flight in flights]
    plans = _ask(planner.plan, flights, asked, retries, observe)
    for flight, plan in zip(flights, plans, strict=True):
        flight.begin(plan)


def draw(
    flights: Sequence[Flight], generator: Generator, retries: int, observe: Observer = _unobserved
) -> list[Attempt]:
    """One generator call: the next attempt of every flight, not judged yet."""
    jobs = [flight.job() for flight in flights]
    pictures = _ask(generator.generate, flights, jobs, retries, observe)
    return [
        Attempt(
            prompt=job.prompt,
            seed=job.seed,
            generator=generator.name,
            image=None if isinstance(picture, Failure) else picture,
            failure=picture if isinstance(picture, Failure) else None,
        )
        for job, picture in zip(jobs, pictures, strict=True)
    ]


def judge(
    flights: Sequence[Flight],
    drawn: Sequence[Attempt],
    critic: Critic | None,
    retries: int,
    observe: Observer = _unobserved,
) -> list[Attempt]:
    """One critic call about what was drawn; every flight goes on from its judged attempt."""
    cases = {
        place: flight.case(attempt.image)
        for place, (flight, attempt) in enumerate(zip(flights, drawn, strict=True))
        if attempt.image is not None
    }
    answers: dict[int, Critique | Failure] = {}
    if critic is not None:
        shown = [flights[place] for place in cases]
        said = _ask(critic.critique, shown, list(cases.values()), retries, observe)
        answers = dict(zip(cases, said, strict=True))
    judged = [_judged(attempt, answers.get(place)) for place, attempt in enumerate(drawn)]
    for flight, attempt in zip(flights, judged, strict=True):
        flight.record(attempt)
    return judged


def _judged(attempt: Attempt, answer: Critique | Failure | None) -> Attempt:
    match answer:
        case Critique():
            return attempt.model_copy(update={"critique": answer})
        case Failure():
            return attempt.model_copy(update={"failure": answer})
        case None:
            return attempt


def stream(
    requests: Iterable[Request],
    planner: Planner,
    generator: Generator,
    critic: Critic | None,
    *,
    max_attempts: int,
    seed: int,
    slots: int = 64,
    retries: int = 1,
    observe: Observer = _unobserved,
) -> Iterator[tuple[int, Trajectory]]:
    """Carry requests out and give each trajectory with its request's place, as it is finished.

    Args:
        critic: without one, every first image is accepted.
        max_attempts: ``T_max``, the images that one step may cost; 5 in the paper.
        seed: image seeds are derived from it, the request's id, the step and the attempt.
        slots: requests in flight, and so the size of the batches.
        retries: extra calls for an item that failed. A generator that still fails ends the step
            with the last image it made, or the trajectory when there is none; a critic that still
            fails ends the step with the image unjudged. Both stay in the record as ``Failure``.
        observe: is told when the calls for each request were made.
    """
    if max_attempts < 1 or slots < 1 or retries < 0:
        raise ValueError(
            f"max_attempts {max_attempts} and slots {slots} must be at least 1, retries {retries} 0"
        )
    waiting = enumerate(requests)
    flights: list[tuple[int, Flight]] = []
    taken = 0
    while True:
        oldest = min((place for place, _ in flights), default=taken)
        room = min(slots - len(flights), oldest + AHEAD * slots - taken)
        fresh = [
            (place, Flight(request, max_attempts, seed)) for place, request in islice(waiting, room)
        ]
        taken += len(fresh)
        begin([flight for _, flight in fresh], planner, retries, observe)
        flights += fresh
        active = [flight for _, flight in flights if flight.step is not None]
        if not fresh and not active:
            return
        if active:
            judge(active, draw(active, generator, retries, observe), critic, retries, observe)
        yield from ((place, f.trajectory()) for place, f in flights if f.step is None)
        flights = [(place, flight) for place, flight in flights if flight.step is not None]


def run(
    requests: Sequence[Request],
    planner: Planner,
    generator: Generator,
    critic: Critic | None,
    *,
    max_attempts: int,
    seed: int,
    slots: int = 64,
    retries: int = 1,
    on_progress: Callable[[Trajectory], None] | None = None,
) -> list[Trajectory]:
    """``stream`` to the end, in the order of the requests; ``on_progress`` sees each as it ends."""
    found: dict[int, Trajectory] = {}
    for place, trajectory in stream(
        requests,
        planner,
        generator,
        critic,
        max_attempts=max_attempts,
        seed=seed,
        slots=slots,
        retries=retries,
    ):
        found[place] = trajectory
        if on_progress is not None:
            on_progress(trajectory)
    return [found[place] for place in range(len(found))]
