from __future__ import annotations

from pathlib import Path

import pytest

from interloom import cast
from interloom.backends.pocket import PocketJudge, PocketTeacher
from interloom.errors import InterloomError
from interloom.settings import load_settings

HERE = Path(__file__).parents[1]
POCKET = load_settings(HERE / "params.yaml")
PAPER = load_settings(HERE / "profiles/paper.yaml")


def test_pocket_roles():
    teacher = cast.teacher(POCKET.teacher)
    assert isinstance(teacher, PocketTeacher)
    assert teacher.imperfection.wrong_judgment == POCKET.teacher.pocket.wrong_judgments
    assert isinstance(cast.judge(POCKET.teacher), PocketJudge)


def test_missing_weights_are_named(tmp_path: Path):
    settings = POCKET.models.generator.model_copy(update={"model": str(tmp_path / "none")})
    with pytest.raises(InterloomError, match="none: cannot be loaded"):
        cast.generator(settings)


def test_backends_that_are_not_there_are_named():
    with pytest.raises(InterloomError, match=r"teacher\.backend = 'gemini'"):
        cast.teacher(PAPER.teacher)
    with pytest.raises(InterloomError, match=r"teacher\.judge_backend = 'gemini'"):
        cast.judge(PAPER.teacher)
    with pytest.raises(InterloomError, match="backend = 'gemini'"):
        cast.generator(PAPER.models.generator_weak)
