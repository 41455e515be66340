"""``interloom show``: samples and the coverage table, on the terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_project import Project
from typer.testing import CliRunner

from interloom.construct.commands import app
from interloom.errors import InterloomError


def shown(*words: str) -> str:
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_taxonomy_is_shown():
    text = shown("taxonomy", "--count", "900", "--number", "5", "--only", "ecology")
    assert text.count("[science / ecology / ") == 5
    assert "8 categories" in text.splitlines()[-1] and "81 sub-categories" in text
    assert text == shown("taxonomy", "--count", "900", "--number", "5", "--only", "ecology")
    only_table = shown("taxonomy", "--count", "300", "--number", "0")
    assert "[" not in only_table and len(only_table.splitlines()) == 83


def test_what_the_stage_wrote_is_shown(copied_project: Project, monkeypatch: pytest.MonkeyPatch):
    for name in ("params.yaml", "dvc.yaml"):
        copied_project[name].touch()
    monkeypatch.chdir(copied_project.root)
    text = shown("prompts", "--number", "100")
    assert text.count("\n[") + text.startswith("[") == 60
    assert "60" in text.splitlines()[-1]
    with pytest.raises(
        InterloomError, match=r"--only 'cookery': no such requests; categories: art"
    ):
        shown("prompts", "--only", "cookery")


def test_a_page_of_trajectories(copied_project: Project, monkeypatch: pytest.MonkeyPatch):
    for name in ("params.yaml", "dvc.yaml"):
        copied_project[name].touch()
    monkeypatch.chdir(copied_project.root)
    text = shown("trajectories", "--number", "7", "--outcome", "repaired")
    page = copied_project["outputs/show/trajectories.html"]
    assert text == f"Open {page}\n"
    assert page.read_text().count('data-outcome="repaired"') == 7
    assert 'class="mark"' in page.read_text(), "with scores, as there are some"
    with pytest.raises(InterloomError, match="no trajectory of category 'cookery'"):
        shown("trajectories", "--category", "cookery")


def test_nothing_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InterloomError, match="run the stage that makes it"):
        shown("prompts")
