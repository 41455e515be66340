from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import PlayedJudge
from model_server import picture

from interloom.benchmarks import ueval
from interloom.benchmarks.ueval import Answer, Grades, Item, Rubric
from interloom.errors import InterloomError


def item(name: str, task: str, texts: int = 2, images: int = 2) -> Item:
    return Item(
        id=name,
        prompt="p",
        task=task,
        text_rubrics=(Rubric("t"),) * texts,
        image_rubrics=(Rubric("i"),) * images,
    )


EIGHT = [item(task, task) for task in ueval.TASKS]
ALL = {task: Grades(task, ("met", "met"), ("met", "met")) for task in ueval.TASKS}


def test_a_gold_answer_reaches_the_maximum():
    scores = ueval.score(EIGHT, ALL)
    assert (scores.overall, scores.text, scores.images, scores.unjudged) == (100, 100, 100, 0)
    assert set(scores.tasks) == set(ueval.TASKS)


def test_scores_by_hand():
    # art: text 1/2, images 0/2 → 0.25; its second item: text 2/2, images 1/2 → 0.75; task 0.5
    grades = ALL | {
        "art": Grades("art", ("met", "not sure"), ("not met", "not met")),
        "art2": Grades("art2", ("met", "met"), ("met", "not met")),
    }
    scores = ueval.score([*EIGHT, item("art2", "art")], grades)
    assert scores.tasks["art"] == 50
    assert scores.overall == pytest.approx((50 + 7 * 100) / 8)
    assert scores.text == pytest.approx(100 * (0.5 + 1 + 7) / 9)
    assert scores.images == pytest.approx(100 * (0 + 0.5 + 7) / 9)


def test_an_unjudged_rubric_is_left_out_and_counted():
    grades = ALL | {"art": Grades("art", ("met", "unjudged"), ("unjudged", "unjudged"))}
    scores = ueval.score(EIGHT, grades)
    assert scores.tasks["art"] == 100
    assert scores.unjudged == pytest.approx(3 / 32)
    lost = ALL | {"art": Grades("art", ("unjudged",) * 2, ("unjudged",) * 2)}
    with pytest.raises(InterloomError, match="all eight tasks"):
        ueval.score(EIGHT, lost)


def test_items_with_one_kind_of_rubric_count_by_it_alone():
    items = [*EIGHT, item("only", "art", texts=2, images=0)]
    scores = ueval.score(items, ALL | {"only": Grades("only", ("met", "not met"), ())})
    assert scores.tasks["art"] == 75
    assert scores.images == 100


def test_missing_or_ill_fitting_grades_are_refused():
    with pytest.raises(InterloomError, match="not been graded"):
        ueval.score([*EIGHT, item("x", "art")], ALL)
    with pytest.raises(InterloomError, match="as many verdicts"):
        ueval.score(EIGHT, ALL | {"art": Grades("art", ("met",), ("met", "met"))})


def test_the_published_layout_is_read(tmp_path: Path):
    records = [
        {"id": 1, "prompt": "a", "task_type": "art", "text_rubrics": ["one"], "image_ref": "x.png"},
        {
            "id": "2",
            "prompt": "b",
            "task": "paper",
            "image_rubrics": [{"criterion": "two", "tags": ["t"], "type": "k"}],
        },
    ]
    path = tmp_path / "data.json"
    path.write_text(json.dumps(records))
    first, second = ueval.load(path)
    assert (first.id, first.task, first.text_rubrics) == ("1", "art", (Rubric("one"),))
    assert second.image_rubrics == (Rubric("two", ("t",)),)
    assert first.shows_text_to_judge and not second.shows_text_to_judge
    path.write_text("\n".join(map(json.dumps, records)))
    assert ueval.load(path) == [first, second]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": 1, "prompt": "a", "task": "music", "text_rubrics": ["x"]}, "unknown task 'music'"),
        ({"id": 1, "prompt": "a", "text_rubrics": ["x"]}, "neither 'task_type' nor 'task'"),
        ({"prompt": "a", "task": "art"}, "'id' is missing"),
        ({"id": 1, "prompt": "a", "task": "art"}, "no rubrics"),
    ],
)
def test_bad_records_are_refused(tmp_path: Path, record: dict, message: str):
    path = tmp_path / "data.json"
    path.write_text(json.dumps([record]))
    with pytest.raises(InterloomError, match=message):
        ueval.load(path)


def test_answers_go_through_the_published_layout(tmp_path: Path):
    answers = [Answer("1", "text", ("images/1-0.png",)), Answer("2", "", ())]
    ueval.write_answers(tmp_path / "a.json", answers)
    assert json.loads((tmp_path / "a.json").read_text())[0]["image_answer"] == ["images/1-0.png"]
    assert ueval.read_answers(tmp_path / "a.json") == {"1": answers[0], "2": answers[1]}


verdicts = st.lists(st.sampled_from(["met", "not met", "not sure", "unjudged"]), max_size=6)


@given(verdicts, verdicts, st.randoms())
def test_item_scores_are_bounded_and_do_not_depend_on_order(texts, images, rng):
    value = ueval.item_score(Grades("x", tuple(texts), tuple(images)))
    assert value is None or 0 <= value <= 1
    rng.shuffle(texts)
    assert ueval.item_score(Grades("x", tuple(texts), tuple(images))) == pytest.approx(value)
    if "not met" in texts:
        better = [*texts]
        better[better.index("not met")] = "met"
        improved = ueval.item_score(Grades("x", tuple(better), tuple(images)))
        assert improved is not None and value is not None and improved > value


def test_a_judge_is_asked_once_per_rubric(tmp_path: Path):
    rubrics = (ueval.Rubric("names the sun"), ueval.Rubric("is short"))
    items = [
        Item("open", "how?", "art", rubrics, rubrics[:1]),
        Item("closed", "why?", "space", rubrics[:1], rubrics[:1]),
        Item("mute", "what?", "life", rubrics, rubrics),
    ]
    (tmp_path / "a.png").write_bytes(picture())
    ueval.write_answers(
        tmp_path / "answers.json",
        [
            ueval.Answer("open", "the sun", ("a.png",)),
            ueval.Answer("closed", "a secret", ("a.png",)),
            ueval.Answer("mute", "", ()),
        ],
    )
    judge = PlayedJudge(
        {"reasoning": "", "criteria_met": "true"},
        {"reasoning": "", "criteria_met": "not sure"},
        None,
        {"reasoning": "", "criteria_met": "perhaps"},
        {"reasoning": "", "criteria_met": "false"},
    )
    grades = ueval.judged(items, tmp_path, judge)
    assert grades["open"] == Grades("open", ("met", "not sure"), ("unjudged",))
    assert grades["closed"] == Grades("closed", ("unjudged",), ("not met",))
    assert grades["mute"] == Grades("mute", ("not met",) * 2, ("not met",) * 2), "and no call"
    assert len(judge.asked) == 5 and sum(map(ueval.calls, items)) == 9
    shown = [judge.text(one) for one in judge.asked]
    assert "the sun" in shown[2], "pictures of open tasks are judged with the text"
    assert "a secret" not in shown[4], "and those of closed tasks without it"
    assert all("depicts nothing" in shown[n] for n in (2,)) and "depicts nothing" in shown[4]
