"""Small trajectories made by hand, for tests of what is done with them afterwards."""

from __future__ import annotations

from PIL import Image

from interloom import images
from interloom.records import (
    Attempt,
    Critique,
    Failure,
    Plan,
    Request,
    Score,
    Step,
    StepTrace,
    Trajectory,
)


def picture(number: int) -> bytes:
    """A 96×96 picture that is another one for every number below 16 million."""
    colour = (number % 256, number // 256 % 256, number // 65536 % 256)
    return images.to_png(Image.new("RGB", (96, 96), colour))


def attempt(number: int, *, success: bool | None = True, prompt: str = "add a sun") -> Attempt:
    critique = None
    if success is not None:
        refined = prompt if success else prompt + "!"
        critique = Critique(success=success, refine_prompt=refined, reasoning=f"seen {number}")
    return Attempt(
        prompt=prompt, seed=number, generator="strong", image=picture(number), critique=critique
    )


def trajectory(
    name: str = "r1",
    judgments: tuple[tuple[bool, ...], ...] = ((False, True), (True,), (True,)),
    first_image: int = 0,
) -> Trajectory:
    """A finished trajectory; ``judgments`` has one tuple per step with one entry per attempt."""
    steps = tuple(
        Step(
            step_number=number,
            step_name=f"part {number}",
            instruction=f"put part {number} in",
            prompt=f"add part {number} of {name}",
            auxiliary_text=f"about {number}" if number % 2 else None,
        )
        for number in range(1, len(judgments) + 1)
    )
    traces: list[StepTrace] = []
    source: bytes | None = None
    image = first_image
    for step, judged in zip(steps, judgments, strict=True):
        attempts: list[Attempt] = []
        prompt = step.prompt or ""
        for success in judged:
            image += 1
            attempts.append(attempt(image, success=success, prompt=prompt))
            prompt += "!"
        traces.append(StepTrace(step=step, source=source, attempts=tuple(attempts)))
        source = attempts[-1].image
    return Trajectory(
        request=Request(id=name, text=f"draw {name}", category="daily-life", subcategory="x"),
        plan=Plan(reasoning="part by part", steps=steps),
        steps=tuple(traces),
    )


def odd_ones() -> list[Trajectory]:
    """One of every unusual shape: failures, scores, input pictures, text alone."""
    whole = trajectory("scored", ((True,),), 900)
    (trace,) = whole.steps
    scored = trace.attempts[0].model_copy(update={"score": Score(semantic=7.5, quality=4)})
    whole = whole.model_copy(update={"steps": (trace.model_copy(update={"attempts": (scored,)}),)})
    no_plan = Trajectory(
        request=Request(id="unplanned", text="?"),
        plan=None,
        failure=Failure(role="planner", reason="empty-plan"),
    )
    broken = Failure(role="generator", reason="timeout")
    step = Step(step_number=2, step_name="", instruction="go on", prompt="add a moon")
    later = step.model_copy(update={"step_number": 3})
    started = Trajectory(
        request=Request(
            id="stopped", text="go on", images=(picture(77),), captions=("a",), kind="continuation"
        ),
        plan=Plan(steps=(step, later)),
        steps=(
            StepTrace(
                step=step,
                source=picture(77),
                attempts=(Attempt(prompt="add a moon", seed=3, failure=broken),),
            ),
        ),
        failure=broken,
    )
    unjudged = attempt(78, success=None).model_copy(
        update={"failure": Failure(role="critic", reason="unparsable")}
    )
    lonely = trajectory("unjudged", ((True,),), 950)
    lonely = lonely.model_copy(
        update={"steps": (lonely.steps[0].model_copy(update={"attempts": (unjudged,)}),)}
    )
    texts = tuple(
        Step(step_number=n, step_name="", instruction=None, prompt=None, auxiliary_text=f"text {n}")
        for n in (1, 2)
    )
    described = Trajectory(
        request=Request(
            id="told", text="tell me", images=(picture(1), picture(2)), kind="text_response"
        ),
        plan=Plan(reasoning="look", steps=texts),
        steps=tuple(StepTrace(step=step, source=None, attempts=()) for step in texts),
    )
    return [whole, no_plan, started, lonely, described]
