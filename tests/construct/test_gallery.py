from __future__ import annotations

import re
from pathlib import Path

import pytest
from data_project import Project
from PIL import Image
from sample_trajectories import odd_ones, trajectory

from interloom import images
from interloom.construct import gallery, store
from interloom.errors import InterloomError
from interloom.records import Trajectory

MADE = [trajectory("a"), *odd_ones(), trajectory("b", ((False, False), (True,)), 50)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store.write_shards(MADE, tmp_path / "shards", shard_rows=3, about={})
    return tmp_path / "shards"


def test_outcomes():
    assert {one.request.id: gallery.outcome(one) for one in MADE} == {
        "a": "repaired",
        "scored": "passed at once",
        "unplanned": "failed",
        "stopped": "failed",
        "unjudged": "unjudged",
        "told": "text alone",
        "b": "never passed",
    }


def test_samples_are_spread_and_chosen_by_category_and_outcome(folder: Path):
    five = gallery.choose(folder, 5, seed=1)
    assert len(set(five)) == 5 and five == gallery.choose(folder, 5, seed=1)
    first = {gallery.outcome(one) for one in MADE if one.request.id in five}
    assert len(first) >= 4, "no outcome twice while another one was not shown"
    assert set(gallery.choose(folder, 99, seed=1)) == {one.request.id for one in MADE}
    assert gallery.choose(folder, 9, 1, outcome="repaired") == ["a"]
    assert set(gallery.choose(folder, 9, 1, category="daily-life")) == {
        "a", "scored", "unjudged", "b",
    }  # fmt: skip
    with pytest.raises(InterloomError, match="outcomes: failed, never passed, passed at once"):
        gallery.choose(folder, 9, 1, outcome="lost")


def test_only_what_is_chosen_is_read(folder: Path):
    assert [one.request.id for one in store.read_chosen(folder, ["b", "a", "told"])] == [
        "a", "told", "b",
    ]  # fmt: skip
    assert list(store.read_chosen(folder, ["a"])) == MADE[:1]


def shown(page: str, field: str) -> list[str]:
    return re.findall(rf'<article [^>]*data-{field}="([^"]*)"', page)


def test_the_page_holds_everything_and_needs_nothing_else():
    marks = {"a/1/0": gallery.Mark(2.0, 7.25, "rl"), "a/1/1": gallery.Mark(None, None, "low")}
    nasty = trajectory("<script>alert(1)</script>", ((True,),), 99)
    page = gallery.page([*MADE, nasty], "all of them", marks)
    assert shown(page, "outcome") == [gallery.outcome(one) for one in [*MADE, nasty]]
    pictures = sum(len(t.attempts) for one in MADE for t in one.steps if t.attempts[0:])
    given = sum(len(one.request.images) for one in MADE)
    assert page.count("<img ") == pictures - 1 + given + 1, "one attempt has no picture"
    for words in ("part by part", "add part 1 of a!", "seen 1", "generator failed: timeout",
                  "2.0 · 7.2 <i>rl</i>", "<i>low</i>", "about 1"):  # fmt: skip
        assert words in page
    refused = [a for one in MADE for t in one.steps for a in t.attempts
               if a.critique and not a.critique.success]  # fmt: skip
    assert page.count('class="refined"') == len(refused) > 0, "not hidden in a closed part"
    assert "<script>alert" not in page and not re.search(r'(src|href)="(?!data:)', page)
    assert set(re.findall(r"<option>([^<]+)", page)) == {*gallery.OUTCOMES, "daily-life"}


def test_large_pictures_are_shown_small():
    large = images.to_png(Image.effect_noise((1500, 900), 90).convert("RGB"))
    made = trajectory("big", ((True,),))
    attempt = made.steps[0].attempts[0].model_copy(update={"image": large})
    trace = made.steps[0].model_copy(update={"attempts": (attempt,)})
    page = gallery.sequence(made.model_copy(update={"steps": (trace,)}), "x")
    assert "data:image/webp;base64," in page and len(page) < 100_000
    small = images.thumbnail(large, gallery.SIDE)
    assert images.size(small) == (384, 230)
    assert images.thumbnail(small, gallery.SIDE) is small


def test_scores_and_fates_come_from_the_critic_data(data_project: Project, tmp_path: Path):
    shards, critic = data_project["outputs/trajectories"], data_project["outputs/critic-data"]
    ids = gallery.choose(shards, 12, 3)
    marks = gallery.marks_of(critic / "scores.parquet", ids)
    chosen: list[Trajectory] = list(store.read_chosen(shards, ids))
    attempts = [
        f"{one.request.id}/{trace.step.step_number}/{number}"
        for one in chosen
        for trace in one.steps
        for number in range(len(trace.attempts))
    ]
    assert set(marks) == set(attempts)
    fates = {mark.fate for mark in marks.values()}
    assert {"sft", "rl"} & fates and fates <= {
        "sft", "rl", "surplus", "low", "falling", "degraded", "stagnant", "call-failed",
        "held-out", "duplicate",
    }  # fmt: skip
    page = gallery.write(shards, tmp_path / "x/page.html", ids, "x", critic / "scores.parquet")
    assert page.read_text().count('class="mark"') == len(attempts)


def test_a_sequence_as_one_picture():
    """What was given, then one picture a step, framed by the verdict."""
    made = trajectory("b", ((False, False), (True,)), 50)
    sheet = images.from_bytes(gallery.strip(made, 40))
    shown = len(made.request.images[-1:]) + 2
    assert sheet.size == (shown * 48, 48)
    frames = [sheet.getpixel((48 * at + 5, 5)) for at in range(shown)]
    assert frames[-2:] == [(215, 38, 45), (40, 162, 72)]
    nothing = odd_ones()[1]
    assert images.size(gallery.strip(nothing, 40))[1] == 48
