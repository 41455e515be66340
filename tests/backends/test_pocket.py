from __future__ import annotations

import random

import pytest
from pocket_renderer import RenderGenerator

from interloom import images, loop
from interloom.backends.pocket import PocketJudge, PocketTeacher, on_evaluation_side, scene_of
from interloom.errors import InterloomError
from interloom.pocket import knowledge
from interloom.pocket.language import describe_scene
from interloom.pocket.procedures import instantiate
from interloom.pocket.reasoning import example_scene, rule_instructions
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, Sprite, random_scene, scene_split
from interloom.records import Critique, Failure, Plan, Request, Score
from interloom.roles import CritiqueCase, JudgeCase

SUN, CUP = Sprite("red", "sun"), Sprite("blue", "cup")
START = Scene.of({0: SUN})
ADD = "add a blue cup at the center"


def png(scene: Scene) -> bytes:
    return images.to_png(render(scene, jitter_seed=5))


def case(after: Scene, used: str = ADD) -> CritiqueCase:
    return CritiqueCase(before=png(START), after=png(after), prompt=ADD, used_prompt=used)


def judge_of(teacher: PocketTeacher, one: CritiqueCase) -> Critique:
    (critique,) = teacher.critique([one])
    assert isinstance(critique, Critique)
    return critique


def test_plans_from_nothing_from_a_picture_and_for_text():
    teacher = PocketTeacher()
    text = describe_scene(Scene.of({0: SUN, 4: CUP}))
    create = Request(id="a", text=text)
    edit = Request(id="b", text=ADD, images=(png(Scene()), png(START)), kind="continuation")
    tell = Request(
        id="c", text="describe each picture", images=(png(START), png(Scene())),
        kind="text_response",
    )  # fmt: skip
    plans = teacher.plan([create, edit, tell])
    assert all(isinstance(plan, Plan) for plan in plans)
    made, edited, told = (plan.steps for plan in plans if isinstance(plan, Plan))
    assert [step.step_number for step in made] == [1, 2]
    assert [(step.step_number, step.prompt) for step in edited] == [(3, ADD)]
    assert [step.prompt for step in told] == [None, None]
    assert told[0].auxiliary_text == "a red sun by day"


def test_unknown_requests_are_failures():
    (answer,) = PocketTeacher().plan([Request(id="a", text="what is the capital of peru")])
    assert isinstance(answer, Failure) and answer.role == "planner"


def test_judgments_are_exact():
    teacher = PocketTeacher()
    good = judge_of(teacher, case(START.with_cell(4, CUP), used="please " + ADD))
    assert good.success and good.refine_prompt == "please " + ADD
    for wrong in (START, START.with_cell(4, Sprite("blue", "fish")), Scene.of({4: CUP})):
        bad = judge_of(teacher, case(wrong))
        assert not bad.success and bad.refine_prompt != ""
        # What it asks for instead is what the step wanted.
        (drawn,) = RenderGenerator().generate(
            [loop.GenerationJob(prompt=bad.refine_prompt, seed=1, source=png(START))]
        )
        assert isinstance(drawn, bytes) and scene_of(drawn) == START.with_cell(4, CUP)


def test_imperfections_come_at_their_rate_and_are_repeatable():
    rng = random.Random(0)
    cases = []
    for _ in range(60):
        scene = random_scene(rng, 2)
        picture = png(scene)
        text = describe_scene(scene)
        cases.append(CritiqueCase(before=None, after=picture, prompt=text, used_prompt=text))
    exact = PocketTeacher().critique(cases)
    sloppy = PocketTeacher(wrong_judgments=0.3).critique(cases)
    assert all(isinstance(answer, Critique) and answer.success for answer in exact)
    wrong = sum(isinstance(answer, Critique) and not answer.success for answer in sloppy)
    assert 8 <= wrong <= 30
    assert sloppy == PocketTeacher(wrong_judgments=0.3).critique(cases)


def test_correction_styles_are_checked():
    only = PocketTeacher(corrections={"insist": 1.0})
    assert "please look closely" in judge_of(only, case(START)).refine_prompt
    with pytest.raises(InterloomError, match=r"corrections: \['shout'\]"):
        PocketTeacher(corrections={"shout": 1.0})
    with pytest.raises(InterloomError, match="all weights are 0"):
        PocketTeacher(corrections={"plain": 0.0})


def test_scores():
    pictures = [START.with_cell(4, CUP), START, START.with_cell(4, Sprite("red", "cup"))]
    cases = [JudgeCase(before=png(START), after=png(scene), prompt=ADD) for scene in pictures]
    done, missed, half = PocketJudge().score(cases)
    assert isinstance(done, Score) and isinstance(missed, Score) and isinstance(half, Score)
    assert done.semantic == 10 and done.quality > 8
    assert missed.semantic == 0 and 0 < half.semantic < 10
    (failed,) = PocketJudge().score(
        [JudgeCase(before=None, after=png(START), prompt="how are you")]
    )
    assert isinstance(failed, Failure) and failed.role == "judge"


def test_sides():
    rng = random.Random(1)
    for _ in range(40):
        scene = random_scene(rng, 3)
        expected = scene_split(scene) == "evaluation"
        assert on_evaluation_side(describe_scene(scene), None) is expected
    riddle = knowledge.riddles("evaluation")[0]
    assert on_evaluation_side(f"{riddle.phrases[0]} at the center", None)
    procedure = knowledge.procedures("evaluation")[0]
    assert on_evaluation_side(instantiate(procedure, rng).requests[0], None)
    rule = knowledge.reasoning_rules("evaluation")[0]
    scene, cell = example_scene(rule, rng)
    (text, *_) = rule_instructions(rule, scene, cell)
    assert on_evaluation_side(text, png(scene))
    assert not on_evaluation_side("nothing the world knows", None)


def test_the_closed_loop_repairs_what_a_faulty_generator_spoils():
    rng = random.Random(2)
    scenes = [random_scene(rng, rng.randint(1, 4)) for _ in range(12)]
    requests = [Request(id=str(i), text=describe_scene(s)) for i, s in enumerate(scenes)]
    teacher = PocketTeacher()

    def right(attempts: int, faults: float) -> int:
        done = loop.run(
            requests, teacher, RenderGenerator(faults), teacher, max_attempts=attempts, seed=0
        )
        finals = [trajectory.steps[-1].accepted for trajectory in done]
        return sum(
            final is not None and scene_of(final.image) == scene
            for final, scene in zip(finals, scenes, strict=True)
        )

    assert right(1, 0.0) == 12
    assert right(1, 0.5) < 8
    assert right(6, 0.5) >= 10
