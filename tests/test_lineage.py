"""From a registered model back to its data: recorded, printed, followed in a fresh clone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_project.project import Project, copy_project

from interloom import lineage
from interloom.catalogue import open_catalogue
from interloom.errors import InterloomError
from interloom.lineage import Lineage

INTERLOOM = (sys.executable, "-m", "interloom.cli")
MODEL = "tiny-model"


@pytest.fixture(scope="module")
def reproduced(project_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after ``dvc repro``, committed but for what the pipeline wrote."""
    root = tmp_path_factory.mktemp("reproduced") / "project"
    project = copy_project(project_template, root, track=True)
    with (root / ".gitignore").open("a") as file:
        file.write("/metrics\n/models\n")
    project.run("git", "commit", "-qam", "track")
    project.repro()
    return project


@pytest.fixture
def made(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of that project."""
    shutil.copytree(reproduced.root, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project", reproduced.env)


def register(project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    """Record the lineage and register it as a model without weights; its URI."""
    monkeypatch.chdir(project.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = open_catalogue(project.root).client
    client.create_registered_model(MODEL)
    source = project.root / "models/1"
    lineage.record(
        project.root,
        source / lineage.FOLDER,
        read=[project.root / "outputs/total.txt", project.root / "outputs/squares"],
        datasets=[project.root / "outputs/squares"],
    )
    found = client.get_experiment_by_name("interloom")
    assert found is not None
    run, *_ = client.search_runs([found.experiment_id], "tags.`interloom.stage` = 'total'")
    client.create_model_version(MODEL, str(source), run_id=run.info.run_id)
    client.set_registered_model_alias(MODEL, "champion", "1")
    return f"models:/{MODEL}@champion"


def rebuild_commands(text: str) -> list[str]:
    """The lines under "rebuild"."""
    return [line.strip() for line in text.partition("\nrebuild\n")[2].splitlines()]


def follow(project: Project, commands: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the commands as a person would: one after the other, in a shell elsewhere."""
    folder.mkdir()
    elsewhere = Project(folder, project.env)
    return elsewhere.run("bash", "-e", "-c", "\n".join(commands), check=False)


def test_record_says_what_dvc_says(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    register(made, monkeypatch)
    folder = made.root / "models/1/lineage"
    found = lineage.load(folder)
    lock = yaml.safe_load((made.root / "dvc.lock").read_text())["stages"]
    md5 = {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"]}
    assert found.commit == made.run("git", "rev-parse", "HEAD").stdout.strip()
    assert (found.dirty, found.subfolder, found.pull) == (False, "", ())
    assert found.repository == str(made.root)
    assert found.targets == ("total",)
    assert found.read == {path: md5[path] for path in ("outputs/total.txt", "outputs/squares")}
    assert found.datasets == {
        path: md5[path] for path in ("outputs/numbers.txt", "outputs/squares")
    }
    assert found.disagrees == ()
    assert found.metrics["metrics/squares.json"] == {
        "sum": json.loads((made.root / "metrics/squares.json").read_text())["sum"]
    }
    assert set(found.metrics) == {"metrics/numbers.json", "metrics/squares.json"}
    assert (folder / "dvc.lock").read_text() == (made.root / "dvc.lock").read_text()
    assert not (folder / lineage.PATCH).exists()


def test_the_printed_commands_rebuild_it_in_a_fresh_clone(
    made: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = register(made, monkeypatch)
    said = made.run(*INTERLOOM, "lineage", uri).stdout
    run = open_catalogue(made.root).client.get_model_version(MODEL, "1").run_id
    for needle in (f"{MODEL} version 1 @champion", f"run        {run}", "as committed",
                   "agrees with what was read", "outputs/numbers.txt"):  # fmt: skip
        assert needle in said
    commands = rebuild_commands(said)
    assert [command.split()[0] for command in commands] == [
        "git", "cd", "git", f"MLFLOW_TRACKING_URI='sqlite:///{made.root}/mlflow.db'", "dvc",
        f"MLFLOW_TRACKING_URI='sqlite:///{made.root}/mlflow.db'",
    ]  # fmt: skip
    done = follow(made, commands, tmp_path / "elsewhere")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all 4 as in models:/tiny-model/1" in done.stdout
    assert "Running stage 'numbers'" in done.stdout, "nothing was fetched, everything was made"
    clone = Project(tmp_path / "elsewhere/rebuilt-tiny-model-1", made.env)
    assert clone.outputs() == made.outputs()


def test_uncommitted_changes_travel_with_the_model(
    made: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made.set_params(prompts={"count": 7})
    (made.root / "unknown.txt").write_text("git does not know me")
    made.repro()
    uri = register(made, monkeypatch)
    said = made.run(*INTERLOOM, "lineage", uri).stdout
    assert "with uncommitted changes, kept in uncommitted.patch" in said
    assert "not in git and so not kept: unknown.txt" in said
    done = follow(made, rebuild_commands(said), tmp_path / "elsewhere")
    assert done.returncode == 0, done.stdout + done.stderr
    clone = Project(tmp_path / "elsewhere/rebuilt-tiny-model-1", made.env)
    assert clone.outputs() == made.outputs()


def test_compare_finds_other_data_and_figures(
    made: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = register(made, monkeypatch)
    (made.root / "outputs/numbers.txt").write_text("1\n")
    figures = made.root / "metrics/squares.json"
    figures.write_text(json.dumps({"sum": 1.05 * json.loads(figures.read_text())["sum"]}))
    done = made.run(*INTERLOOM, "lineage", uri, "--compare", check=False)
    assert done.returncode == 1
    assert "DIFFERS  outputs/numbers.txt" in done.stdout
    assert "DIFFERS  metrics/squares.json  sum " in done.stdout
    assert "2 of 4 differ from models:/tiny-model@champion" in done.stdout
    again = made.run(*INTERLOOM, "lineage", uri, "--compare", "--tolerance", "0.1", check=False)
    assert "1 of 4 differ" in again.stdout


def test_stages_run_without_dvc_are_noticed(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    made.set_params(prompts={"count": 9})
    for name in ("numbers", "squares"):
        made.stage(name)
    register(made, monkeypatch)
    assert lineage.load(made.root / "models/1/lineage").disagrees == ("outputs/squares",)


def test_restore_wants_a_fresh_clone(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    register(made, monkeypatch)
    folder = made.root / "models/1/lineage"
    made.set_params(seed=9)
    with pytest.raises(InterloomError, match="has uncommitted changes"):
        lineage.restore(folder, made.root)
    made.run("git", "commit", "-qam", "other")
    with pytest.raises(InterloomError, match="git checkout"):
        lineage.restore(folder, made.root)


def test_errors_name_what_is_wrong(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    register(made, monkeypatch)
    wrong = {
        "tiny-model": "expected models:/NAME@ALIAS or models:/NAME/VERSION",
        "models:/tiny-model/7": "models:/tiny-model/7: ",
        "models:/nobody@champion": "models:/nobody@champion: ",
    }
    for uri, words in wrong.items():
        done = made.run(*INTERLOOM, "lineage", uri, check=False)
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    shutil.rmtree(made.root / "models/1/lineage")
    done = made.run(*INTERLOOM, "lineage", f"models:/{MODEL}/1", check=False)
    assert "tiny-model version 1 has no lineage" in done.stderr


def test_outside_of_git_there_is_nothing_to_clone() -> None:
    nowhere = Lineage(
        commit="none", branch="none", repository="", subfolder="", dirty=True, untracked=(),
        has_makefile=False, pull=(), targets=("total",), read={}, disagrees=(), datasets={},
        metrics={}, packages={}, python="3.11",
    )  # fmt: skip
    with pytest.raises(InterloomError, match="outside of git"):
        lineage.commands(nowhere, "models:/x/1", "sqlite:///x")


def test_a_project_in_a_subfolder_with_pulled_data_and_a_token_in_its_remote() -> None:
    there = Lineage(
        commit="c0ffee", branch="main", repository=lineage.without_secrets(
            "https://oauth2:SECRET@example.org/team/x.git"
        ),
        subfolder="ml/project", dirty=False, untracked=(), has_makefile=True, pull=("data.dvc",),
        targets=("evaluate",), read={}, disagrees=(), datasets={}, metrics={}, packages={},
        python="3.11",
    )  # fmt: skip
    assert lineage.commands(there, "models:/x/12", "http://mlflow:5000") == [
        "git clone https://example.org/team/x.git rebuilt-x-12",
        "cd rebuilt-x-12/ml/project",
        "git checkout --quiet c0ffee",
        "# in another environment: make install && . .venv/bin/activate",
        "MLFLOW_TRACKING_URI='http://mlflow:5000' interloom lineage models:/x/12 --restore",
        "dvc pull data.dvc",
        "dvc repro evaluate",
        "MLFLOW_TRACKING_URI='http://mlflow:5000' interloom lineage models:/x/12 --compare",
    ]
