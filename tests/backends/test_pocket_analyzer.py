from __future__ import annotations

from interloom import images
from interloom.backends.pocket_analyzer import PocketAnalyzer
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, Sprite
from interloom.records import Evaluation, Failure, Reflection
from interloom.roles import DraftCase, FailedCase, ReflectionCase, StepCase

SUN, CUP = Sprite("red", "sun"), Sprite("blue", "cup")


def png(things: dict, sky: str = "day") -> bytes:
    return images.to_png(render(Scene.of(things, sky)))


TEXT = "a red sun at the top left, a blue cup at the center, a red sun at the bottom left"
CASE = DraftCase(instruction=TEXT, image=png({0: SUN}))
LOST = DraftCase(instruction="make it nicer", image=png({0: SUN}))
ANALYZER = PocketAnalyzer()
SCORED = ANALYZER.evaluate([CASE])[0]
assert isinstance(SCORED, Evaluation)
FAILED = FailedCase(**dict(CASE), evaluation=SCORED)


def test_what_means_nothing_is_a_failure_and_no_score():
    good, lost = ANALYZER.evaluate([CASE, LOST])
    assert isinstance(good, Evaluation) and good.instruction == 2  # 1 of 3: 1 + round(4/3)
    assert isinstance(lost, Failure) and lost.role == "analyzer" and lost.final


def test_reflection_diagnosis_and_plan():
    reflection = ANALYZER.reflect([FAILED])[0]
    assert isinstance(reflection, Reflection) and reflection.kind == "under-editing"
    assert ANALYZER.diagnose([FAILED]) == ["instruction_too_complex"]
    assert ANALYZER.decompose([FAILED]) == [
        (
            "a red sun at the top left, a blue cup at the center",
            "add a red sun at the bottom left; keep everything else",
        )
    ]
    rated = ReflectionCase(**dict(FAILED), reflection=reflection)
    assert ANALYZER.rate_reflections([rated]) == [1.0]
    vain = Reflection(failure_analysis="no idea", improvement_plan="try again")
    assert ANALYZER.rate_reflections([rated.model_copy(update={"reflection": vain})]) == [0.0]


def test_steps_are_rated_from_the_picture_as_it_is():
    step = StepCase(instruction=TEXT, current=CASE.image, step="add a blue cup at the center")
    done = step.model_copy(update={"current": png({0: SUN, 4: CUP})})
    start = step.model_copy(update={"current": None, "step": "a red sun at the top left"})
    assert ANALYZER.rate_steps([step, done, start]) == [1.0, 0.0, 1.0]


def test_the_last_reference_is_what_was_edited():
    case = DraftCase(
        instruction="add the red sun of picture 1 to picture 2 at the top left",
        references=(png({8: SUN}), png({4: CUP})),
        image=png({0: SUN, 4: CUP}),
    )
    found = ANALYZER.evaluate([case])[0]
    assert isinstance(found, Evaluation) and found.instruction == found.consistency == 5
    assert found.reasoning == "red sun at the top left, shows red sun, yes"
