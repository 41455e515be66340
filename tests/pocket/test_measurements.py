from __future__ import annotations

import random

import pytest
from pocket_renderer import RenderGenerator

from interloom.pocket import measurements
from interloom.pocket.meaning import understand
from interloom.pocket.measurements import Runner, Share, edit_case, evaluation_scene
from interloom.pocket.scene import OPERATIONS, apply, scene_split


class Renderer(RenderGenerator):
    batch_size = 16


@pytest.fixture
def exact() -> Runner:
    return Runner(Renderer(), lambda _: None)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(8, 10, 0.490, 0.943), (0, 20, 0.0, 0.161), (20, 20, 0.839, 1.0)],
)
def test_a_share_has_its_wilson_interval(right, n, low, high):
    share = Share.of([True] * right + [False] * (n - right))
    assert (share.value, share.n) == (right / n, n)
    assert share.low == pytest.approx(low, abs=1e-3)
    assert share.high == pytest.approx(high, abs=1e-3)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_edits_are_held_out_and_say_what_they_want(operation):
    rng = random.Random(operation)
    for form in ("canonical", "paraphrased"):
        case = edit_case(rng, operation, form)
        after = apply(case.before, case.edit)
        assert case.edit.operation == operation and scene_split(after) == "evaluation"
        assert understand(case.prompt, case.before).goal.satisfied(after)
        assert case.goal.satisfied(after)


def test_scenes_of_several_things_are_held_out():
    rng = random.Random(0)
    for count in range(2, 8):
        scene = evaluation_scene(rng, count)
        assert scene.count == count and scene_split(scene) == "evaluation"


def test_a_generator_that_draws_everything_gets_everything(exact):
    one_shot, composed = measurements.measure_captions(exact, 3)
    edits, failed = measurements.measure_edits(exact, 4)
    knowledge = measurements.measure_knowledge(exact, 4)
    assert list(one_shot) == [str(count) for count in measurements.COUNTS]
    assert list(composed) == [str(count) for count in measurements.COMPOSED]
    assert list(edits) == ["all", *OPERATIONS] and edits["all"].n == 4 * len(OPERATIONS)
    for shares in (one_shot, composed, edits, knowledge):
        assert {share.value for share in shares.values()} == {1.0}
    assert not any(failed.values())


def test_repairs_are_measured_on_failures_alone():
    """A generator that spoils every picture: all edits fail, and so does every way to repair."""
    runner = Runner(Renderer(faults=1.0), lambda _: None)
    _, failed = measurements.measure_edits(runner, 2)
    assert all(len(cases) == 2 for cases in failed.values())
    more = measurements.more_failures(runner, "add", failed["add"], 5, most_tries=64)
    assert len(more) == 5 and more[:2] == failed["add"]
    by_operation = measurements.measure_repairs(runner, {"add": more, "swap": []})
    assert list(by_operation) == ["add"]
    assert {share.n for share in by_operation["add"].values()} == {5}


def test_every_operation_counts_as_often_as_it_fails():
    def of(right: int, n: int) -> Share:
        return Share.of([True] * right + [False] * (n - right))

    rows = {
        "add": {"plain": of(10, 10)},
        "swap": {"plain": of(0, 30)},
        "move": {"plain": of(5, 10)},
    }
    tried = {"add": of(9, 10), "swap": of(7, 10), "move": of(10, 10)}
    share = measurements.over_failures(rows, tried)["plain"]
    assert share.value == pytest.approx((1.5 + 0.5 * 0.5) / 5.5) and share.n == 50
    assert share.low < share.value < share.high
    assert measurements.over_failures({}, tried) == {}
