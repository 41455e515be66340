from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_project.project import (
    Project,
    copy_project,
    free_port,
    kill_group,
    stage_command,
    wait_for,
)


def runs_of(uri: str, experiment: str = "interloom") -> list[Any]:
    """All runs, oldest first."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return list(reversed(client.search_runs([found.experiment_id])))


def stage_runs(uri: str) -> dict[str, Any]:
    """Runs of stages by name; there must be one of each."""
    runs = [run for run in runs_of(uri) if run.data.tags["interloom.kind"] == "stage"]
    named = {run.data.tags["interloom.stage"]: run for run in runs}
    assert len(named) == len(runs), "one execution, one run"
    return named


def data_of(run: Any) -> dict[tuple[str, str], str]:
    """Digest of each logged dataset by context and name."""
    return {
        (item.tags[0].value, item.dataset.name): item.dataset.digest
        for item in run.inputs.dataset_inputs
    }


@pytest.fixture
def tracked(project_template: Path, tmp_path: Path) -> Project:
    return copy_project(project_template, tmp_path / "project", track=True)


@pytest.fixture(scope="module")
def recorded(project_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after one `dvc repro`."""
    folder = tmp_path_factory.mktemp("recorded") / "project"
    project = copy_project(project_template, folder, track=True)
    project.repro()
    return project


def sqlite(project: Project) -> str:
    return f"sqlite:///{project.root}/mlflow.db"


def test_one_run_per_stage_under_one_lifecycle(recorded: Project) -> None:
    runs = runs_of(sqlite(recorded))
    parents = [run for run in runs if run.data.tags["interloom.kind"] == "lifecycle"]
    stages = stage_runs(sqlite(recorded))
    assert list(stages) == ["numbers", "squares", "total"]
    assert len(parents) == 1
    assert {run.data.tags["mlflow.parentRunId"] for run in stages.values()} == {
        parents[0].info.run_id
    }
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert set(parents[0].data.metrics) == {"seconds.numbers", "seconds.squares", "seconds.total"}


def test_a_cached_stage_makes_no_run(recorded: Project) -> None:
    before = len(runs_of(sqlite(recorded)))
    recorded.repro()
    assert len(runs_of(sqlite(recorded))) == before


def test_run_carries_data_params_and_provenance(recorded: Project) -> None:
    run = stage_runs(sqlite(recorded))["squares"]
    lock = yaml.safe_load((recorded.root / "dvc.lock").read_text())["stages"]["squares"]
    outs = {out["path"]: out["md5"] for out in lock["outs"]}
    assert data_of(run) == {
        ("dep", "numbers"): lock["deps"][0]["md5"],
        ("out", "squares"): outs["outputs/squares"],
        ("out", "metrics"): outs["metrics/squares.json"],
        ("out", "curve"): outs["plots/squares.csv"],
    }
    assert run.data.params["seed"] == "7"
    assert run.data.params["profile"] == "pocket"
    assert run.data.params["trajectories.max_attempts"] == "5"
    assert not any(key.startswith("prompts.") for key in run.data.params)
    tags = run.data.tags
    commit = recorded.run("git", "rev-parse", "HEAD").stdout.strip()
    assert tags["mlflow.source.git.commit"] == commit
    assert tags["dvc.stage"] == "squares"
    assert tags["mlflow.note.content"].startswith("Square them, one file each")
    assert tags["interloom.host"] == socket.gethostname()
    assert json.loads(tags["interloom.packages"])["mlflow"]
    assert run.data.metrics["system.duration_seconds"] > 0
    assert run.data.metrics["system.peak_memory_mib"] > 10
    assert run.data.metrics["final.sum"] > 0


def test_curve_and_artifacts(recorded: Project) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(sqlite(recorded))
    run = stage_runs(sqlite(recorded))["squares"].info.run_id
    curve = client.get_metric_history(run, "square")
    assert [point.step for point in curve] == [0, 1, 2, 3, 4]
    assert {item.path for item in client.list_artifacts(run)} >= {
        "lineage.json", "log.txt", "metrics", "notes", "plots",
    }  # fmt: skip


def test_dirty_means_changed_by_people(recorded: Project, tracked: Project) -> None:
    # params.yaml of these projects differs from the commit only by switching tracking on.
    assert stage_runs(sqlite(recorded))["total"].data.tags["interloom.git_dirty"] == "true"
    tracked.run("git", "commit", "-qam", "track")
    tracked.repro()
    assert {run.data.tags["interloom.git_dirty"] for run in runs_of(sqlite(tracked))} == {"false"}


def test_lifecycle_named_by_the_environment(tracked: Project) -> None:
    env = {"INTERLOOM_LIFECYCLE_ID": "flow-1", "INTERLOOM_FLOW_RUN_URL": "http://prefect/1"}
    tracked.repro("-s", "numbers", **env)
    tracked.repro("-s", "squares", **env)
    tracked.stage("total")
    runs = runs_of(sqlite(tracked))
    parents = [run for run in runs if run.data.tags["interloom.kind"] == "lifecycle"]
    stages = stage_runs(sqlite(tracked))
    assert [run.data.tags["interloom.lifecycle"] for run in parents] == ["flow-1"]
    assert stages["squares"].data.tags["prefect.flow_run_url"] == "http://prefect/1"
    assert stages["squares"].data.tags["mlflow.parentRunId"] == parents[0].info.run_id
    assert "mlflow.parentRunId" not in stages["total"].data.tags


def test_failure_and_kill_are_recorded(tracked: Project) -> None:
    tracked.stage("numbers")
    tracked.stage("squares", check=False, TINY_FAIL_AT="2", INTERLOOM_LIFECYCLE_ID="one")
    failed = stage_runs(sqlite(tracked))["squares"]
    assert failed.info.status == "FAILED"
    assert "told to fail at 2" in failed.data.tags["interloom.error"]
    tracked.set_params(trajectories={"shard_rows": 9})
    process = tracked.start(*stage_command("squares"), TINY_PAUSE="3", INTERLOOM_LIFECYCLE_ID="two")
    wait_for(lambda: _status(tracked, "two") == {"RUNNING"}, every=0.5)
    kill_group(process)
    wait_for(lambda: _status(tracked, "two") == {"KILLED"}, every=0.5)
    assert _status(tracked, "one") == {"FAILED"}


def _status(project: Project, lifecycle: str) -> set[str]:
    """Statuses of a lifecycle and its stages; empty before there are both."""
    if not (project.root / "mlflow.db").exists():
        return set()
    runs = [
        run for run in runs_of(sqlite(project))
        if run.data.tags.get("interloom.lifecycle") == lifecycle
    ]  # fmt: skip
    return {run.info.status for run in runs} if len(runs) == 2 else set()


def test_work_is_not_lost_when_mlflow_is_away(tracked: Project) -> None:
    away = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"}
    away["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    done = tracked.stage("numbers", **away)
    assert "warning: " in done.stderr
    assert "`interloom track` sends the record later" in done.stderr
    assert (tracked.root / "outputs/numbers.txt").exists()
    (spool,) = tracked.root.glob(".interloom/spool/*numbers*")
    events = spool / "events.jsonl"
    events.write_text(events.read_text().replace(away["MLFLOW_TRACKING_URI"], sqlite(tracked)))
    assert (
        "nothing is waiting" in tracked.run(sys.executable, "-m", "interloom.cli", "track").stdout
    )
    assert stage_runs(sqlite(tracked))["numbers"].info.status == "FINISHED"
    assert not spool.exists()


def test_postgresql_is_one_setting(tracked: Project, postgres: str) -> None:
    tracked.set_params(tracking={"uri": postgres.replace("+psycopg2", "")})
    tracked.repro()
    stages = stage_runs(postgres)
    assert list(stages) == ["numbers", "squares", "total"]
    assert {run.info.status for run in runs_of(postgres)} == {"FINISHED"}
    assert not (tracked.root / "mlflow.db").exists()
    assert ("out", "total") in data_of(stages["total"])


def test_a_table_is_a_table_of_the_run_once(tmp_path: Path) -> None:
    """As MLflow's pages show it; a record that is sent again does not double its rows."""
    from mlflow.tracking import MlflowClient

    from interloom.settings.operation import TrackingSettings
    from interloom.tracking import open_recorder

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    recorder = open_recorder(
        tmp_path,
        TrackingSettings(enabled=True, uri=uri, experiment="interloom"),
        stage="evaluate",
        summary="grade",
        params={},
        inputs=(),
        tags={},
    )
    rows = [{"system": "a", "score": "1.0"}, {"system": "b", "score": "2.0"}]
    recorder.table("scores", rows)
    recorder.table("empty", [])
    assert recorder.close("FINISHED", error="", outs=(), metrics={}) is None
    (run,) = [run for run in runs_of(uri) if run.data.tags["interloom.kind"] == "stage"]
    client = MlflowClient(uri)
    file = client.download_artifacts(run.info.run_id, "tables/scores.json", str(tmp_path))
    assert json.loads(Path(file).read_text()) == {
        "columns": ["system", "score"],
        "data": [["a", "1.0"], ["b", "2.0"]],
    }
    assert [one.path for one in client.list_artifacts(run.info.run_id, "tables")] == [
        "tables/scores.json"
    ]
    assert "tables/scores.json" in run.data.tags["mlflow.loggedArtifacts"]
