"""`interloom lifecycle` with its options, on the real stages that need no model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import bare_project
import pytest
import yaml
from tiny_project.project import Project

from interloom.stages import STAGES


@pytest.fixture
def project(tmp_path: Path, prefect_server_env: dict[str, str]) -> Project:
    made = bare_project.make(tmp_path / "project", 30)
    return Project(made.root, made.env | prefect_server_env)


def test_every_stage_is_in_one_part_of_the_lifecycle() -> None:
    from flows.lifecycle import PARTS

    assert sorted(name for _, own in PARTS for name in own) == sorted(s.name for s in STAGES)


def lifecycle(project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "interloom.cli", "lifecycle", *words)
    return project.run(*command, check=False, GEMINI_API_KEY="")


def test_one_stage_then_nothing_then_another_profile(project: Project) -> None:
    done = lifecycle(project, "--only", "prompts", "--retries", "0", "--timeout-minutes", "20")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Lifecycle finished in " in done.stdout
    assert list(yaml.safe_load((project.root / "dvc.lock").read_text())["stages"]) == ["prompts"]
    again = lifecycle(project, "--only", "prompts")
    assert again.stdout == "Everything is up to date: DVC found no stage to run.\n"
    other = lifecycle(project, "--profile", "paper", "--only", "prompts")
    assert other.returncode == 1
    assert yaml.safe_load((project.root / "params.yaml").read_text())["profile"] == "paper"
    assert (project.root / "profiles/pocket.yaml").is_file()
    last = other.stderr.strip().splitlines()[-1]
    assert "interloom: remote.gemini.api_key_env: set GEMINI_API_KEY" in last
