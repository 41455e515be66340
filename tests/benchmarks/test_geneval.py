"""GenEval: the rules by hand, the real prompts, the published layout."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import PlayedJudge
from model_server import picture

from interloom.benchmarks import geneval
from interloom.benchmarks.geneval import TAGS, Box, Detection, Item, Wanted, relations
from interloom.errors import InterloomError
from interloom.records import Attempt, Failure, Plan, Request, Step, StepTrace, Trajectory


def found(
    name: str, x: float = 0, y: float = 0, colour: str = "", score: float = 0.95
) -> Detection:
    return Detection(name, score, Box(x, y, x + 10, y + 10), colour or None)


def item(tag: str, *include: Wanted, exclude: tuple[Wanted, ...] = ()) -> Item:
    return Item(0, tag, "a photo", include, exclude)


DOG, CAT = Wanted("dog", 1), Wanted("cat", 1)
THREE_DOGS = item("counting", Wanted("dog", 3), exclude=(Wanted("dog", 4),))
CAT_LEFT_OF_DOG = item("position", DOG, Wanted("cat", 1, None, ("left of", 0)))


@pytest.mark.parametrize(
    ("wanted", "detections", "correct"),
    [
        (item("single_object", DOG), [found("dog")], True),
        (item("single_object", DOG), [found("dog"), found("cat"), found("dog")], True),
        (item("single_object", DOG), [found("cat")], False),
        (item("single_object", DOG), [], False),
        (item("single_object", DOG), [found("dog", score=0.3)], True),
        (item("single_object", DOG), [found("dog", score=0.29)], False),
        (item("two_object", DOG, CAT), [found("dog"), found("cat")], True),
        (item("two_object", DOG, CAT), [found("dog"), found("dog")], False),
        (THREE_DOGS, [found("dog")] * 3, True),
        (THREE_DOGS, [found("dog")] * 2, False),
        (THREE_DOGS, [found("dog")] * 4, False),
        (THREE_DOGS, [found("dog")] * 3 + [found("dog", score=0.89)], True),  # not sure enough
        (THREE_DOGS, [found("dog")] * 2 + [found("dog", score=0.89)], False),
        (item("colors", Wanted("dog", 1, "red")), [found("dog", colour="red")], True),
        (item("colors", Wanted("dog", 1, "red")), [found("dog", colour="blue")], False),
        (item("colors", Wanted("dog", 1, "red")), [found("dog")], False),
        # Only as many as asked for are looked at, the surest first.
        (
            item("colors", Wanted("dog", 1, "red")),
            [found("dog", colour="red", score=0.5), found("dog", colour="blue", score=0.9)],
            False,
        ),
        (
            item("color_attr", Wanted("dog", 1, "red"), Wanted("cat", 1, "blue")),
            [found("dog", colour="red"), found("cat", colour="blue")],
            True,
        ),
        (
            item("color_attr", Wanted("dog", 1, "red"), Wanted("cat", 1, "blue")),
            [found("dog", colour="blue"), found("cat", colour="red")],
            False,
        ),
        (CAT_LEFT_OF_DOG, [found("dog", 100), found("cat", 0)], True),
        (CAT_LEFT_OF_DOG, [found("dog", 0), found("cat", 100)], False),
        (CAT_LEFT_OF_DOG, [found("cat", 0)], False),  # nothing to be left of
        (CAT_LEFT_OF_DOG, [found("dog", 100), found("cat", 0, 300)], False),  # far below
    ],
)
def test_pictures_by_hand(wanted: Item, detections: list[Detection], correct: bool):
    assert geneval.is_correct(wanted, detections) is correct
    assert geneval.is_correct(wanted, detections[::-1]) is correct


def test_relations_by_hand():
    here = Box(0, 0, 10, 10)
    # 100 to the right: (100 − 0.1·20)/100 = 0.98 along x.
    assert relations(Box(100, 0, 110, 10), here) == {"right of"}
    assert relations(Box(0, -100, 10, -90), here) == {"above"}
    # Diagonal: 0.69 along both axes.
    assert relations(Box(-100, 100, -90, 110), here) == {"left of", "below"}
    # 2 apart, and the tenth of both widths is 2.
    assert relations(Box(2, 0, 12, 10), here) == set()
    assert relations(here, here) == set()


side = st.floats(1, 50)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), *[st.floats(-99, 99)] * 2, side, side)


@given(boxes, boxes)
def test_relations_turn_round_with_their_things(one: Box, other: Box):
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    there, back = relations(one, other), relations(other, one)
    assert back == {opposite[name] for name in there}
    assert not {"left of", "right of"} <= there and not {"above", "below"} <= there


def six(*right: bool | None) -> tuple[list[Item], dict[str, list[bool | None]]]:
    """An item of every tag, each with two pictures."""
    items = [Item(n, tag, "", (DOG,)) for n, tag in enumerate(TAGS)]
    return items, {one.key: [right[n], True] for n, one in enumerate(items)}


def test_scores_by_hand():
    items, grades = six(True, False, True, False, True, True)
    scores = geneval.score(items, grades)
    assert scores.tags["two_object"] == 50
    assert scores.overall == pytest.approx((100 * 4 + 50 * 2) / 6)
    more = Item(6, "counting", "", (DOG,))
    scores = geneval.score([*items, more], grades | {more.key: [False, False]})
    assert scores.tags["counting"] == 50, "means are over a tag's pictures"
    assert scores.overall == pytest.approx((100 * 3 + 50 * 3) / 6), "tags count alike"


def test_gold_and_nothing_are_the_ends():
    assert geneval.score(*six(*[True] * 6)).overall == 100
    items, grades = six(*[False] * 6)
    assert geneval.score(items, {key: [False] for key in grades}).overall == 0


def test_unjudged_pictures_are_left_out_and_counted():
    items, grades = six(None, True, True, True, True, True)
    scores = geneval.score(items, grades)
    assert (scores.overall, scores.unjudged) == (100, pytest.approx(1 / 12))
    with pytest.raises(InterloomError, match=r"all six tags; none judged in \['counting'\]"):
        geneval.score(items, grades | {items[2].key: [None, None]})
    with pytest.raises(InterloomError, match="00001 has not been graded"):
        geneval.score(items, {items[0].key: [True]})


@given(st.lists(st.booleans(), min_size=6, max_size=6), st.integers(0, 5), st.randoms())
def test_scores_are_bounded_rise_and_do_not_depend_on_order(right, place: int, chance):
    items, grades = six(*right)
    scores = geneval.score(items, grades)
    assert 0 <= scores.overall <= 100
    better = geneval.score(items, grades | {items[place].key: [True, True]})
    assert better.overall >= scores.overall
    shuffled = list(items)
    chance.shuffle(shuffled)
    assert geneval.score(shuffled, grades).overall == pytest.approx(scores.overall)


def test_the_553_real_prompts_are_read():
    items = geneval.load(geneval.shipped())
    assert Counter(one.tag for one in items) == {
        "single_object": 80, "two_object": 99, "counting": 80, "colors": 94, "position": 100,
        "color_attr": 100,
    }  # fmt: skip
    assert len(items) == 553 and items[552].key == "00552"
    written = [json.loads(line) for line in geneval.shipped().read_text().splitlines()]
    assert [geneval.record_of(one) for one in items] == written, "nothing is lost"
    assert "MIT License" in (geneval.shipped().parent / "LICENSE").read_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tag": "colour"}, "unknown tag 'colour'"),
        ({"include": [{"class": "dog", "count": 1, "color": "teal"}]}, "unknown colour 'teal'"),
        ({"include": [{"class": "dog", "count": 1, "position": ["on", 0]}]}, "no relation"),
        ({"include": [{"class": "dog", "count": 1, "position": ["above", 0]}]}, "no relation"),
        ({"include": [{"class": "dog"}]}, "'count' is missing"),
        ({"prompt": None}, "'prompt' is missing"),
    ],
)
def test_faulty_records_are_named(tmp_path: Path, change: dict[str, object], said: str):
    file = tmp_path / "prompts.jsonl"
    good = {"tag": "single_object", "include": [{"class": "dog", "count": 1}], "prompt": "a dog"}
    file.write_text("\n".join(json.dumps(record) for record in (good, good | change)))
    with pytest.raises(InterloomError, match=said) as error:
        geneval.load(file)
    assert "prompt 1" in str(error.value) or "record 2" in str(error.value)


def drawn(request: Request) -> Trajectory:
    step = Step(step_number=1, instruction="x", prompt="x")
    trace = StepTrace(
        step=step, source=None, attempts=(Attempt(prompt="x", seed=1, image=picture()),)
    )
    return Trajectory(request=request, plan=Plan(steps=(step,)), steps=(trace,))


def test_pictures_lie_where_the_official_script_looks_for_them(tmp_path: Path):
    (one,) = [item("single_object", DOG)]
    asked = geneval.requests([one])
    assert [request.id for request in asked] == [f"geneval/00000/000{n}" for n in range(4)]
    geneval.write(tmp_path, [drawn(request) for request in asked[:3]], with_text=True, items=[one])
    assert json.loads((tmp_path / "00000/metadata.jsonl").read_text())["tag"] == "single_object"
    assert sorted(p.name for p in (tmp_path / "00000/samples").iterdir()) == [
        "0000.png", "0001.png", "0002.png",
    ]  # fmt: skip
    shown = geneval.images_of(one, tmp_path)
    assert [image is not None for image in shown] == [True, True, True, False]
    judge = PlayedJudge({"reasoning": "", "correct": True}, None, {"correct": "maybe"})
    grades = geneval.judged([one], tmp_path, judge)
    assert grades == {"00000": [True, None, None, False]}, "what was not drawn is wrong"
    assert '[{"class": "dog", "count": 1}]' in judge.text(judge.asked[0])


def test_a_detector_that_fails_leaves_pictures_unjudged(tmp_path: Path):
    class Detector:
        name = "d"

        def detect(self, pictures, wanted):
            assert len(pictures) == len(wanted) == 2
            return [[found("dog")], Failure(role="judge", reason="out of memory")]

    one = item("single_object", DOG)
    geneval.write(tmp_path, [drawn(r) for r in geneval.requests([one])[:2]], with_text=True)
    assert geneval.detected([one], tmp_path, Detector()) == {"00000": [True, None, False, False]}
