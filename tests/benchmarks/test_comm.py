"""CoMM: plain means, NA left out and counted, the published layout, three judge calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import PlayedJudge
from model_server import picture

from interloom.benchmarks import comm
from interloom.benchmarks.comm import FIGURES, Grades, Item
from interloom.errors import InterloomError
from interloom.records import Attempt, Plan, Request, Step, StepTrace, Trajectory

BEST = Grades(*[10.0] * 7)
FOUR, THREE = Item("task4-a", "task4", "how?"), Item("task3-b", "task3", "and then?")


def test_means_by_hand():
    grades = {
        FOUR.id: Grades(8, 6, None, 4, 10, 7, 5),  # (8+6+4+10+7+5)/6 = 6.667
        THREE.id: Grades(2, 2, 2, 2, 2, 2, 2),
    }
    scores = comm.score([FOUR, THREE], grades)
    assert scores.items == {FOUR.id: pytest.approx(200 / 3), THREE.id: 20}
    assert scores.tasks == {"task4": pytest.approx(200 / 3), "task3": 20}
    assert scores.overall == pytest.approx((200 / 3 + 20) / 2)
    assert scores.figures["trend"] == 2, "NA is left out of its mean"
    assert scores.figures["style"] == 5
    assert scores.not_applicable == {"trend": 1}
    assert scores.unjudged == 0


def test_a_gold_answer_reaches_the_maximum():
    scores = comm.score([FOUR, THREE], {FOUR.id: BEST, THREE.id: BEST})
    assert scores.overall == 100
    assert set(scores.figures.values()) == {10}


def test_unjudged_samples_are_left_out_and_counted():
    other = Item("task4-c", "task4", "x")
    scores = comm.score([FOUR, other, THREE], {FOUR.id: BEST, other.id: None, THREE.id: BEST})
    assert scores.overall == 100
    assert scores.unjudged == pytest.approx(1 / 3)
    with pytest.raises(InterloomError, match="none judged in task3"):
        comm.score([FOUR, THREE], {FOUR.id: BEST, THREE.id: None})
    with pytest.raises(InterloomError, match="task3-b has not been graded"):
        comm.score([FOUR, THREE], {FOUR.id: BEST})


def test_mistakes_are_refused():
    with pytest.raises(InterloomError, match="unknown task 'task1'; tasks: task3, task4"):
        Item("x", "task1", "")
    with pytest.raises(ValueError, match="0 to 10"):
        Grades(11, 0, 0, 0, 0, 0, 0)


figure = st.none() | st.floats(0, 10)
some_grades = st.builds(Grades, *[figure] * 7)


@given(some_grades, st.sampled_from(FIGURES))
def test_an_item_is_bounded_and_rises_with_each_figure(grades: Grades, name: str):
    value = comm.item_score(grades)
    if value is None:
        assert set(vars(grades).values()) == {None}
        return
    assert 0 <= value <= 100
    if vars(grades)[name] is not None:
        better = comm.item_score(Grades(**{**vars(grades), name: 10.0}))
        assert better is not None and better >= value - 1e-6


@given(
    st.permutations([(Item(f"task{3 + n % 2}-{n}", f"task{3 + n % 2}", ""), n) for n in range(6)])
)
def test_order_does_not_matter(order: list[tuple[Item, int]]):
    grades = {item.id: Grades(n, 5, None, n, 1, 2, 3) for item, n in order}
    scores = comm.score([item for item, _ in order], grades)
    assert scores.tasks == {"task3": pytest.approx(25), "task4": pytest.approx(85 / 3)}


def sample(folder: Path, **changes: object) -> Path:
    """A sample of task 3 as it is published: two pictures given, two to come."""
    place = folder / "task3" / "0007"
    place.mkdir(parents=True)
    for name in ("a", "b", "c", "d"):
        (place / f"{name}.png").write_bytes(picture())
    record = {
        "model_input": "Make tea. <IMAGE> boil water <IMAGE> add leaves",
        "model_output": "",
        "input_image_list": ["a.png", "b.png"],
        "output_gt_image_list": ["c.png", "d.png"],
        "prediction_image_list": [],
    }
    (place / "results.json").write_text(json.dumps(record | changes))
    return folder


def test_the_published_layout_is_read(tmp_path: Path):
    (item,) = comm.load(sample(tmp_path))
    assert (item.id, item.task, len(item.images), len(item.references)) == (
        "task3-0007", "task3", 2, 2,
    )  # fmt: skip
    (request,) = comm.requests([item])
    assert request.text == "Make tea."
    assert request.captions == ("boil water", "add leaves")
    assert (request.kind, len(request.images)) == ("continuation", 2)


def test_what_does_not_fit_names_the_file(tmp_path: Path):
    with pytest.raises(InterloomError, match=r"results.json, record 1: 2 marks .* 1 pictures"):
        comm.load(sample(tmp_path / "1", input_image_list=["a.png"]))
    with pytest.raises(InterloomError, match=r"e\.png is not there"):
        comm.load(sample(tmp_path / "2", input_image_list=["a.png", "e.png"]))
    with pytest.raises(InterloomError, match="no samples"):
        comm.load(tmp_path / "2" / "task3")


def made(request: Request, count: int) -> Trajectory:
    steps = [
        Step(step_number=n, instruction=f"do {n}", prompt=f"p {n}", auxiliary_text=f"text {n}")
        for n in range(1, count + 1)
    ]
    traces = [
        StepTrace(step=s, source=None, attempts=(Attempt(prompt="p", seed=1, image=picture()),))
        for s in steps
    ]
    return Trajectory(request=request, plan=Plan(steps=tuple(steps)), steps=tuple(traces))


def test_answers_go_through_the_published_layout(tmp_path: Path):
    items = comm.load(sample(tmp_path / "data"))
    comm.write(tmp_path / "out", [made(comm.requests(items)[0], 2)], with_text=True)
    record = json.loads((tmp_path / "out/task3/0007/results.json").read_text())
    assert record["model_output"] == "text 1 <IMAGE> text 2 <IMAGE>"
    assert record["prediction_image_list"] == ["prediction_0.png", "prediction_1.png"]
    assert record["model_input"].count("<IMAGE>") == len(record["input_image_list"]) == 2
    answer = comm.read_answer(items[0], tmp_path / "out")
    assert answer.texts == ["text 1", "text 2"]
    assert len(answer.images) == 2
    comm.write(tmp_path / "bare", [made(comm.requests(items)[0], 1)], with_text=False)
    assert comm.read_answer(items[0], tmp_path / "bare").text == "<IMAGE>"


COHERENT = {"reasoning": "", "style": "NA", "entity": 8, "trend": 7, "consistency": 6,
            "completeness": 5, "quality": 4}  # fmt: skip


def grade(folder: Path, judge: PlayedJudge, count: int = 2) -> Grades | None:
    items = comm.load(sample(folder / "data"))
    trajectory = made(comm.requests(items)[0], count)
    if not count:
        trajectory = Trajectory(request=trajectory.request, plan=None)
    comm.write(folder / "out", [trajectory], with_text=True)
    return comm.judged(items, folder / "out", judge)[items[0].id]


def test_a_judge_is_asked_three_times(tmp_path: Path):
    judge = PlayedJudge(
        COHERENT, {"descriptions": ["one", "two"]}, {"reasoning": "", "relevance": [9, 6]}
    )
    assert grade(tmp_path, judge) == Grades(None, 8, 7, 6, 5, 4, 7.5)
    coherence, descriptions, relevance = judge.asked
    assert len(coherence.images) == 4, "both given and both made pictures"
    assert descriptions.images == [], "the judge describes from the text alone"
    assert "1. one\n2. two" in judge.text(relevance)


def test_what_has_no_usable_answer_is_unjudged(tmp_path: Path):
    told = {"descriptions": ["one", "two"]}
    assert (
        grade(tmp_path / "1", PlayedJudge(None, told, {"reasoning": "", "relevance": [9, 6]}))
        is None
    )
    assert grade(tmp_path / "2", PlayedJudge(COHERENT, None)) is None
    one = {"reasoning": "", "relevance": [9]}
    assert grade(tmp_path / "3", PlayedJudge(COHERENT, told, one)) is None, "one grade for two"


def test_an_empty_answer_gets_zeros_and_no_call(tmp_path: Path):
    judge = PlayedJudge()
    assert grade(tmp_path, judge, count=0) == comm.NOTHING
    assert judge.asked == []
