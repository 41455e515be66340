from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from interloom.errors import InterloomError
from interloom.params import read_params
from interloom.settings.file import change_params, load_settings, settings_from, use_profile

ROOT = Path(__file__).parent.parent


@pytest.fixture
def raw() -> dict[str, Any]:
    return copy.deepcopy(read_params(ROOT / "params.yaml"))


def refusal(raw: dict[str, Any]) -> str:
    with pytest.raises(InterloomError) as caught:
        settings_from(raw, "params.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *sorted(ROOT.glob("profiles/*.yaml"))])
def test_every_checked_in_profile_is_good(path: Path) -> None:
    settings = load_settings(path)
    assert settings.profile == (path.stem if path.parent.name == "profiles" else "pocket")


def test_paper_numbers() -> None:
    paper = load_settings(ROOT / "profiles/paper.yaml")
    assert paper.models.vlm == "Qwen/Qwen3-VL-8B-Instruct"
    assert paper.models.generator.model == "black-forest-labs/FLUX.2-klein-9B"
    assert (paper.models.generator.steps, paper.models.generator.guidance) == (4, 1.0)
    assert paper.models.max_image_pixels == 1024 * 1024
    assert paper.prompts.count == 40_000
    assert paper.trajectories.max_attempts == 5
    for sft in (paper.sft_planner, paper.sft_critic):
        assert (sft.epochs, sft.learning_rate, sft.batch_size) == (2, 2e-5, 32)
    grpo = paper.grpo_critic
    assert (grpo.epochs, grpo.learning_rate, grpo.batch_size) == (1, 2e-6, 16)
    assert (grpo.group_size, grpo.temperature, grpo.kl_coefficient) == (8, 1.0, 1e-3)
    assert grpo.alpha == 0.2


@pytest.mark.parametrize(
    ("section", "change", "said"),
    [
        ("prompts", {"cuont": 3}, "prompts.cuont: unknown key (did you mean count?)"),
        ("prompts", {"count": "3"}, "prompts.count = '3': expected a whole number ≥ 1"),
        ("prompts", {"count": 0}, "prompts.count = 0: expected a whole number ≥ 1"),
        ("prompts", {"count": 2.0}, "prompts.count = 2.0: expected a whole number ≥ 1"),
        ("prompts", {"count": True}, "prompts.count = True: expected a whole number ≥ 1"),
        ("prompts", {"count": None}, "prompts.count = None: expected a whole number ≥ 1"),
        ("grpo_critic", {"alpha": 1.5}, "grpo_critic.alpha = 1.5: expected a number ≥ 0, ≤ 1"),
        ("grpo_critic", {"alpha": float("nan")}, "grpo_critic.alpha = nan: expected a number"),
        ("grpo_critic", {"group_size": 1}, "grpo_critic.group_size = 1: expected a whole"),
        ("registration", {"model_name": "A b"}, "registration.model_name = 'A b': expected text"),
        ("teacher", {"backend": "gpt"}, "teacher.backend = 'gpt': allowed: pocket, gemini, openai"),
    ],
)
def test_refusals_name_key_value_and_range(
    raw: dict[str, Any], section: str, change: dict[str, Any], said: str
) -> None:
    raw[section] |= change
    assert said in refusal(raw)


def test_nested_missing_and_several(raw: dict[str, Any]) -> None:
    raw["models"]["generator"]["steps"] = 0
    del raw["prompts"]["count"]
    raw["unheard_of"] = {}
    text = refusal(raw)
    assert "models.generator.steps = 0: expected a whole number ≥ 1, ≤ 200" in text
    assert "prompts.count: missing; expected a whole number ≥ 1" in text
    assert "unheard_of: unknown key" in text


def test_files_that_are_no_params(tmp_path: Path) -> None:
    for content, said in [
        (b"a: [", "not YAML"),
        (b"- 1", "expected sections"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"a: 1\nb: 2\na: 3", 'found duplicate key "a" .*, line 3'),
    ]:
        (tmp_path / "params.yaml").write_bytes(content)
        with pytest.raises(InterloomError, match=said):
            load_settings(tmp_path / "params.yaml")
    with pytest.raises(InterloomError, match="no such file"):
        load_settings(tmp_path / "elsewhere.yaml")


def test_exponents_are_numbers_as_dvc_reads_them(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    raw = yaml.safe_load(text)
    value = raw["sft_planner"]["learning_rate"]
    changed = text.replace(f"learning_rate: {value}", "learning_rate: 1e-5")
    (tmp_path / "params.yaml").write_text(changed.replace("1.0e-3", "1e-3"), encoding="utf-8")
    assert load_settings(tmp_path / "params.yaml").sft_planner.learning_rate < 1


def test_profiles_change_places(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    for path in (Path("params.yaml"), Path("profiles/paper.yaml")):
        (tmp_path / path).write_bytes((ROOT / path).read_bytes())
    assert "is now profile paper" in use_profile(tmp_path, "paper")
    assert load_settings(tmp_path / "params.yaml").profile == "paper"
    assert [path.name for path in (tmp_path / "profiles").iterdir()] == ["pocket.yaml"]
    assert "already" in use_profile(tmp_path, "paper")
    with pytest.raises(InterloomError, match="no profile 'papre'; profiles: paper, pocket"):
        use_profile(tmp_path, "papre")
    use_profile(tmp_path, "pocket")
    assert (tmp_path / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_changed_params_keep_comments_and_stay_good(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    before = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path.write_text(before, encoding="utf-8")
    change_params(path, ["prompts.count=3", "models.generator.steps=2"])
    assert load_settings(path).prompts.count == 3
    assert load_settings(path).models.generator.steps == 2
    after = path.read_text(encoding="utf-8")
    changed = set(before.splitlines()) ^ set(after.splitlines())
    assert {line.split(":")[0].strip() for line in changed} == {"count", "steps"}
    wrongs = ("prompts.cuont=3", "prompts=3", "prompts.count", "prompts.count=x", "a.b.c=1")
    for wrong in (*wrongs, "prompts.count=["):
        with pytest.raises(InterloomError):
            change_params(path, [wrong])
    for wrong, said in [
        (
            "critic_data.lo=3",
            r"no key critic_data.lo in .* \(did you mean critic_data.low\?",
        ),
        ("critc_data.low=3", r"no key critc_data in params.yaml \(did you mean critic_data\?"),
        ("critic_data.low=11", "^params.yaml: critic_data.low = 11: expected a number ≥ 0, ≤ 10"),
    ]:
        with pytest.raises(InterloomError, match=said):
            change_params(path, [wrong])
    assert path.read_text(encoding="utf-8") == after
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(InterloomError, match=r"params.yaml: not YAML"):
        change_params(path, ["prompts.count=3"])


@pytest.mark.parametrize("path", ["params.yaml", "profiles/paper.yaml"])
def test_dvc_can_read_the_params_files(path: str, tmp_path: Path) -> None:
    """DVC reads YAML 1.2, which is stricter than what reads the settings.

    Also what ``interloom params set`` and ``dvc exp run -S`` make of them.
    """
    from dvc.utils.serialize import load_yaml, modify_yaml

    copy = tmp_path / "params.yaml"
    copy.write_bytes((ROOT / path).read_bytes())
    assert load_yaml(copy)["profile"]
    change_params(copy, ["prompts.count=3", "remote.http.base_urls=['http://a:1', 'http://b:2']"])
    assert load_yaml(copy)["remote"]["http"]["base_urls"] == ["http://a:1", "http://b:2"]
    copy.write_bytes((ROOT / path).read_bytes())
    with modify_yaml(copy) as content:
        content["prompts"]["count"] = 3
    assert load_yaml(copy)["prompts"]["count"] == load_settings(copy).prompts.count == 3
