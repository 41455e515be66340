from __future__ import annotations

from sample_stories import PROMPT

from interloom import images
from interloom.adaptive.judging import intermediate_texts, judge
from interloom.adaptive.reasoner import Told
from interloom.adaptive.rewards import total_reward
from interloom.adaptive.story import evaluation_text, reflection_text
from interloom.backends.pocket_analyzer import PocketAnalyzer
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, Sprite
from interloom.records import Evaluation, Failure, Reflection, Thresholds

STRICT = Thresholds(instruction=5, consistency=5, quality=3, knowledge=3)


def drawn(things: dict) -> bytes:
    return images.to_png(render(Scene.of(things)))


RIGHT, EMPTY = drawn({4: Sprite("red", "sun")}), drawn({})
E = evaluation_text(Evaluation(instruction=1, consistency=5, quality=5, knowledge=1))
R = reflection_text(
    Reflection(
        kind="under-editing",
        failure_analysis="the red sun is missing at the center",
        improvement_plan="add a red sun at the center; keep everything else",
    )
)
VAIN = reflection_text(Reflection(failure_analysis="no idea", improvement_plan="try again"))


def told(*segments) -> Told:
    return Told(PROMPT, segments, None, "broken", "direct")


def judged(*trajectories: Told):
    return judge(trajectories, PocketAnalyzer(), STRICT, retries=0)


def test_pictures_and_texts_are_judged():
    good, vain, none = judged(
        told(EMPTY, E + R, RIGHT, E), told(EMPTY, E + VAIN, EMPTY, E), told("nothing")
    )
    assert good.success and good.images == 2 and good.reflections == (1.0,)
    assert not vain.success and vain.reflections == (0.0,)
    assert none.final is None and none.images == 0 and none.reflections == ()
    assert total_reward(good) == 0.9  # .7 + .2: it is no story
    assert good.form == 1.0


def test_sub_steps_are_rated_from_the_references_on():
    steps = (
        "<step_1>a red sun at the center</step>", "<step_2>a red sun at the center</step>",
    )  # fmt: skip
    (one,) = judged(told(EMPTY, E + steps[0], RIGHT, E + steps[1], RIGHT, E))
    assert one.steps == (1.0, 0.0), "the second one changes nothing any more"
    cases = intermediate_texts(told(RIGHT, E + steps[0], RIGHT, E)).steps
    assert [case.current for case in cases if case] == [None], "not from the first try"


def test_texts_of_broken_trajectories_are_rated_too():
    half = R.replace("<improvement_plan>", "<plan>")
    trajectories = [
        told(EMPTY, E + half, RIGHT, E),  # half a reflection
        told(EMPTY, "<evaluate>?</evaluate>" + R, RIGHT, E),  # of what nobody evaluated
        told(EMPTY, E + "<step_1></step>", RIGHT, E),  # an empty step
        told(R + E, EMPTY),  # before any picture
    ]
    values = [one.reflections + one.steps for one in judged(*trajectories)]
    assert values == [(0.0,)] * 4


def test_failed_calls_stay_failures_and_are_repeated():
    class Flaky(PocketAnalyzer):
        calls = 0

        def evaluate(self, cases):
            self.calls += 1
            lost = Failure(role="analyzer", reason="overloaded")
            return [lost] * len(cases) if self.calls < 3 else super().evaluate(cases)

    (lost,) = judge([told(RIGHT, E)], Flaky(), STRICT, retries=1)
    assert lost.unjudged and not lost.success and total_reward(lost) is None
    (found,) = judge([told(RIGHT, E)], Flaky(), STRICT, retries=2)
    assert found.success
