"""The trajectories on a real Dask cluster of two workers, as tasks of a real Prefect server."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from data_project import Project
from model_server import Asked, ModelServer, Said, serving
from remote_project import REQUESTS, answer, fill, settings_for

from interloom.backends.ledger import LEDGER, Ledger
from interloom.construct import store
from interloom.construct.on_dask import share_of
from interloom.errors import InterloomError


def project(root: Path, server: ModelServer, runner: str) -> Project:
    settings = settings_for(server)
    options = settings.trajectories.model_copy(update={"runner": runner, "shard_rows": 2})
    return Project(root, settings.model_copy(update={"trajectories": options}))


@pytest.mark.slow
def test_two_workers_make_what_one_process_makes(
    tmp_path: Path, prefect_server_env: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    for name, value in prefect_server_env.items():
        monkeypatch.setenv(name, value)

    def slowly(asked: Asked) -> Said:
        said = answer(asked)
        return Said(said.body, said.status, said.headers, delay=0.1, cut=said.cut)

    with serving(slowly) as server:
        root = fill(tmp_path / "project")
        project(root, server, "dask:2").run("trajectories")
        folder = root / "outputs/trajectories"
        alone = fill(tmp_path / "alone")
        project(alone, server, "local").run("trajectories")
        for shard in (alone / "outputs/trajectories").iterdir():
            assert shard.read_bytes() == (folder / shard.name).read_bytes()
        assert {t.request.id for t in store.read_trajectories(folder)} == {r.id for r in REQUESTS}

        calls = sum(cost.calls for cost in Ledger(root / LEDGER).costs())
        before = len(server.asked)
        assert calls == before - sum(c.calls for c in Ledger(alone / LEDGER).costs())
        shutil.rmtree(root / ".interloom/work")
        project(root, server, "dask:2").run("trajectories")
        assert len(server.asked) == before + 1, "only what was refused is asked again"


@pytest.mark.slow
def test_no_prefect_server_need_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As under `dvc repro`: one is started for the stage, and gone with it."""
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    for name in ("PREFECT_API_URL", "PREFECT_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    with serving(answer) as server:
        project(fill(tmp_path), server, "dask:1").run("trajectories")
    folder = tmp_path / "outputs/trajectories"
    assert {t.request.id for t in store.read_trajectories(folder)} == {r.id for r in REQUESTS}
    assert (tmp_path / ".interloom/prefect/prefect.db").exists()
    assert "PREFECT_API_URL" not in os.environ


def test_workers_elsewhere_need_a_server_that_they_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from distributed import LocalCluster

    monkeypatch.setenv("GEMINI_API_KEY", "k")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    options: Any = {"n_workers": 1, "processes": False, "dashboard_address": None}
    made: Any = LocalCluster(**options, protocol="tcp")
    with serving(answer) as server, made as cluster:
        alone = project(fill(tmp_path), server, cluster.scheduler_address)
        with pytest.raises(InterloomError, match="set PREFECT_API_URL to a Prefect server"):
            alone.run("trajectories")


def test_each_worker_keeps_to_its_share(tmp_path: Path):
    with serving(answer) as server:
        remote = settings_for(server, requests_per_minute=100.0, concurrency=9).remote
    mine = share_of(remote, 4).gemini
    assert (mine.requests_per_minute, mine.concurrency) == (25.0, 2)
    assert mine.budget_usd == remote.gemini.budget_usd, "the ledger is everybody's"


def test_no_scheduler_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    monkeypatch.setattr("interloom.construct.on_dask.PATIENCE", 1)
    with serving(answer) as server:
        alone = project(fill(tmp_path), server, "tcp://127.0.0.1:9")
        with pytest.raises(
            InterloomError, match=r"trajectories\.runner: no scheduler at tcp://127"
        ):
            alone.run("trajectories")
