from __future__ import annotations

from collections import Counter

import pytest
from sample_trajectories import odd_ones, picture, trajectory

from interloom import dialogue
from interloom.construct import planner_data
from interloom.construct.planner_data import described, samples, truncated, whole

THREE = trajectory("r", ((False, True), (True,), (True,)))


def test_whole_plan():
    request, plan = whole(THREE)
    assert request == THREE.request and plan == THREE.plan


def test_truncation_gives_the_pictures_so_far_and_wants_the_rest():
    request, plan = truncated(THREE, 2)
    assert request.kind == "continuation" and request.text == THREE.request.text
    # The picture of a step is the accepted one, and its text stands beside it.
    assert request.images == (picture(2), picture(3))
    assert request.captions == ("about 1", "put part 2 in")
    assert THREE.plan is not None and plan.steps == THREE.plan.steps[2:]
    assert plan.steps[0].step_number == 3
    assert dialogue.plan_faults(plan, request) == []


def test_truncation_after_input_pictures_numbers_on():
    given = THREE.request.model_copy(
        update={"images": (picture(70),), "captions": ("was there",), "kind": "continuation"}
    )
    assert THREE.plan is not None
    later = [s.model_copy(update={"step_number": s.step_number + 1}) for s in THREE.plan.steps]
    traces = [t.model_copy(update={"step": s}) for t, s in zip(THREE.steps, later, strict=True)]
    moved = THREE.model_copy(
        update={
            "request": given,
            "plan": THREE.plan.model_copy(update={"steps": tuple(later)}),
            "steps": tuple(traces),
        }
    )
    request, plan = truncated(moved, 1)
    assert request.images == (picture(70), picture(2)) and request.captions[0] == "was there"
    assert plan.steps[0].step_number == 3
    assert dialogue.plan_faults(plan, request) == []


def test_descriptions_want_one_text_per_picture():
    request, plan = described(THREE, 2, "Say for each picture what was done.")
    assert request.kind == "text_response" and len(request.images) == 2
    assert [step.auxiliary_text for step in plan.steps] == ["about 1", "put part 2 in"]
    assert all(step.prompt is None and step.instruction is None for step in plan.steps)
    assert dialogue.plan_faults(plan, request) == []


def test_samples_are_different_sound_and_repeatable():
    made = list(samples(THREE, 9, seed=1))
    assert [source for source, *_ in made].count("request") == 1
    assert len(made) == 1 + 2 + 3
    assert len({request.id for _, request, _ in made}) == len(made)
    for _, request, plan in made:
        assert dialogue.plan_faults(plan, request) == []
        dialogue.parse_plan(dialogue.format_plan(plan))
    assert list(samples(THREE, 3, seed=1)) == list(samples(THREE, 3, seed=1))
    assert len(list(samples(THREE, 3, seed=1))) == 3


def test_odd_trajectories():
    scored, unplanned, stopped, unjudged, told = (list(samples(t, 9, 0)) for t in odd_ones())
    assert unplanned == []
    assert [source for source, *_ in told] == ["request"]
    assert [source for source, *_ in stopped] == ["request"], "no picture was made"
    assert [source for source, *_ in scored] == ["request", "described"]
    assert [source for source, *_ in unjudged] == ["request", "described"]


def test_build_counts_everything():
    tally: Counter[str] = Counter()
    copy = THREE.model_copy(update={"request": THREE.request.model_copy(update={"id": "copy"})})
    rows = list(planner_data.build([THREE, *odd_ones(), copy], 9, 0, tally))
    assert tally["trajectories"] == 7 and tally["lost.no-plan"] == 1
    # A copied trajectory gives nothing new, but for questions that are put in other words.
    assert tally["lost.duplicate"] >= 3
    assert tally["samples"] - tally["lost.duplicate"] == len(rows)
    assert sum(n for name, n in tally.items() if name.startswith("source.")) == len(rows)


@pytest.mark.parametrize("style", ["short", "full"])
def test_conversation_for_the_trainer(style: dialogue.Style):
    for source, request, plan in samples(THREE, 9, 0):
        made = planner_data.to_conversation(planner_data.planner_row(source, request, plan), style)
        marks = [p for m in made["prompt"] for p in m["content"] if p["type"] == "image"]
        assert len(marks) == len(made["images"]) == len(request.images)
        assert dialogue.parse_plan(made["completion"][0]["content"][0]["text"]) == plan
