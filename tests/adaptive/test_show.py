from __future__ import annotations

from pathlib import Path

import pytest
import tiny_umm as builder
from sample_stories import direct, multi_step, reflection
from typer.testing import CliRunner

from interloom.adaptive import files, released, show
from interloom.adaptive.masking import learned_spans
from interloom.adaptive.reasoner import add_story_tags
from interloom.errors import InterloomError
from interloom.show import app


@pytest.fixture(scope="module")
def unified():
    unified = builder.new()
    assert add_story_tags(unified) == 12 and add_story_tags(unified) == 0
    return unified


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    path = tmp_path / "stories.parquet"
    files.write_stories([direct(), reflection(2), multi_step(2)], path, {})
    return path


@pytest.mark.parametrize("masking", ["selective", "full"])
def test_every_token_is_shown_with_its_mask(unified, masking):
    story = reflection(2)
    shown = show.shown_spans(story, unified, masking)
    assert [one.span for one in shown] == story.spans()
    assert [one.learned for one in shown] == learned_spans(story, masking)
    picture = next(one for one in shown if one.span.name == "G1")
    assert sum(token.startswith("▣") for token in picture.tokens) == 9
    told = next(one for one in shown if one.span.name == "E1")
    assert told.tokens[0] == "<evaluate>" and told.tokens[-1] == "</evaluate>"
    assert "".join(told.tokens) == told.span.content


def test_text_and_page(unified, tmp_path: Path):
    story = multi_step(2)
    shown = show.shown_spans(story, unified, "selective")
    lines = show.to_text(shown).plain.splitlines()
    assert [line.split()[1] for line in lines if line.split()[0] == "G1"] == ["context"]
    assert [line.split()[1] for line in lines if line.split()[0] == "S2"] == ["learned"]
    show.write_page(story, shown, "selective", tmp_path / "m.html")
    page = (tmp_path / "m.html").read_text()
    assert page.count("<img") == 3 and page.count('class="span learned"') == 8
    assert "<script" not in page


def test_stories_are_picked(stories: Path, tmp_path: Path):
    assert show.pick_story(stories, None, 1) == reflection(2)
    assert show.pick_story(stories, "multi_step", 0) == multi_step(2)
    path = released.write_result(direct(), tmp_path / "task")
    assert show.pick_story(path, None, 0) == direct()
    assert show.pick_story(tmp_path / "task", "direct", 0) == direct()
    with pytest.raises(InterloomError, match="1 stories of the mode direct"):
        show.pick_story(stories, "direct", 1)


def test_the_command(stories: Path, tiny_umm: Path, tmp_path: Path):
    given = [str(stories), "--model", str(tiny_umm), "--mode", "reflection"]
    said = CliRunner().invoke(app, ["masks", *given])
    assert said.exit_code == 0, said.output
    assert "R2 learned" in said.output and "R1 context" in said.output
    page = tmp_path / "page.html"
    said = CliRunner().invoke(app, ["masks", *given, "--masking", "full", "--html", str(page)])
    assert said.exit_code == 0 and "Masking: full" in page.read_text()
