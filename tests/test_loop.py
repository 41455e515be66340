"""The loop's rules, with roles that follow a script."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from PIL import Image

from interloom import images, loop
from interloom.records import Critique, Failure, Plan, Request, Step, Trajectory
from interloom.roles import CritiqueCase, GenerationJob
from interloom.seeding import derive_seed


def tinted(number: int) -> bytes:
    colour = (number % 256, number // 256 % 256, number // 65536 % 256)
    return images.to_png(Image.new("RGB", (4, 4), colour))


class ScriptPlanner:
    """Plans as many steps as the request's text says; ``"fail"`` fails, ``"late"`` fails once."""

    name = "script"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.late = True

    def plan(self, requests: Sequence[Request]) -> list[Plan | Failure]:
        self.batches.append(len(requests))
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Plan | Failure:
        if request.text == "fail":
            return Failure(role="planner", reason="no answer")
        if request.text == "late" and self.late:
            self.late = False
            return Failure(role="planner", reason="busy")
        if request.kind == "text_response":
            steps = [
                Step(step_number=i + 1, instruction=None, prompt=None, auxiliary_text="words")
                for i, _ in enumerate(request.images)
            ]
            return Plan(steps=tuple(steps))
        first = len(request.images) + 1
        count = int(request.text) if request.text.isdigit() else 1
        steps = [
            Step(step_number=first + i, instruction=f"do {i}", prompt=f"{request.id}/{i}")
            for i in range(count)
        ]
        return Plan(steps=tuple(steps))


class ScriptGenerator:
    """A picture per job; jobs whose prompt contains a word of ``broken`` fail."""

    name = "script"

    def __init__(self, broken: str = "none") -> None:
        self.broken = broken
        self.batches: list[list[GenerationJob]] = []

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        self.batches.append(list(jobs))
        return [
            Failure(role="generator", reason="refused")
            if self.broken in job.prompt
            else tinted(job.seed)
            for job in jobs
        ]


class ScriptCritic:
    """Passes a step after ``fails`` refinements; ``broken`` gives no answer at all."""

    name = "script"

    def __init__(self, fails: int = 0, broken: bool = False) -> None:
        self.fails = fails
        self.broken = broken
        self.batches: list[list[CritiqueCase]] = []

    def critique(self, cases: Sequence[CritiqueCase]) -> list[Critique | Failure]:
        self.batches.append(list(cases))
        if self.broken:
            return [Failure(role="critic", reason="unparsable") for _ in cases]
        return [self._one(case) for case in cases]

    def _one(self, case: CritiqueCase) -> Critique:
        tries = case.used_prompt.count("!")
        passed = tries >= self.fails
        return Critique(success=passed, refine_prompt=case.used_prompt + ("" if passed else "!"))


def carry_out(request: Request, *, max_attempts: int = 5, **roles) -> Trajectory:
    planner = roles.get("planner", ScriptPlanner())
    generator = roles.get("generator", ScriptGenerator())
    critic = roles.get("critic", ScriptCritic())
    return loop.run([request], planner, generator, critic, max_attempts=max_attempts, seed=0)[0]


def test_steps_edit_the_last_accepted_picture():
    critic = ScriptCritic(fails=2)
    done = carry_out(Request(id="a", text="3"), critic=critic)
    assert [len(trace.attempts) for trace in done.steps] == [3, 3, 3]
    assert done.steps[0].source is None
    for before, after in zip(done.steps, done.steps[1:], strict=False):
        assert before.accepted is not None and after.source == before.attempts[-1].image
    prompts = [attempt.prompt for attempt in done.steps[1].attempts]
    assert prompts == ["a/1", "a/1!", "a/1!!"]
    # The critic is asked about the picture before the step, the plan's prompt and the used prompt.
    second = critic.batches[4][0]
    assert (second.prompt, second.used_prompt) == ("a/1", "a/1!")
    assert second.before == done.steps[1].source and second.after == done.steps[1].attempts[1].image


def test_attempts_end_at_the_limit_with_the_last_picture():
    done = carry_out(Request(id="a", text="2"), max_attempts=2, critic=ScriptCritic(fails=9))
    assert [len(trace.attempts) for trace in done.steps] == [2, 2]
    assert done.steps[1].source == done.steps[0].attempts[-1].image
    assert done.failure is None


def test_continuation_edits_the_last_input_picture_and_numbers_on():
    request = Request(id="a", text="1", images=(tinted(1), tinted(2)), kind="continuation")
    done = carry_out(request)
    assert done.steps[0].source == tinted(2) and done.steps[0].step.step_number == 3


def test_text_response_makes_no_picture():
    generator = ScriptGenerator()
    request = Request(id="a", text="say", images=(tinted(1), tinted(2)), kind="text_response")
    done = carry_out(request, generator=generator)
    assert [trace.step.auxiliary_text for trace in done.steps] == ["words", "words"]
    assert generator.batches == [] and done.failure is None


def test_generator_alone_is_the_same_loop():
    request = Request(id="a", text="a red sun")
    done = carry_out(request, planner=loop.DirectPlanner(), critic=None)
    (attempt,) = done.steps[0].attempts
    assert attempt.prompt == "a red sun" and attempt.critique is None and attempt.image is not None


def test_lockstep_batches_stay_full():
    requests = [Request(id=str(i), text=str(1 + i % 3)) for i in range(20)]
    generator, planner, critic = ScriptGenerator(), ScriptPlanner(), ScriptCritic()
    seen: list[str] = []
    done = loop.run(
        requests, planner, generator, critic, max_attempts=2, seed=0, slots=4,
        on_progress=lambda trajectory: seen.append(trajectory.request.id),
    )  # fmt: skip
    assert [t.request.id for t in done] == [str(i) for i in range(20)]
    assert sorted(seen) == sorted(r.id for r in requests)
    sizes = [len(batch) for batch in generator.batches]
    assert sum(sizes) == sum(1 + i % 3 for i in range(20))
    # Only the tail, when no request waits any more, runs below the number of slots.
    assert set(sizes[:-3]) == {4}
    assert sizes == [len(batch) for batch in critic.batches]


def test_seeds_depend_on_request_step_and_attempt_alone():
    requests = [Request(id=str(i), text="2") for i in range(5)]

    def seeds(slots: int, order: int) -> dict[str, list[int]]:
        done = loop.run(
            requests[::order], ScriptPlanner(), ScriptGenerator(), ScriptCritic(fails=1),
            max_attempts=3, seed=7, slots=slots,
        )  # fmt: skip
        return {t.request.id: [a.seed for trace in t.steps for a in trace.attempts] for t in done}

    assert seeds(2, 1) == seeds(5, -1)
    assert seeds(2, 1)["3"][0] == derive_seed(7, "3", 1, 0)
    assert len({seed for row in seeds(2, 1).values() for seed in row}) == 5 * 2 * 2


def test_failures_are_retried_and_then_recorded():
    planner = ScriptPlanner()
    late, failed = loop.run(
        [Request(id="a", text="late"), Request(id="b", text="fail")],
        planner, ScriptGenerator(), ScriptCritic(), max_attempts=2, seed=0, retries=2,
    )  # fmt: skip
    assert late.failure is None and len(late.steps) == 1
    assert planner.batches == [2, 2, 1], "only what failed is asked again"
    assert failed.plan is None and failed.steps == ()
    assert failed.failure == Failure(role="planner", reason="no answer")


def test_generator_failure_without_any_picture_ends_the_trajectory():
    done = carry_out(Request(id="a", text="3"), generator=ScriptGenerator(broken="a/1"))
    assert done.failure == Failure(role="generator", reason="refused")
    assert [len(trace.attempts) for trace in done.steps] == [1, 1]
    (attempt,) = done.steps[1].attempts
    assert attempt.image is None and attempt.critique is None and attempt.score is None
    assert attempt.failure == done.failure


def test_generator_failure_after_a_picture_keeps_that_picture():
    done = carry_out(
        Request(id="a", text="2"),
        generator=ScriptGenerator(broken="/0!"),
        critic=ScriptCritic(fails=1),
    )
    first = done.steps[0]
    assert [attempt.failure is None for attempt in first.attempts] == [True, False]
    assert done.failure is None and done.steps[1].source == first.attempts[0].image


def test_critic_failure_is_no_judgment():
    done = carry_out(Request(id="a", text="2"), critic=ScriptCritic(broken=True))
    assert done.failure is None and len(done.steps) == 2
    for trace in done.steps:
        (attempt,) = trace.attempts
        assert attempt.critique is None and attempt.failure is not None
        assert attempt.failure.role == "critic" and trace.accepted == attempt


@pytest.mark.parametrize("wrong", [{"max_attempts": 0}, {"slots": 0}, {"retries": -1}])
def test_wrong_limits_are_refused(wrong: dict[str, int]):
    with pytest.raises(ValueError, match="must be at least"):
        loop.run(
            [], ScriptPlanner(), ScriptGenerator(), None, **({"max_attempts": 1, "seed": 0} | wrong)
        )


def test_no_requests():
    assert loop.run([], ScriptPlanner(), ScriptGenerator(), None, max_attempts=1, seed=0) == []


def fly(budget: int | None, fails: int, steps: str = "3") -> loop.Flight:
    flight = loop.Flight(Request(id="a", text=steps), max_attempts=3, seed=0, image_budget=budget)
    loop.begin([flight], ScriptPlanner(), 0)
    while flight.step is not None:
        loop.judge([flight], loop.draw([flight], ScriptGenerator(), 0), ScriptCritic(fails), 0)
    return flight


@pytest.mark.parametrize(
    ("budget", "attempts"),
    [(None, [3, 3, 3]), (9, [3, 3, 3]), (6, [3, 2, 1]), (3, [1, 1, 1]), (2, [1, 1])],
)
def test_an_image_budget_takes_tries_first_and_steps_last(budget: int | None, attempts: list[int]):
    flight = fly(budget, fails=9)
    assert [len(trace.attempts) for trace in flight.trajectory().steps] == attempts
    assert flight.unfinished == (len(attempts) < 3) and flight.failure is None


def test_an_image_budget_that_suffices_changes_nothing():
    assert fly(9, fails=1).trajectory() == fly(None, fails=1).trajectory()
