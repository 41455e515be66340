from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import PlayedJudge
from model_server import picture

from interloom.benchmarks import wise
from interloom.benchmarks.wise import Legacy
from interloom.errors import InterloomError

FIRST_IDS = {
    "culture": 1,
    "time": 401,
    "space": 568,
    "biology": 701,
    "physics": 801,
    "chemistry": 901,
}
BEST = {i: Legacy(2, 2, 2) for i in FIRST_IDS.values()}


def test_published_id_ranges():
    assert {wise.category_of(i) for i in FIRST_IDS.values()} == set(wise.CATEGORIES)
    assert [wise.category_of(i) for i in (400, 567, 700, 800, 900, 1000)] == list(wise.CATEGORIES)
    verified = [wise.category_of(i, "verified") for i in (400, 520, 640, 760, 880, 1000)]
    assert verified == list(wise.CATEGORIES)
    for outside in (0, 1001, -3):
        with pytest.raises(InterloomError, match="1–1000"):
            wise.category_of(outside)


def test_weights_sum_to_one_and_gold_reaches_it():
    assert sum(wise.LEGACY_WEIGHTS.values()) == pytest.approx(1)
    assert sum(wise.VERIFIED_WEIGHTS.values()) == pytest.approx(1)
    assert wise.legacy_scores(BEST).overall == pytest.approx(1)


def test_legacy_by_hand():
    # culture: consistency 1, realism 2, aesthetic 0 → (0.7 + 0.4)/2 = 0.55; the rest 1
    scores = wise.legacy_scores(BEST | {1: Legacy(1, 2, 0)})
    assert scores.categories["culture"] == pytest.approx(0.55)
    assert scores.overall == pytest.approx(0.4 * 0.55 + 0.6)


def test_verified_by_hand():
    ids = (1, 2, 401, 521, 641, 761, 881)
    scores = wise.verified_scores(dict.fromkeys(ids, True) | {2: False, 881: False})
    assert scores.overall == pytest.approx(0.4 * 0.5 + 0.12 * 4)
    assert scores.protocol == "verified"


def test_unjudged_is_left_out_and_counted_but_a_category_without_any_is_refused():
    scores = wise.legacy_scores(BEST | {2: None})
    assert scores.overall == pytest.approx(1) and scores.unjudged == pytest.approx(1 / 7)
    with pytest.raises(InterloomError, match="chemistry"):
        wise.legacy_scores(BEST | {901: None})


@pytest.mark.parametrize("bad", [-1, 3, 1.5])
def test_grades_outside_the_scale_are_refused(bad: int):
    with pytest.raises(ValueError, match="0, 1 or 2"):
        Legacy(bad, 2, 2)


grade = st.integers(0, 2)


@given(grade, grade, grade)
def test_wiscore_is_bounded_and_rises_with_every_axis(c: int, r: int, a: int):
    value = wise.wiscore(Legacy(c, r, a))
    assert 0 <= value <= 1
    if c < 2:
        assert wise.wiscore(Legacy(c + 1, r, a)) > value
    if a < 2:
        assert wise.wiscore(Legacy(c, r, a + 1)) > value


def test_both_protocols_are_judged_and_never_mixed(tmp_path: Path):
    items = [
        wise.Item(n, "p", wise.category_of(n), "because") for n in (1, 401, 568, 701, 801, 901)
    ]
    for item in items[1:]:
        (tmp_path / f"{item.prompt_id}.png").write_bytes(picture())
    good = {"reasoning": "", "consistency": 2, "realism": 2, "aesthetic_quality": 1}
    judge = PlayedJudge(good)
    grades = wise.judged(items, tmp_path, judge, "legacy")
    assert grades[1] == Legacy(0, 0, 0), "no picture: the system failed, and no call is made"
    assert grades[401] == Legacy(2, 2, 1) and len(judge.asked) == 5
    graded = wise.graded(items, grades, protocol="p", judge="j")
    assert graded.overall.value == pytest.approx(0.6 * 95)
    yes = wise.judged(items, tmp_path, PlayedJudge({"reasoning": "", "correct": True}), "verified")
    assert yes == {1: False} | dict.fromkeys((401, 568, 701, 801, 901), True)
    graded = wise.graded(items, yes, protocol="p", judge="j")
    assert graded.overall.value == pytest.approx(60)
    with pytest.raises(InterloomError, match="do not mix"):
        wise.graded(items, {**grades, 401: True}, protocol="p", judge="j")
    unread = wise.judged(items, tmp_path, PlayedJudge({"consistency": 3}), "legacy")
    assert unread[401] is None


def test_published_records_are_read(tmp_path: Path):
    record = {
        "Prompt": "a",
        "Explanation": "b",
        "Category": "c",
        "Subcategory": "d",
        "prompt_id": 530,
    }
    (tmp_path / "x.json").write_text(json.dumps([record]))
    assert [item.category for item in wise.load(tmp_path)] == ["time"]
    assert [item.category for item in wise.load(tmp_path, "verified")] == ["space"]
    (tmp_path / "x.json").write_text(json.dumps([record | {"prompt_id": 1001}]))
    with pytest.raises(InterloomError, match="1001 is not within"):
        wise.load(tmp_path)
    (tmp_path / "x.json").write_text(json.dumps([{"prompt_id": 3}]))
    with pytest.raises(InterloomError, match="record 1: field 'Prompt' is missing"):
        wise.load(tmp_path)
