"""Killing stages at random and at chosen moments: the lifecycle completes as if nothing was."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from tiny_project.project import Project, copy_project, kill_group, stage_command, wait_for

from interloom import dvc_state


@pytest.fixture(scope="module")
def reference(project_template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests that the tiny lifecycle has when nothing disturbs it."""
    project = copy_project(project_template, tmp_path_factory.mktemp("reference") / "project")
    project.repro()
    assert len(project.outputs()) == 6
    return project.outputs()


@pytest.mark.parametrize("seed", range(3))
def test_kill_at_a_random_moment_then_repro(
    project: Project, reference: dict[str, str], seed: int
) -> None:
    """Kill dvc and the stage together, twice; then the result is as if nothing happened.

    Now and then the kill cuts off one of DVC's own files, so the lifecycle's first step is taken.
    """
    chance = random.Random(seed)
    for _ in range(2):
        process = project.start("dvc", "repro", TINY_PAUSE="0.05")
        time.sleep(chance.uniform(0.6, 2.2))
        kill_group(process)
        dvc_state.repair(project.root)
    project.repro()
    assert project.outputs() == reference
    assert project.leftovers() == []


@pytest.mark.parametrize("seed", range(2))
def test_kill_of_the_stage_alone_then_repro(
    project: Project, reference: dict[str, str], seed: int
) -> None:
    """Kill only the stage's process, as the kernel's memory killer does."""
    import psutil

    project.stage("numbers")
    chance = random.Random(seed)
    dvc = project.start("dvc", "repro", TINY_PAUSE="0.1")
    stage = ""

    def stage_runs() -> bool:
        nonlocal stage
        lock = project.root / ".interloom/work/squares.lock"
        stage = lock.read_text() if lock.exists() else ""
        return bool(stage)

    wait_for(stage_runs)
    time.sleep(chance.uniform(0, 1))
    psutil.Process(int(stage)).kill()
    dvc.communicate(timeout=60)
    assert dvc.returncode != 0
    assert not (project.root / "outputs/squares").exists()
    project.repro()
    assert project.outputs() == reference
    assert project.leftovers() == []


def test_a_killed_stage_goes_on_from_its_checkpoint(project: Project) -> None:
    project.stage("numbers")
    process = project.start(*stage_command("squares"), TINY_PAUSE="0.3")
    wait_for(lambda: list(project.root.glob(".interloom/work/squares/*/done.json")))
    kill_group(process)
    resumed = project.stage("squares")
    assert "starting at 0" not in resumed.stdout
    assert "starting at" in resumed.stdout


@pytest.mark.parametrize("moment", range(1, 5))
def test_kill_between_renames(project: Project, reference: dict[str, str], moment: int) -> None:
    """Stop dead at the n-th move of an output into place; the next run puts the rest in place."""
    project.stage("numbers")
    script = (
        "import os, signal, sys, tiny_stages\n"
        "from pathlib import Path\n"
        "from interloom import atomic\n"
        "from interloom.settings.file import load_settings\n"
        "real, count = atomic._rename, 0\n"
        "def rename(source, target):\n"
        "    global count\n"
        "    count += 1\n"
        f"    if count == {moment}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(source, target)\n"
        "atomic._rename = rename\n"
        "tiny_stages.run_stage(tiny_stages.STAGES['squares'], load_settings(), Path.cwd())\n"
    )
    (project.root / "outputs/squares").mkdir()
    (project.root / "outputs/squares/old.txt").write_text("old")
    done = project.run(stage_command("x")[0], "-c", script, check=False)
    assert done.returncode == -signal.SIGKILL
    again = project.stage("squares")
    assert "everything was written" in again.stdout
    project.stage("total")
    assert project.outputs() == reference
    assert project.leftovers() == []


def test_sigterm_cleans_up(project: Project) -> None:
    project.stage("numbers")
    process = project.start(*stage_command("squares"), TINY_PAUSE="0.5")
    wait_for(lambda: list(project.root.glob(".interloom/work/squares/*/done.json")))
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 128 + signal.SIGTERM
    assert project.leftovers() == []


def test_stage_ends_when_its_dvc_is_killed(project: Project) -> None:
    """Nobody would commit the outputs of an orphan, and it would hold the stage's lock."""
    import psutil

    process = project.start("dvc", "repro", "-s", "numbers", TINY_PAUSE="60")
    lock = project.root / ".interloom/work/numbers.lock"
    wait_for(lambda: lock.exists() and lock.read_text())
    stage = psutil.Process(int(lock.read_text()))
    time.sleep(0.5)
    process.kill()
    process.wait()
    wait_for(lambda: not stage.is_running() or stage.status() == "zombie", seconds=15)
    project.repro()


def test_two_at_once_of_one_stage(project: Project) -> None:
    project.stage("numbers")
    first = project.start(*stage_command("squares"), TINY_PAUSE="0.2")
    wait_for(lambda: list(project.root.glob(".interloom/work/squares/*/done.json")))
    project.stage("squares")  # waits for the first
    assert first.wait(timeout=30) == 0
