"""OmniContext: geometric means, eight task types, the published layout."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import PlayedJudge
from model_server import picture

from interloom.benchmarks import omnicontext
from interloom.benchmarks.omnicontext import TASKS, Grades, Item
from interloom.errors import InterloomError
from interloom.records import Attempt, Plan, Step, StepTrace, Trajectory

ITEMS = [Item(str(n), task, "x") for n, task in enumerate(TASKS)]


def test_scores_by_hand():
    grades: dict[str, Grades | None] = {one.key: Grades(10, 10) for one in ITEMS}
    grades["0"] = Grades(9, 4)  # 6
    grades["1"] = Grades(10, 0)  # 0
    more = Item("more", TASKS[0], "x")
    scores = omnicontext.score([*ITEMS, more], grades | {"more": Grades(4, 4)})
    assert scores.tasks[TASKS[0]] == 50, "mean of 60 and 40"
    assert scores.tasks[TASKS[1]] == 0
    assert scores.overall == pytest.approx((50 + 0 + 600) / 8), "types count alike"
    assert scores.prompt_following == pytest.approx(10 * (9 + 10 + 4 + 60) / 9)


def test_a_gold_answer_reaches_the_maximum():
    assert omnicontext.score(ITEMS, {one.key: Grades(10, 10) for one in ITEMS}).overall == 100


def test_unjudged_items_are_left_out_and_counted():
    more = Item("more", TASKS[0], "x")
    best: dict[str, Grades | None] = {one.key: Grades(10, 10) for one in ITEMS}
    scores = omnicontext.score([*ITEMS, more], best | {"more": None})
    assert (scores.overall, scores.unjudged) == (100, pytest.approx(1 / 9))
    with pytest.raises(InterloomError, match=r"all eight .* none judged in \['multi_object'\]"):
        omnicontext.score(ITEMS, best | {"3": None})
    with pytest.raises(InterloomError, match="item 0 has not been graded"):
        omnicontext.score(ITEMS, {})


def test_mistakes_are_refused():
    with pytest.raises(InterloomError, match="unknown task type 'duo'"):
        Item("1", "duo", "x")
    with pytest.raises(ValueError, match="0 to 10"):
        Grades(10.5, 1)


ten = st.floats(0, 10)


@given(st.lists(st.tuples(ten, ten), min_size=8, max_size=8), st.integers(0, 7), st.randoms())
def test_scores_are_bounded_rise_and_do_not_depend_on_order(values, place: int, chance):
    grades = {one.key: Grades(*pair) for one, pair in zip(ITEMS, values, strict=True)}
    scores = omnicontext.score(ITEMS, grades)
    assert 0 <= scores.overall <= 100 + 1e-9
    better = grades | {str(place): Grades(10, values[place][1])}
    assert omnicontext.score(ITEMS, better).overall >= scores.overall - 1e-9
    order = list(ITEMS)
    chance.shuffle(order)
    assert omnicontext.score(order, grades).overall == pytest.approx(scores.overall)


def records(**changes: object) -> list[dict[str, object]]:
    record = {"key": "a1", "task_type": "multi_object", "instruction": "both on a table",
              "instruction_language": "en", "input_images": ["1.png", "2.png"]}  # fmt: skip
    return [record | changes]


def test_the_published_layout_is_read_and_written(tmp_path: Path):
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(picture())
    (tmp_path / "data.jsonl").write_text(json.dumps(records()[0]))
    (one,) = omnicontext.load(tmp_path)
    assert (one.key, one.task, len(one.images)) == ("a1", "multi_object", 2)
    (request,) = omnicontext.requests([one])
    step = Step(step_number=3, instruction="x", prompt="x")
    attempt = Attempt(prompt="x", seed=1, image=picture("green"))
    trace = StepTrace(step=step, source=None, attempts=(attempt,))
    made = Trajectory(request=request, plan=Plan(steps=(step,)), steps=(trace,))
    omnicontext.write(tmp_path / "out", [made], with_text=True)
    assert (tmp_path / "out/fullset/multi_object/a1.png").is_file()
    judge = PlayedJudge({"reasoning": "", "grade": 7.5}, {"reasoning": "", "grade": 4})
    assert omnicontext.judged([one], tmp_path / "out", judge) == {"a1": Grades(7.5, 4)}
    assert [len(c.images) for c in judge.asked] == [3, 3]
    assert omnicontext.judged([one], tmp_path / "out", PlayedJudge(None)) == {"a1": None}
    assert omnicontext.judged([one], tmp_path / "none", PlayedJudge()) == {"a1": Grades(0, 0)}


def test_parquet_as_hubs_have_it_is_read(tmp_path: Path):
    shown = [{"bytes": picture(), "path": None}, {"bytes": picture("blue"), "path": "2.png"}]
    table = pa.Table.from_pylist(records(input_images=shown))
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "train-0.parquet")
    (one,) = omnicontext.load(tmp_path)
    assert one.images == (picture(), picture("blue"))


def test_faulty_records_are_named(tmp_path: Path):
    file = tmp_path / "data.json"
    file.write_text(json.dumps(records(input_images=[])))
    with pytest.raises(InterloomError, match=r"data.json, record 1: field 'input_images' is miss"):
        omnicontext.load(file)
