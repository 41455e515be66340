"""Shipped data: a fresh clone has it without a network; two commands move it to S3."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_project.project import REPOSITORY, Project, free_port, wait_for

from interloom.digests import digest


@pytest.fixture
def shipped(project: Project) -> Project:
    """A project with a committed `data.dvc` and the repository's own DVC configuration."""
    for name in (".dvc/config", ".gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, project.root / name)
    (project.root / "scripts").mkdir()
    shutil.copy(REPOSITORY / "scripts/ship-data", project.root / "scripts")
    model = project.root / "data/generator"
    model.mkdir(parents=True)
    (model / "weights.safetensors").write_bytes(os.urandom(200_000))
    (model / "config.json").write_text("{}")
    said = project.run("./scripts/ship-data").stdout
    assert "the shipped remote holds 1 MiB" in said
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "data")
    return project


def clone(project: Project, target: Path) -> Project:
    project.run("git", "clone", "-q", str(project.root), str(target))
    return Project(target, project.env)


def test_data_is_not_in_git_but_its_remote_is(shipped: Project) -> None:
    files = shipped.run("git", "ls-files").stdout.splitlines()
    assert "data.dvc" in files
    assert any(name.startswith(".dvc-remote/files/md5/") for name in files)
    assert not any(name.startswith(("data/", "outputs/")) for name in files)


def test_fresh_clone_pulls_from_itself(shipped: Project, tmp_path: Path) -> None:
    fresh = clone(shipped, tmp_path / "clone")
    shutil.move(shipped.root, tmp_path / "gone")  # nothing but the clone may be needed
    assert not (fresh.root / "data").exists()
    fresh.run("dvc", "pull", "data.dvc")
    assert digest(fresh.root / "data") == digest(tmp_path / "gone/data")
    assert fresh.run("git", "status", "--porcelain").stdout == ""


@pytest.fixture
def s3() -> Iterator[str]:
    """A moto server; its URL."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [str(Path(sys.executable).parent / "moto_server"), "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        try:
            return urllib.request.urlopen(url, timeout=2).status == 200
        except (urllib.error.URLError, OSError):
            return False

    try:
        wait_for(answers, seconds=60)
        urllib.request.urlopen(urllib.request.Request(f"{url}/lab", method="PUT"), timeout=5)
        yield url
    finally:
        server.terminate()
        server.wait()


def test_two_commands_move_the_data_to_s3(shipped: Project, tmp_path: Path, s3: str) -> None:
    shipped.env = shipped.env | {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3,
    }
    shipped.run("dvc", "remote", "add", "--default", "s3", "s3://lab/interloom")
    shipped.run("dvc", "push")
    shipped.run("git", "rm", "-rq", ".dvc-remote")
    shipped.run("git", "commit", "-qam", "data on S3")
    fresh = clone(shipped, tmp_path / "clone")
    fresh.run("dvc", "pull", "data.dvc")
    assert digest(fresh.root / "data") == digest(shipped.root / "data")
