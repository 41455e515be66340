from __future__ import annotations

import pytest
from sample_stories import PROMPT, direct, multi_step, picture, reflection

from interloom.adaptive.reasoner import Told
from interloom.adaptive.story import Mode, Story
from interloom.adaptive.trajectories import prompt_of, trajectory
from interloom.benchmarks.filled import run_figures
from interloom.benchmarks.published import last_image
from interloom.records import Request

REQUEST = Request(id="r", text="a red sun at the center", images=(picture(90),))


def told(story: Story, mode: Mode) -> Told:
    return Told(story.prompt, tuple(story.segments()), story, None, mode)


@pytest.mark.parametrize(
    ("story", "attempts"),
    [(direct(), [1]), (reflection(2), [3]), (multi_step(3), [1, 1, 1, 1])],
    ids=lambda value: value.mode if isinstance(value, Story) else "",
)
def test_every_picture_of_a_story_is_an_attempt_and_the_last_one_counts(
    story: Story, attempts: list[int]
):
    made = trajectory(REQUEST, told(story, story.mode), 7, "umm")
    assert [len(trace.attempts) for trace in made.steps] == attempts
    assert last_image(made) == story.images[-1]
    assert run_figures([made], 1.0)["images_per_request"] == len(story.images)
    assert [s.step_number for s in made.plan.steps] == list(range(2, 2 + len(attempts)))
    assert made.plan.reasoning == story.mode and made.failure is None


def test_verdicts_and_what_led_to_a_picture_are_told():
    first, second, third = (
        trajectory(REQUEST, told(reflection(2), "reflection"), 7, "u").steps[0].attempts
    )
    assert [a.critique.success for a in (first, second, third) if a.critique] == [
        False, False, True,
    ]  # fmt: skip
    assert first.prompt == REQUEST.text
    assert first.critique and second.prompt == first.critique.refine_prompt
    assert second.prompt == "add a red sun at the center"
    assert "— under-editing: the red sun is missing" in first.critique.reasoning
    planned = trajectory(REQUEST, told(multi_step(2), "multi_step"), 7, "u")
    assert [trace.step.prompt for trace in planned.steps][1:] == ["add part 1", "add part 2"]
    assert planned.steps[1].source == REQUEST.images[-1], "a plan begins from what was given"
    assert planned.steps[2].source == planned.steps[1].attempts[0].image


def test_a_stream_that_is_no_story_keeps_its_pictures():
    broken = Told(PROMPT, (picture(1), "<evaluate>who knows</evaluate> and", picture(2)), None,
                  "unexpected-text", "direct")  # fmt: skip
    made = trajectory(REQUEST, broken, 7, "u")
    assert last_image(made) == picture(2)
    assert all(a.critique is None for a in made.steps[0].attempts)
    nothing = trajectory(REQUEST, Told(PROMPT, (), None, "no-image", "direct"), 7, "u")
    assert nothing.steps == () and nothing.failure is not None


def test_a_request_is_asked_with_its_pictures():
    asked = prompt_of(REQUEST)
    assert (asked.instruction, asked.references) == (REQUEST.text, REQUEST.images)
