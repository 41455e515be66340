"""Systems are what the params name: the project's own, remote ones, ones of the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmark_params import small_params
from model_server import (
    CRITIQUE,
    MODEL,
    PLAN,
    REQUEST,
    Asked,
    Said,
    openai,
    openai_picture,
    picture,
    remotes,
    serving,
)

from interloom import loop
from interloom.backends.transformers import ChatModel
from interloom.benchmarks.answers import Players
from interloom.benchmarks.cells import is_known
from interloom.benchmarks.filled import run_figures
from interloom.benchmarks.parts import AGENTS, described, identity, parts_of, writes_text
from interloom.benchmarks.systems import loader
from interloom.cache import CallCache
from interloom.records import Critique, Plan
from interloom.roles import CritiqueCase
from interloom.settings.evaluation import AgentsSettings, RegisteredSettings
from interloom.settings.file import Settings, settings_from

REGISTERED = {"registered": "models:/interloom-pipeline@champion"}


def settings_with(**systems: Any) -> Settings:
    raw = small_params(more_systems=systems)
    raw["evaluate"]["systems"] = list(systems)
    return settings_from(raw, "test")


def remote_system() -> dict[str, Any]:
    generator = small_params()["models"]["generator"] | {
        "backend": "openai", "model": MODEL, "call": {},
    }  # fmt: skip
    agent = f"openai:{MODEL}"
    return {"planner": agent, "critic": agent, "generator": generator, "max_attempts": 2}


def test_the_projects_own_systems_are_parts_too():
    settings = settings_from(small_params(max_attempts=3), "test")
    for name, (planner, critic) in AGENTS.items():
        parts = parts_of(name, settings.evaluate)
        assert isinstance(parts, AgentsSettings)
        assert (parts.planner, parts.critic) == (planner, critic)
        assert parts.max_attempts == (1 if name == "generator" else 3)
        assert parts.generator == settings.evaluate.generator
        assert writes_text(parts) == (name != "generator")


def test_a_systems_identity_is_what_decides_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/generator-weak").mkdir(parents=True)
    settings = settings_with(mine=REGISTERED, once=remote_system())

    def told(name: str, settings: Settings = settings) -> dict[str, Any]:
        return identity(name, settings, lambda dep: f"digest of {dep}", lambda uri: "7")

    assert described(told("mine")) == "models:/interloom-pipeline@champion (version 7)"
    assert told("full-rl")["digests"] == {
        "planner-sft": "digest of planner-sft", "critic-rl": "digest of critic-rl",
        "generator-weak": "digest of generator-weak",
    }  # fmt: skip
    assert "teacher" in told("oracle") and "teacher" not in told("full-rl")
    assert "answer_retries" not in told("generator"), "nobody answers there"
    assert described(told("once")) == (
        f"planner openai:{MODEL}, critic openai:{MODEL}, openai {MODEL}, T_max 2"
    )
    raw = small_params()
    raw["evaluate"]["max_attempts"] = 4
    other = settings_from(raw, "test")
    assert told("full-rl", other) != told("full-rl")
    assert told("generator", other) == told("generator"), "it has one attempt whatever T_max is"


def test_cells_are_known_by_their_whole_key(tmp_path: Path):
    assert not is_known(tmp_path, {"seed": 1})
    (tmp_path / "key.json").write_text('{"seed": 1, "system"')
    assert not is_known(tmp_path, {"seed": 1}), "killed while it was written"
    (tmp_path / "key.json").write_text('{"seed": 1, "ids": ["a"]}')
    assert is_known(tmp_path, {"ids": ("a",), "seed": 1})
    assert not is_known(tmp_path, {"ids": ("a",), "seed": 2})


def test_a_system_may_be_remote_altogether(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    passed = CRITIQUE | {"previous_step_success": True}

    def answer(asked: Asked) -> Said:
        if "/images/" in asked.path:
            return openai_picture(picture("green"))
        schema = asked.json["response_format"]["json_schema"]["schema"]
        return openai(PLAN if "execution_plan" in schema["properties"] else passed)

    cache = CallCache(tmp_path / "calls.sqlite")
    with serving(answer) as server:
        opened = remotes(tmp_path, "openai", server.url)
        players = Players(settings_with(api=remote_system()), {}, opened, cache)
        system, generator = players.system("api")
        (made,) = loop.run(
            [REQUEST], system.planner, generator, system.critic,
            max_attempts=system.max_attempts, seed=1,
        )  # fmt: skip
        assert players.system("api")[1] is generator, "made once"
    assert isinstance(made.plan, Plan) and len(made.steps) == 2
    assert all(
        t.accepted and t.accepted.critique and t.accepted.critique.success for t in made.steps
    )
    assert run_figures([made], 2.0) == {
        "requests": 1, "images_per_request": 2, "steps_per_request": 2, "without_plan": 0,
        "failed_calls": 0, "seconds": 2,
    }  # fmt: skip


def test_systems_that_share_a_model_load_it_once(
    tmp_path: Path, tiny_vlm: Path, monkeypatch: pytest.MonkeyPatch
):
    loaded: list[Path] = []
    load = ChatModel.from_pretrained

    def noted(folder: Path, **options: Any) -> ChatModel:
        loaded.append(folder)
        return load(folder, **options)

    monkeypatch.setattr(ChatModel, "from_pretrained", noted)
    folders = {name: tiny_vlm for name in ("planner-sft", "critic-sft", "vlm")}
    settings = settings_from(small_params(), "test")
    make = loader(
        settings.models, settings.teacher, settings.evaluate, folders, "cpu",
        remotes(tmp_path, "openai"), None,
    )  # fmt: skip
    for name in ("planner-sft", "full-sft", "zero-shot"):
        system = make(name)
        assert system.critic is not None
    assert len(loaded) == 3, "planner, its critic's base model, and the trained critic"
    case = CritiqueCase(before=None, after=picture(), prompt="p", used_prompt="p")
    (judged,) = make("full-sft").critic.critique([case])  # type: ignore[union-attr]
    assert not isinstance(judged, Critique), "random weights say nothing that can be read"


def test_a_registered_system_names_model_and_alias_or_version():
    assert isinstance(settings_with(a=REGISTERED).evaluate.more_systems["a"], RegisteredSettings)
    settings_with(a={"registered": "models:/x/3"})
