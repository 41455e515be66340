"""DVC's own commands do here what a user of DVC expects of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import bare_project
import pytest
from bare_project import commit
from test_tracking import runs_of, sqlite, stage_runs
from tiny_project.project import ENVIRONMENT, Project, copy_project


@pytest.fixture(scope="module")
def finished(project_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose lifecycle has run and is committed, as a DVC user has it."""
    folder = tmp_path_factory.mktemp("finished") / "project"
    project = copy_project(project_template, folder, track=True)
    project.repro()
    commit(project)
    return project.root


@pytest.fixture
def mine(finished: Path, tmp_path: Path) -> Project:
    root = shutil.copytree(finished, tmp_path / "project", symlinks=True)
    return Project(root, ENVIRONMENT)


def told(project: Project, *words: str) -> Any:
    """What a DVC command says in JSON."""
    return json.loads(project.run("dvc", *words, "--json").stdout)


def test_params_and_metrics_diff(mine: Project) -> None:
    assert told(mine, "params", "diff") == {}
    mine.set_params(prompts={"count": 7})
    assert told(mine, "params", "diff")["params.yaml"]["prompts.count"] == {
        "old": 5, "new": 7, "diff": 2,
    }  # fmt: skip
    assert "numbers" in told(mine, "status")
    mine.repro()
    figures = told(mine, "metrics", "diff")["metrics/numbers.json"]
    assert figures["count"] == {"old": 5, "new": 7, "diff": 2}


def test_stages_and_their_graph(mine: Project) -> None:
    assert [line.split()[0] for line in mine.run("dvc", "stage", "list").stdout.splitlines()] == [
        "numbers", "squares", "total",
    ]  # fmt: skip
    assert '"squares" -> "total"' in mine.run("dvc", "dag", "--dot").stdout


def test_experiment_in_place(mine: Project) -> None:
    """``-S`` changes params.yaml; only what depends on the changed section runs."""
    said = mine.run("dvc", "exp", "run", "-n", "rows", "-S", "trajectories.shard_rows=9").stdout
    assert "'numbers' didn't change" in said
    assert "Running stage 'squares'" in said
    assert "shard_rows: 9" in (mine.root / "params.yaml").read_text()
    (change,) = told(mine, "exp", "diff")["params"]["params.yaml"].values()
    assert (change["old"], change["new"]) == (100, 9)
    mine.run("git", "checkout", "-q", "--", ".")
    mine.run("dvc", "exp", "apply", "rows")
    assert told(mine, "status") == {}, "the experiment came back whole, nothing is to be run again"
    run = next(one for one in runs_of(sqlite(mine)) if "dvc.experiment" in one.data.tags)
    assert run.data.tags["dvc.experiment"] == "rows"


def test_experiment_in_a_copy_is_recorded_in_the_project(mine: Project) -> None:
    """The copy is thrown away; its runs must not be."""
    (mine.root / "mlflow.db").unlink()  # so that the copy is what makes it
    mine.run("dvc", "exp", "run", "--temp", "-n", "aside", "-S", "prompts.count=6")
    assert mine.run("git", "status", "--porcelain").stdout == ""
    stages = stage_runs(sqlite(mine))
    assert set(stages) == {"numbers", "squares", "total"}
    run = stages["squares"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["dvc.experiment"] == "aside"
    assert run.data.tags["interloom.git_dirty"] == "true", "params.yaml of the copy is changed"
    assert run.info.artifact_uri.removeprefix("file://").startswith(str(mine.root / "mlruns"))
    assert not list(mine.root.glob(".dvc/tmp/exps/*/.interloom"))


def test_plots_are_drawn_by_what_they_show(tmp_path: Path) -> None:
    """The real dvc.yaml: one bar a step, told apart by outcome, and two versions side by side."""
    project = bare_project.make(tmp_path / "project", 30)
    project.repro("prompts")
    commit(project)
    project.set_params(prompts={"count": 40})
    project.repro("prompts")
    (drawing,) = told(project, "plots", "diff", "HEAD", "--targets", "plots/prompts.csv")["data"][
        "plots/prompts.csv"
    ]
    content = drawing["content"]
    spec: dict[str, Any] = json.loads(content) if isinstance(content, str) else content
    encoding = spec["spec"]["encoding"]
    assert encoding["y"]["field"] == "step" and encoding["color"]["field"] == "outcome"
    kept = {row["rev"]: int(row["rows"]) for row in spec["data"]["values"]
            if row["step"] == "drafts" and row["outcome"] == "kept"}  # fmt: skip
    assert kept == {"HEAD": 30, "workspace": 40}
