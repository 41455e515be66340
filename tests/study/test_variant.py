from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from interloom.errors import InterloomError
from interloom.study.variant import prepare, reproduce

REPOSITORY = Path(__file__).parents[2]
SMALL = ("prompts.count=12", "tracking.enabled=false")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with what the stage ``prompts`` needs."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    (folder / "src").symlink_to(REPOSITORY / "src")
    return folder


def test_variants_share_what_they_have_in_common(root: Path, tmp_path: Path):
    logs = []
    for name, changes in (("a", SMALL), ("b", (*SMALL, "grpo_critic.alpha=1"))):
        folder = tmp_path / "study" / name
        prepare(root, folder, changes, tmp_path / "study/cache")
        reproduce(folder, "prompts", folder / "repro.log")
        logs.append((folder / "repro.log").read_text())
        assert (folder / "outputs/prompts.parquet").is_file()
        assert (folder / "metrics/prompts.json").is_file()
    assert "Running stage 'prompts'" in logs[0]
    assert "Stage 'prompts' is cached" in logs[1]
    # Again, after a kill: nothing is left to do.
    prepare(root, tmp_path / "study/b", (*SMALL, "grpo_critic.alpha=1"), tmp_path / "study/cache")
    reproduce(tmp_path / "study/b", "prompts", tmp_path / "study/b/again.log")
    assert "up to date" in (tmp_path / "study/b/again.log").read_text()


def test_a_variant_that_fails_names_its_log(root: Path, tmp_path: Path):
    folder = tmp_path / "study/a"
    prepare(root, folder, SMALL, tmp_path / "study/cache")
    with pytest.raises(InterloomError, match=r"a failed .*see .*repro\.log"):
        reproduce(folder, "no-such-stage", folder / "repro.log")
    with pytest.raises(InterloomError, match="KEY=VALUE"):
        prepare(root, folder, ("prompts.cuont=1",), tmp_path / "study/cache")
