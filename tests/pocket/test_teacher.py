from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from pocket.strategies import edits_of_scenes, scenes

from interloom import dialogue
from interloom.pocket.knowledge import procedures
from interloom.pocket.language import describe_edit, describe_scene, parse
from interloom.pocket.meaning import understand
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, Sprite, apply
from interloom.pocket.teacher import (
    Imperfection,
    compare,
    critique,
    plan,
)
from interloom.pocket.verifier import judge, read

SUN, CUP = Sprite("red", "sun"), Sprite("blue", "cup")
SCENE = Scene.of({0: SUN, 4: CUP})


def _carry_out(prompts: list[str], scene: Scene | None) -> Scene:
    state = scene
    for prompt in prompts:
        goal = understand(prompt, state).goal
        state = goal.nearest(state or Scene())
    assert state is not None
    return state


@settings(max_examples=40)
@given(scenes)
def test_a_plan_for_a_scene_leads_to_it(scene):
    made = plan(describe_scene(scene))
    assert [step.step_number for step in made.steps] == list(range(1, len(made.steps) + 1))
    assert len(made.steps) == max(1, scene.count)
    assert _carry_out([step.prompt or "" for step in made.steps], None) == scene
    assert dialogue.parse_plan(dialogue.format_plan(made)) == made


@settings(max_examples=40)
@given(edits_of_scenes())
def test_a_plan_for_an_edit_is_that_edit(case):
    scene, edit = case
    made = plan(describe_edit(edit, scene), scene)
    assert len(made.steps) == 1
    assert _carry_out([made.steps[0].prompt or ""], scene) == apply(scene, edit)


@pytest.mark.parametrize("procedure", procedures(), ids=lambda procedure: procedure.id)
def test_a_procedure_is_planned_and_can_be_continued(procedure):
    request = procedure.requests[0]
    for name, values in procedure.slots:
        request = request.replace(f"{{{name}}}", values[0]).replace(" a orange", " an orange")
    whole = plan(request)
    assert len(whole.steps) == len(procedure.steps)
    final = _carry_out([step.prompt or "" for step in whole.steps], None)
    assert understand(request).goal.satisfied(final)


def test_plans_are_worded_as_configured_and_mean_the_same():
    said = "a red sun at the top left, a blue cup at the center; remove the red sun at the top left"
    usual = plan(said, imperfection=Imperfection(wording="usual"), rng=random.Random(0))
    prompts = [step.prompt or "" for step in usual.steps]
    assert prompts[1:] == ["put a blue cup at the center", "take away the red sun at the top left"]
    assert _carry_out(prompts, None) == Scene.of({4: CUP})
    assert [step.instruction for step in usual.steps] == [s.instruction for s in plan(said).steps]


def test_a_picture_that_changes_is_drawn_as_it_was_first():
    said = "a red sun at the top left, a blue cup at the center; remove the red sun at the top left"
    prompts = [step.prompt or "" for step in plan(said).steps]
    assert prompts[0] == "a red sun at the top left"
    assert prompts[-1] == "remove the red sun at the top left"
    assert _carry_out(prompts[:-1], None) == SCENE
    assert _carry_out(prompts, None) == Scene.of({4: CUP})


@settings(max_examples=40)
@given(edits_of_scenes())
def test_a_failed_step_is_judged_false_and_the_correction_asks_for_the_same(case):
    scene, edit = case
    prompt = describe_edit(edit, scene)
    answer = critique(scene, read(render(scene)), prompt, prompt, rng=random.Random(0))
    assert not answer.success
    assert parse(answer.refine_prompt, scene).satisfied(apply(scene, edit))
    assert dialogue.parse_critique(dialogue.format_critique(answer)) == answer


@settings(max_examples=40)
@given(edits_of_scenes())
def test_a_done_step_is_judged_true_and_keeps_its_prompt(case):
    scene, edit = case
    prompt = describe_edit(edit, scene)
    answer = critique(scene, read(render(apply(scene, edit), 3)), prompt, "as used")
    assert answer.success
    assert answer.refine_prompt == "as used"
    assert "unwanted" not in answer.reasoning and answer.reasoning.endswith("all as wanted.")


@pytest.mark.parametrize(
    ("style", "asked"),
    [
        ("plain", "make the red sun at the top left green"),
        ("state", "the top left must be a green sun; the center must be a blue cup"),
    ],
)
def test_a_correction_by_state_names_damage_too(style: str, asked: str):
    prompt = "make the red sun at the top left green"
    after = read(render(SCENE.with_cell(4, None)))
    made = critique(
        SCENE, after, prompt, prompt, Imperfection(styles={style: 1.0}), random.Random(0)
    )
    assert not made.success and made.refine_prompt == asked


def test_reasoning_names_what_is_missing_and_what_is_unwanted():
    goal = understand("make the red sun at the top left green", SCENE).goal
    after = SCENE.with_cell(4, None)
    text = compare(SCENE, judge(render(after), goal))
    assert "top left: red sun to red sun same wanted green sun no" in text
    assert "center: blue cup to nothing different unwanted" in text
    assert "bottom left: nothing to nothing same;" in text


def test_imperfection_is_as_configured():
    prompt = "remove the red sun at the top left"
    picture = read(render(SCENE))
    rng = random.Random(0)
    wrong = Imperfection(wrong_judgment=0.3, styles={"again": 1.0})
    answers = [critique(SCENE, picture, prompt, prompt, wrong, rng) for _ in range(300)]
    share = sum(answer.success for answer in answers) / len(answers)
    assert 0.22 < share < 0.38
    assert {a.refine_prompt for a in answers if not a.success} == {f"try again: {prompt}"}
