from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from interloom import cast
from interloom.backends import transformers
from interloom.backends.pocket import PocketJudge, PocketTeacher
from interloom.backends.remote import Remotes
from interloom.errors import InterloomError
from interloom.pocket import knowledge
from interloom.settings.file import load_settings

HERE = Path(__file__).parents[1]
POCKET = load_settings(HERE / "params.yaml")
PAPER = load_settings(HERE / "profiles/paper.yaml")


def test_pocket_roles():
    teacher = cast.teacher(POCKET.teacher)
    assert isinstance(teacher, PocketTeacher)
    assert teacher.imperfection.wrong_judgment == POCKET.teacher.pocket.wrong_judgments
    assert isinstance(cast.judge(POCKET.teacher), PocketJudge)


def test_only_the_pocket_worlds_requests_can_be_held_out():
    facts = [(phrase, None) for r in knowledge.riddles("evaluation") for phrase in r.phrases[:1]]
    assert any(cast.held_out(POCKET.prompts)(*fact) for fact in facts)
    assert not any(cast.held_out(PAPER.prompts)(*fact) for fact in facts)


def test_missing_weights_are_named(tmp_path: Path):
    settings = POCKET.models.generator.model_copy(update={"model": str(tmp_path / "none")})
    with pytest.raises(InterloomError, match="none: cannot be loaded"):
        cast.generator(settings)


def cut_off(folder: Path, copy: Path) -> Path:
    """A copy of a model whose largest weights file lost its second half."""
    shutil.copytree(folder, copy)
    weights = max(copy.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return copy


def test_damaged_weights_are_named(tmp_path: Path, tiny_generator: Path, tiny_vlm: Path):
    broken = cut_off(tiny_generator, tmp_path / "generator")
    settings = POCKET.models.generator.model_copy(update={"model": str(broken)})
    with pytest.raises(InterloomError, match="generator: cannot be loaded"):
        cast.generator(settings)
    with pytest.raises(InterloomError, match="vlm: the weights are damaged"):
        transformers.load_model(cut_off(tiny_vlm, tmp_path / "vlm"))


def test_keys_and_prices_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    with pytest.raises(InterloomError, match=r"remote\.gemini\.api_key_env: set GEMINI_API_KEY"):
        cast.teacher(PAPER.teacher, Remotes(PAPER.remote, tmp_path / "ledger.sqlite"))
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    unpriced = PAPER.teacher.model_copy(update={"judge_model": "gemini-9"})
    with pytest.raises(InterloomError, match=r"remote\.gemini\.prices: no price for gemini-9"):
        cast.judge(unpriced, Remotes(PAPER.remote, tmp_path / "ledger.sqlite"))


def test_every_model_of_the_profiles_has_a_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    remotes = Remotes(PAPER.remote, tmp_path / "ledger.sqlite")
    assert cast.teacher(PAPER.teacher, remotes).name == PAPER.teacher.model
    cast.judge(PAPER.teacher, remotes)
    weak = cast.generator(PAPER.models.generator_weak, remotes)
    assert weak.name == PAPER.models.generator_weak.model
