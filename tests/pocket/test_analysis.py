from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interloom.pocket import analysis
from interloom.pocket.goal import Goal
from interloom.pocket.language import KEEP, describe_scene, parse
from interloom.pocket.meaning import understand
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, Sprite, random_scene
from interloom.pocket.verifier import judge

SUN, CUP, FISH = Sprite("red", "sun"), Sprite("blue", "cup"), Sprite("green", "fish")
WANTED = "a red sun at the top left, a blue cup at the center"
GOAL = parse(WANTED)
FULL = Scene.of({0: SUN, 4: CUP})

scenes = st.builds(
    lambda seed, count: random_scene(random.Random(seed), count),
    st.integers(0, 10_000), st.integers(0, 6),
)  # fmt: skip


def verdict(seen: Scene, goal: Goal = GOAL):
    return judge(render(seen), goal)


def test_an_evaluation_says_what_is_seen_and_is_scored():
    fine = analysis.evaluate(WANTED, GOAL, verdict(FULL))
    assert fine.reasoning == (
        "red sun at the top left, shows red sun, yes; blue cup at the center, shows blue cup, yes"
    )
    assert (fine.instruction, fine.consistency, fine.quality, fine.knowledge) == (5, 5, 5, 5)
    bad = analysis.evaluate(WANTED, GOAL, verdict(Scene.of({0: SUN, 8: FISH}, "night")))
    assert bad.reasoning == (
        "red sun at the top left, shows red sun, yes; blue cup at the center, shows nothing, no; "
        "nothing at the bottom right, shows green fish, no; background day, shows night, no"
    )
    assert bad.instruction < 5 and bad.consistency < 5


def test_what_is_asked_is_told_in_the_order_in_which_it_was_said():
    text = "a blue cup at the center, a red sun at the top left"
    told = analysis.evaluate(text, parse(text), verdict(FULL, parse(text)))
    assert told.reasoning.startswith("blue cup at the center, shows blue cup, yes; red sun at")
    text = "place a blue cup in the center; add a red sun at the top left"
    goal = parse(text, Scene())
    assert analysis.evaluate(text, goal, verdict(FULL, goal)).reasoning.startswith("blue cup")


@pytest.mark.parametrize(
    ("seen", "kind", "fault"),
    [
        ({4: CUP}, "under-editing", "the red sun is missing at the top left"),
        ({0: FISH, 4: CUP}, "targeting error", "the top left shows green fish, not a red sun"),
        (
            {0: SUN, 4: CUP, 8: FISH}, "over-editing",
            "the bottom right should be empty and shows green fish",
        ),
    ],
)  # fmt: skip
def test_reflections_name_kind_and_fault(seen, kind, fault):
    said = analysis.reflect(WANTED, GOAL, verdict(Scene.of(seen)))
    assert (said.kind, said.failure_analysis) == (kind, fault)


def test_knowledge_that_was_missed_is_a_logic_flaw():
    assert (
        analysis.reflect(WANTED, GOAL, verdict(Scene()), needs_knowledge=True).kind == "logic flaw"
    )


@given(scenes, scenes)
@settings(max_examples=60)
def test_the_plan_of_a_reflection_leads_to_what_was_wanted(seen: Scene, wanted: Scene):
    found = analysis.checks(describe_scene(wanted), None, wanted, analysis.seen_names(seen))
    plan = analysis.mending(found)
    assert plan.endswith(KEEP)
    assert parse(plan, seen).nearest(seen) == wanted
    if seen != wanted:
        assert analysis.step_validity(plan, seen, wanted) == 1.0


@given(scenes.filter(lambda scene: scene.count >= 3))
@settings(max_examples=40)
def test_plans_from_nothing_begin_with_two_things_and_end_with_the_background(target: Scene):
    goal, text = Goal(scenes=(target,)), describe_scene(target, rng=random.Random(target.count))
    steps = analysis.sub_steps(text, goal)
    assert text.startswith(steps[0]), "in the order in which it is said"
    scene: Scene | None = None
    for number, step in enumerate(steps):
        if step.startswith("change the background"):
            assert number == len(steps) - 1
        assert analysis.step_validity(step, scene, target) == 1.0
        scene = parse(step, scene).nearest(scene or Scene())
    assert scene == target
    assert len(steps) == target.count - 1 + (target.background != "day")


@given(scenes.filter(lambda scene: scene.count > 0), scenes)
@settings(max_examples=60)
def test_plans_of_edits_are_atomic_and_moves_and_exchanges_two_steps(before: Scene, after: Scene):
    """Whatever the words: these are no orders, so the edits that are left at the end are taken."""
    steps = analysis.sub_steps("make it so", Goal(scenes=(after,), before=before))
    scene = before
    for step in steps:
        changed = parse(step, scene).nearest(scene)
        assert len(scene.difference(changed)) <= 1
        assert not step.startswith(("move", "swap")) and step.endswith(KEEP)
        scene = changed
    assert scene == after


def test_orders_are_carried_out_as_they_are_said_and_the_background_last():
    text = (
        "change the background to night; paint the red sun at the top left blue; "
        "swap the blue sun at the top left and the blue cup at the center; "
        "the blue sun at the center belongs at the bottom left"
    )
    goal = parse(text, FULL)
    assert [step.removesuffix(f"; {KEEP}") for step in analysis.sub_steps(text, goal)] == [
        "replace the red sun at the top left with a blue cup",
        "remove the blue cup at the center",
        "add a blue sun at the bottom left",
        "change the background to night",
    ], "six steps are too many, so the edits that are left at the end"
    short, goal = text.rpartition("; ")[0], parse(text.rpartition("; ")[0], FULL)
    assert [step.removesuffix(f"; {KEEP}") for step in analysis.sub_steps(short, goal)] == [
        "make the red sun at the top left blue",
        "replace the blue sun at the top left with a blue cup",
        "replace the blue cup at the center with a blue sun",
        "change the background to night",
    ]


def test_what_nobody_can_read_is_asked_for_as_a_state():
    unclear = analysis.Check(4, "red sun", analysis.UNCLEAR)
    assert unclear.order == "the center must be a red sun"
    assert analysis.Check(4, "nothing", analysis.UNCLEAR).order == "the center must be empty"
    assert parse(unclear.order, FULL).nearest(FULL) == FULL.with_cell(4, SUN)


@pytest.mark.parametrize(
    ("text", "validity"),
    [
        ("add a red sun at the top left", 1.0),
        ("add a green fish at the bottom right", 0.0),
        ("add a red sun at the top left; add a green fish at the bottom right", 0.0),
        ("add a red sun at the top left; add a blue cup at the center", 1.0),
        ("remove the blue cup at the center", 0.0),
        ("hello", 0.0),
        (KEEP, 0.0),
    ],
)
def test_step_validity_by_hand(text, validity):
    assert analysis.step_validity(text, Scene(), FULL) == validity


def test_half_a_good_step_is_worth_less():
    text = "; ".join(
        f"add a {s} at the {p}"
        for s, p in ((SUN, "top left"), (CUP, "center"), (FISH, "bottom right"))
    )
    assert analysis.step_validity(text, None, FULL) == pytest.approx(1 / 3)


def test_analysis_validity_is_the_agreement_of_faults():
    seen = verdict(Scene.of({8: FISH}))
    true = analysis.faults(WANTED, GOAL, seen)
    assert len(true) == 3
    assert analysis.analysis_validity("; ".join(true), true) == 1.0
    assert analysis.analysis_validity(true[0], true) == 0.5  # 2·1/(1 + 3)
    assert analysis.analysis_validity("something else", true) == 0.0
    assert analysis.analysis_validity("", true) == 0.0


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("remove the red sun at the top left", "generator_limit"),
        (
            "remove the red sun at the top left; add a green tree at the middle left",
            "instruction_too_complex",
        ),
    ],
)
def test_root_causes(text, cause):
    goal = understand(text, FULL).goal
    assert analysis.root_cause(goal, "", success=False) == cause
    assert analysis.root_cause(goal, "the sun is red.", success=False) == "missing_knowledge"
    assert analysis.root_cause(goal, "", success=True) == "none"


def test_captions_are_as_complex_as_they_are_long():
    for count, cause in ((1, "generator_limit"), (3, "instruction_too_complex")):
        scene = replace(random_scene(random.Random(1), count), background="day")
        goal = parse(describe_scene(scene))
        assert analysis.root_cause(goal, "", success=False) == cause
