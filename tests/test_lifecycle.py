"""The real lifecycle on the shipped models, short: killed in every stage, and run as a flow."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tiny_project.project import ENVIRONMENT, REPOSITORY, Project, kill_group

from interloom.digests import digest
from interloom.settings.file import load_settings
from interloom.stages import STAGES, cells

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        not (REPOSITORY / "data/vlm").is_dir(), reason="no data/ here: run `dvc pull data.dvc`"
    ),
]
AGENTS = [spec for spec in STAGES if spec.system == "agents"]
DATA_STAGES = ("prompts", "trajectories", "critic-data", "planner-data")
VARYING = ("calls_known",)
TOLERANCE = 1e-4
"""Relative, between the metrics of an interrupted and an uninterrupted training."""


def real_project(root: Path) -> Project:
    """A copy of this repository with short params and nothing computed."""
    root.mkdir(parents=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if name.startswith((".dvc-remote/", "tests/", "dvc.lock", "metrics/")):
            continue
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, root / name)
    shutil.copytree(REPOSITORY / "data", root / "data")
    path = os.pathsep.join([str(root / "src"), str(root)])
    project = Project(root, ENVIRONMENT | {"PYTHONPATH": path, "INTERLOOM_MLFLOW_URL": ""})
    config = root / ".dvc/config"
    shipped = f"url = {REPOSITORY / '.dvc-remote'}"
    config.write_text(config.read_text().replace("url = ../.dvc-remote", shipped))
    project.run("git", "init", "-q")
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=t", "-c", "user.email=t@x.org", "commit", "-qm", "x")
    short = (REPOSITORY / "scripts/short.params").read_text(encoding="utf-8").split()
    project.run(sys.executable, "-m", "interloom.cli", "params", "set", *short)
    return project


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, float]]:
    """A finished lifecycle and the seconds of each stage."""
    project = real_project(tmp_path_factory.mktemp("undisturbed") / "project")
    seconds: dict[str, float] = {}
    for spec in AGENTS:
        began = time.monotonic()
        project.run("dvc", "repro", "-s", spec.name)
        seconds[spec.name] = time.monotonic() - began
    return project, seconds


def test_repeated_run_is_a_quick_no_op(undisturbed: tuple[Project, dict[str, float]]) -> None:
    project, _ = undisturbed
    began = time.monotonic()
    said = project.run(sys.executable, "-m", "interloom.cli", "lifecycle").stdout
    took = time.monotonic() - began
    print(f"no-op lifecycle: {took:.1f} s")
    assert "up to date" in said
    assert took < 15


def test_killed_in_every_stage_the_result_is_the_same(
    undisturbed: tuple[Project, dict[str, float]], tmp_path: Path
) -> None:
    """kill -9 of dvc and stage at a random moment of each stage; then repro to the end."""
    reference, seconds = undisturbed
    project = real_project(tmp_path / "project")
    chance = random.Random(5)
    for spec in AGENTS:
        process = project.start("dvc", "repro", "-s", spec.name)
        time.sleep(chance.uniform(0.1, 0.95) * seconds[spec.name])
        kill_group(process)
        project.run("dvc", "repro", "-s", spec.name)
    assert project.leftovers() == []
    for spec in AGENTS:
        settings = load_settings(project.root / "params.yaml")
        outs = [path for cell in cells(spec, settings) for path in cell.outs.values()]
        for path in outs:
            assert (project.root / path).exists()
            if spec.name in DATA_STAGES:
                assert digest(project.root / path) == digest(reference.root / path), path
        for path in spec.metrics.values():
            ours, theirs = (
                json.loads((where.root / path).read_text()) for where in (project, reference)
            )
            assert_near(ours, theirs, path)


def assert_near(ours: object, theirs: object, where: str) -> None:
    """The same numbers within the tolerance, but for what a resumed run reused."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            if not any(word in key for word in VARYING):
                assert_near(ours[key], theirs[key], f"{where} {key}")
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, rel=TOLERANCE, abs=TOLERANCE), where
    else:
        assert ours == theirs, where


def test_flow_gives_what_dvc_gives(
    undisturbed: tuple[Project, dict[str, float]], tmp_path: Path
) -> None:
    reference, _ = undisturbed
    project = real_project(tmp_path / "project")
    done = project.run(sys.executable, "-m", "interloom.cli", "lifecycle")
    assert "Lifecycle finished" in done.stdout
    assert "Registry: promotion of 1, champion none → 1" in done.stdout
    assert "Open the report: file://" in done.stdout
    locks = [
        yaml.safe_load((where.root / "dvc.lock").read_text())["stages"]
        for where in (project, reference)
    ]
    assert locks[0].keys() == locks[1].keys()
    for name in DATA_STAGES:
        assert locks[0][name]["outs"] == locks[1][name]["outs"], name


def test_lineage_of_the_registered_pipeline_rebuilds_it(
    undisturbed: tuple[Project, dict[str, float]], tmp_path: Path
) -> None:
    """The printed commands, followed in a fresh clone, give the same data and figures."""
    project, _ = undisturbed
    model = "models:/interloom-pipeline@challenger"
    said = project.run(sys.executable, "-m", "interloom.cli", "lineage", model).stdout
    assert "kept in uncommitted.patch" in said, "the short params are not committed"
    assert "agrees with what was read" in said
    commands = [line.strip() for line in said.partition("\nrebuild\n")[2].splitlines()]
    assert "dvc pull data.dvc" in commands
    assert "dvc repro evaluate" in commands
    elsewhere = Project(tmp_path, project.env)
    done = elsewhere.run("bash", "-e", "-c", "\n".join(commands), check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "as in models:/interloom-pipeline/1" in done.stdout
    print(done.stdout.partition("same ")[2])
