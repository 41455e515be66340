"""`interloom serve` as a process: the registry's champion, its successor, and the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import ROOT, TEXT
from tiny_project.project import free_port

from interloom.errors import InterloomError
from interloom.serve import loading
from interloom.settings.file import change_params, load_settings

NAME = "interloom-pipeline"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a registry that has two versions of a quick pipeline."""
    import mlflow
    from mlflow.tracking import MlflowClient

    root = tmp_path_factory.mktemp("project")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, root)
    change_params(root / "params.yaml", ["serving.follow_seconds=0.3", "serving.drain_seconds=20"])
    uri = f"sqlite:///{root / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.create_registered_model(NAME)
    for number in (1, 2):
        folder = root / f"model-{number}"
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(ROOT / "tests/pocket_pipeline.py"),
            model_config={"max_attempts": 4, "generator": f"renderer-{number}"},
            pip_requirements=[],
        )
        client.create_model_version(NAME, str(folder))
    client.set_registered_model_alias(NAME, "champion", "1")
    return root


def alias(root: Path, version: str) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{root / 'mlflow.db'}"
    MlflowClient(tracking_uri=uri, registry_uri=uri).set_registered_model_alias(
        NAME, "champion", version
    )


@contextmanager
def serving(root: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    port = free_port()
    path = os.pathsep.join(str(ROOT / part) for part in ("src", ".", "tests"))
    process = subprocess.Popen(
        [sys.executable, "-m", "interloom.cli", "serve", "--port", str(port), *arguments],
        cwd=root, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stderr=(root / "log").open("wb"),
    )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()


def await_ready(process: subprocess.Popen[bytes], client: httpx.Client, root: Path) -> None:
    end = time.monotonic() + 90
    while time.monotonic() < end:
        assert process.poll() is None, (root / "log").read_text()
        try:
            if client.get("/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError((root / "log").read_text())


def ask(client: httpx.Client, **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/responses", json={"input": TEXT, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_champion_is_followed_and_the_end_is_graceful(project: Path):
    with serving(project) as (process, client):
        await_ready(process, client, project)
        assert client.get("/ready").json() == {"status": "ready", "model": NAME, "version": "1"}
        first = ask(client, seed=1)
        assert first["status"] == "completed" and first["interloom"]["generator"] == "renderer-1"
        seen: list[str] = []
        stop = threading.Event()

        def keep_asking() -> None:
            while not stop.is_set():
                made = ask(client)
                assert made["status"] == "completed"
                seen.append(made["interloom"]["version"])

        threads = [threading.Thread(target=keep_asking) for _ in range(4)]
        for thread in threads:
            thread.start()
        alias(project, "2")
        end = time.monotonic() + 60
        while "2" not in seen and time.monotonic() < end:
            time.sleep(0.05)
        stop.set()
        for thread in threads:
            thread.join()
        assert "1" in seen and seen[-1] == "2"
        metrics = client.get("/metrics").text
        assert "interloom_swaps_total 1.0" in metrics
        total = f'interloom_requests_total{{outcome="completed"}} {len(seen) + 1}.0'
        assert total in metrics, "no request failed on the way"
        # A version that does not load changes nothing.
        shutil.rmtree(project / "model-1")
        alias(project, "1")
        end = time.monotonic() + 60
        while "swap_failures_total 0.0" in client.get("/metrics").text:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert ask(client)["interloom"]["version"] == "2"
        # What is in flight when SIGTERM comes is answered.
        answers: list[dict[str, Any]] = []
        late = [
            threading.Thread(target=lambda: answers.append(ask(client, t_max=20))) for _ in range(8)
        ]
        for thread in late:
            thread.start()
        while "interloom_in_flight 0.0" in client.get("/metrics").text and not answers:
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, (project / "log").read_text()
        for thread in late:
            thread.join()
        assert [answer["status"] for answer in answers] == ["completed"] * len(answers)
        assert answers
    log = (project / "log").read_text()
    assert "Traceback" not in log and TEXT not in log


def test_a_model_that_is_not_there_ends_the_command(project: Path):
    with serving(project, "--model", "models:/nothing@champion") as (process, _):
        assert process.wait(60) == 2
    assert "models:/nothing@champion: not in the model registry" in (project / "log").read_text()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere", "no MLmodel file"),
        ("system:best", "systems are generator, zero-shot"),
        ("models:/x", "expected models:/NAME@ALIAS"),
    ],
)
def test_sources_that_are_none(tmp_path: Path, source: str, said: str):
    with pytest.raises(InterloomError, match=said):
        loading.load(source, load_settings(ROOT / "params.yaml"), tmp_path)


def test_a_folder_is_served_too(project: Path):
    loaded = loading.load(str(project / "model-2"), load_settings(ROOT / "params.yaml"), project)
    assert (loaded.name, list(loaded.generators)) == ("model-2", ["renderer-2"])
    assert loaded.defaults.t_max == 4
    loaded.warm_up()
