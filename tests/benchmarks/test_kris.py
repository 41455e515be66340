"""KRIS-Bench: groups as means of metric averages, ten knowledge folders, the published layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import PlayedJudge
from model_server import picture

from interloom import images
from interloom.benchmarks import kris
from interloom.benchmarks.kris import CATEGORIES, KNOWLEDGE, Grades, Item
from interloom.errors import InterloomError
from interloom.records import Attempt, Plan, Request, Step, StepTrace, Trajectory

COLOUR, BIOLOGY = Item("color_change", "1", "x"), Item("biology", "1", "x")
RULE, SEVERAL = (
    Item("rule-based_reasoning", "1", "x"),
    Item("multi-instruction_execution", "1", "x"),
)
ALL = [COLOUR, BIOLOGY, RULE, SEVERAL]
BEST = {
    one.id: Grades(5, 5, 5, 5 if one.category in KNOWLEDGE else None) for one in ALL
}  # fmt: skip


def test_the_twenty_folders_and_the_ten_of_knowledge():
    assert len(CATEGORIES) == len(set(CATEGORIES)) == 20
    assert len(KNOWLEDGE) == 10
    assert (COLOUR.type, COLOUR.dimension) == ("factual", "attribute")
    assert (BIOLOGY.type, BIOLOGY.dimension) == ("conceptual", "natural")
    assert (RULE.type, SEVERAL.type) == ("procedural", "procedural")
    assert (RULE.category in KNOWLEDGE, SEVERAL.category in KNOWLEDGE) == (True, False)


def test_groups_by_hand():
    grades = {
        COLOUR.id: Grades(5, 3, 1),  # 100, 50, 0
        BIOLOGY.id: Grades(5, 5, 5, 1),  # 100, 100, 100, 0
        RULE.id: Grades(1, 3, 5, 5),  # 0, 50, 100, 100
        SEVERAL.id: Grades(5, 5, 5),  # 100, 100, 100
    }
    scores = kris.score(ALL, grades)
    assert scores.groups["factual"] == 50
    assert scores.groups["conceptual"] == 75
    # Metric averages 50, 75, 100, and 100 over the one item that has it; not (62.5 + 100) / 2.
    assert scores.groups["procedural"] == pytest.approx((50 + 75 + 100 + 100) / 4)
    assert scores.groups["logical"] == 62.5
    assert scores.items[SEVERAL.id] == 100
    assert scores.metrics["knowledge"] == 50
    graded = kris.graded(ALL, grades, protocol="p", judge="j")
    assert graded.overall.value == pytest.approx((50 + 75 + (62.5 + 100) / 2) / 3)


def test_a_gold_answer_reaches_the_maximum():
    scores = kris.score(ALL, BEST)
    assert set(scores.groups.values()) == set(scores.items.values()) == {100}


def test_unjudged_items_are_left_out_and_counted():
    more = Item("physics", "2", "x")
    scores = kris.score([*ALL, more], {**BEST, more.id: None})
    assert (scores.groups["conceptual"], scores.unjudged) == (100, pytest.approx(0.2))
    with pytest.raises(InterloomError, match=r"all three types; none judged in \['factual'\]"):
        kris.score(ALL, {**BEST, COLOUR.id: None})
    with pytest.raises(InterloomError, match="biology/1 has not been graded"):
        kris.score(ALL, {COLOUR.id: None})


def test_mistakes_are_refused():
    with pytest.raises(InterloomError, match="unknown category 'cooking'"):
        Item("cooking", "1", "x")
    with pytest.raises(ValueError, match="1 to 5"):
        Grades(0, 5, 5)
    for one, grades in ((COLOUR, Grades(5, 5, 5, 5)), (BIOLOGY, Grades(5, 5, 5))):
        with pytest.raises(ValueError, match="knowledge = "):
            kris.item_score(one, grades)


five = st.integers(1, 5)


@given(st.lists(st.tuples(five, five, five, five), min_size=4, max_size=4), st.randoms())
def test_scores_are_bounded_rise_and_do_not_depend_on_order(values, chance):
    def grades(rows):
        return {
            one.id: Grades(c, q, i, k if one.category in KNOWLEDGE else None)
            for one, (c, q, i, k) in zip(ALL, rows, strict=True)
        }

    scores = kris.score(ALL, grades(values))
    assert all(0 <= value <= 100 for value in scores.groups.values())
    better = kris.score(ALL, grades([(5, q, i, k) for _, q, i, k in values]))
    assert all(better.groups[name] >= value for name, value in scores.groups.items())
    order = list(ALL)
    chance.shuffle(order)
    assert kris.score(order, grades(values)).groups == pytest.approx(scores.groups)


def published(root: Path, **changes: object) -> Path:
    folder = root / "biology"
    folder.mkdir(parents=True)
    for name in ("a", "b", "gt"):
        (folder / f"{name}.jpg").write_bytes(picture(kind="JPEG"))
    record = {"ori_img": "a.jpg", "gt_img": "gt.jpg", "ins_en": "let it grow", "explain_en": "why"}
    entries = {"1": record, "2": record | {"ori_img": ["a.jpg", "b.jpg"]} | changes}
    (folder / "annotation.json").write_text(json.dumps(entries))
    return root


def made(request: Request) -> Trajectory:
    step = Step(step_number=2, instruction="x", prompt="x")
    attempt = Attempt(prompt="x", seed=1, image=picture("green"))
    trace = StepTrace(step=step, source=None, attempts=(attempt,))
    return Trajectory(request=request, plan=Plan(steps=(step,)), steps=(trace,))


def test_the_published_layout_is_read_and_written(tmp_path: Path):
    items = kris.load(published(tmp_path))
    assert [(one.id, len(one.images)) for one in items] == [("biology/1", 1), ("biology/2", 2)]
    asked = kris.requests(items)
    assert [(r.kind, r.subcategory) for r in asked] == [("continuation", "conceptual")] * 2
    kris.write(tmp_path / "out", [made(asked[0])], with_text=True)
    data = (tmp_path / "out/biology/1.jpg").read_bytes()
    assert images.mime_type(data) == "image/jpeg"
    three = {"reasoning": "", "visual_consistency": 4, "visual_quality": 3,
             "instruction_following": 2}  # fmt: skip
    judge = PlayedJudge(three, {"reasoning": "", "knowledge_plausibility": 5})
    grades = kris.judged(items, tmp_path / "out", judge)
    assert grades == {"biology/1": Grades(4, 3, 2, 5), "biology/2": Grades(1, 1, 1, 1)}
    assert [len(c.images) for c in judge.asked] == [2, 3], "the right result is shown for knowledge"
    assert kris.judged(items, tmp_path / "out", PlayedJudge(three, None))["biology/1"] is None
    assert kris.calls(items[0]) == 2 and kris.calls(COLOUR) == 1


def test_faulty_records_are_named(tmp_path: Path):
    with pytest.raises(
        InterloomError, match=r"annotation.json, record 1, 2: field 'ins_en' is mis"
    ):
        kris.load(published(tmp_path / "1", ins_en=None))
    with pytest.raises(InterloomError, match=r"none\.jpg is not there"):
        kris.load(published(tmp_path / "2", ori_img="none.jpg"))
    with pytest.raises(InterloomError, match=r"no CATEGORY/annotation\.json"):
        kris.load(tmp_path / "2" / "biology")
