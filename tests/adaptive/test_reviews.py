from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sample_stories import direct, multi_step, reflection

from interloom.adaptive import reviews
from interloom.adaptive.review_page import make_app
from interloom.errors import InterloomError

STORIES = [direct(), reflection(1), multi_step(2)]


def test_two_people_have_to_accept_and_nobody_may_reject(tmp_path: Path):
    path = tmp_path / "reviews/adaptive.jsonl"
    first, second, third = STORIES
    for story, by, accept in (
        (first, "ada", True), (first, "grace", True),
        (second, "ada", True), (second, "grace", False), (second, "edsger", True),
        (third, "ada", True), (third, "ada", True),
    ):  # fmt: skip
        reviews.decide(path, story, by, accept)
    assert reviews.accepted(STORIES, reviews.read(path)) == [first]
    reviews.decide(path, second, "grace", True, "seen again")
    assert reviews.accepted(STORIES, reviews.read(path)) == [first, second]
    assert len(path.read_text().splitlines()) == 8, "nothing is ever taken out"
    other = first.model_copy(
        update={"prompt": first.prompt.model_copy(update={"instruction": "a blue sun"})}
    )
    assert reviews.accepted([other], reviews.read(path)) == [], "another story"


def test_the_page_shows_what_is_left_and_keeps_decisions(tmp_path: Path):
    path = tmp_path / "decisions.jsonl"
    with TestClient(make_app(STORIES, path, "ada")) as page:
        for number, (story, said) in enumerate(
            zip(STORIES, ("accept", "reject", "accept"), strict=True)
        ):
            shown = page.get("/").text
            assert f"ada: {number} of 3 stories decided" in shown
            assert shown.count("data:image/png") == len(story.prompt.references) + len(story.images)
            form = {"story": reviews.key_of(story), "decision": said, "note": "<b>so</b>"}
            assert page.post("/decide", data=form).status_code == 200
        assert "Nothing is left for ada" in page.get("/").text
        assert page.post("/decide", data={"story": "x", "decision": "accept"}).status_code == 404
        assert page.post("/decide", data={"story": "x", "decision": "maybe"}).status_code == 422
    assert [one.accept for one in reviews.read(path)] == [True, False, True]
    with TestClient(make_app(STORIES, path, "grace")) as page:
        assert "grace: 0 of 3 stories decided" in page.get("/").text


def test_files_that_are_no_decisions(tmp_path: Path):
    with pytest.raises(InterloomError, match="interloom review"):
        reviews.read(tmp_path / "none.jsonl")
    (tmp_path / "x.jsonl").write_text('{"story": 1}\n')
    with pytest.raises(InterloomError, match="line 1 is no decision"):
        reviews.read(tmp_path / "x.jsonl")
