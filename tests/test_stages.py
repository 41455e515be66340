from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from interloom.code import code_of
from interloom.digests import digest
from interloom.errors import InterloomError
from interloom.settings.file import Settings, load_settings
from interloom.stages import (
    ITEM,
    STAGES,
    all_cells,
    cells,
    downstream,
    find_stage,
    to_dvc,
    upstream,
    wanted_stages,
)

ROOT = Path(__file__).parent.parent


def test_dvc_yaml_says_what_the_list_says() -> None:
    written: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    said = to_dvc({spec.name: code_of(spec.module) for spec in STAGES})
    for name, stage in said["stages"].items():
        assert written["stages"].get(name) == stage, f"{name}: run `interloom stages --write`"
    assert list(written["stages"]) == list(said["stages"])


def test_every_dependency_is_made_by_an_earlier_stage_or_shipped() -> None:
    made: set[str] = set()
    for spec in STAGES:
        for path in spec.deps.values():
            shipped = path.startswith("data/")
            made_before = {out.removesuffix(f"/{ITEM}") for out in made}
            assert shipped or any(Path(path).is_relative_to(out) for out in made_before), path
        made |= set(spec.products.values())


def test_no_two_stages_write_one_path() -> None:
    paths = [path for spec in STAGES for path in spec.products.values()]
    assert len(set(paths)) == len(paths)


def test_sections_exist() -> None:
    for spec in STAGES:
        assert set(spec.sections) <= set(Settings.model_fields), spec.name


def test_outputs_are_ignored_by_git() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    for spec in STAGES:
        for path in (*spec.outs.values(), *spec.plots.values()):
            assert f"/{Path(path).parts[0]}/" in ignored, path


def test_order_follows_the_graph() -> None:
    assert [spec.name for spec in upstream(find_stage("grpo-critic"))] == [
        "critic-data", "validate", "sft-critic",
    ]  # fmt: skip
    assert [spec.name for spec in downstream("grpo-critic")] == [
        "grpo-critic", "generate", "evaluate", "report", "register",
    ]  # fmt: skip
    assert [spec.name for spec in upstream(find_stage("evaluate"))] == ["generate"]
    assert downstream("prompts") == [spec for spec in STAGES if spec.system == "agents"]


def test_a_lifecycle_runs_the_stages_of_one_system() -> None:
    agents = wanted_stages(None, None)
    assert agents == [spec.name for spec in STAGES if spec.system == "agents"]
    assert agents[0] == "prompts" and agents[-1] == "register"
    adaptive = wanted_stages(None, None, "adaptive")
    assert adaptive[0] == "adaptive-data" and not set(adaptive) & set(agents)
    assert wanted_stages("adaptive-data", None) == adaptive, "a named stage says which system"
    assert wanted_stages(None, "adaptive-data") == ["adaptive-data"]
    with pytest.raises(InterloomError, match="'prompts' is not of the system 'adaptive'"):
        wanted_stages("prompts", None, "adaptive")


def test_a_matrix_has_a_cell_for_each_value() -> None:
    settings = load_settings(ROOT / "params.yaml")
    found = cells(find_stage("generate"), settings)
    assert [cell.name for cell in found] == ["generate@ueval", "generate@wise", "generate@rise"]
    assert found[1] == find_stage("generate@wise")
    assert (found[1].value, found[1].outs) == ("wise", {"answers": "outputs/answers/wise"})
    assert cells(found[1], settings) == (found[1],)
    assert cells(find_stage("report"), settings) == (find_stage("report"),)
    names = all_cells(["grpo-critic", "generate", "evaluate"], settings)
    assert names == ["grpo-critic", *(cell.name for cell in found), "evaluate"]
    with pytest.raises(
        InterloomError, match=r"generate@kris: evaluate\.benchmarks has ueval, wise"
    ):
        cells(find_stage("generate@kris"), settings)
    with pytest.raises(InterloomError, match="no stage 'report@x'"):
        find_stage("report@x")


def test_unknown_stage_lists_the_known() -> None:
    with pytest.raises(InterloomError, match="no stage 'prompt'; stages: prompts, trajectories"):
        find_stage("prompt")


def test_code_follows_imports_and_leaves_the_machinery_out() -> None:
    code = code_of("interloom.loop")
    assert "src/interloom/loop.py" in code
    assert "src/interloom/records.py" in code
    assert not any("runner" in path or "settings" in path for path in code)
    assert code_of("interloom.no_such_module") == ()


def test_digest_of_folder_depends_on_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "a" / "sub").mkdir(parents=True)
    (tmp_path / "a" / "sub" / "x").write_text("1")
    first = digest(tmp_path / "a")
    (tmp_path / "a" / "__pycache__").mkdir()
    (tmp_path / "a" / "__pycache__" / "y.pyc").write_text("2")
    assert digest(tmp_path / "a") == first
    (tmp_path / "a" / "sub" / "x").rename(tmp_path / "a" / "x")
    assert digest(tmp_path / "a") != first
    assert first.endswith(".dir")
    assert len(first) == 36


def test_large_files_are_remembered_until_they_change(tmp_path: Path) -> None:
    memory, large = tmp_path / "memory.sqlite", tmp_path / "large"
    large.write_bytes(bytes(2 << 20))
    first = digest(large, memory)
    assert first == digest(large, memory) == digest(large)
    large.write_bytes(b"1" + bytes((2 << 20) - 1))
    assert digest(large, memory) == digest(large) != first
