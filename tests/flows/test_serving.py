"""The serving flow: its server answers, and ends gracefully with the flow."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from flows_server import newest_run
from served import ROOT, TEXT
from tiny_project.project import free_port

FLOW = "import sys; from flows.serving import serving; serving(model=sys.argv[1], port=int(sys.argv[2]))"  # noqa: E501


@pytest.mark.slow
def test_the_server_lives_as_long_as_the_flow(tmp_path: Path, prefect_server_env: dict[str, str]):
    import mlflow

    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=str(ROOT / "tests/pocket_pipeline.py"),
        model_config={"max_attempts": 4, "generator": "renderer"},
        pip_requirements=[],
    )
    port = free_port()
    path = os.pathsep.join(str(ROOT / part) for part in ("src", ".", "tests"))
    env = {**os.environ, **prefect_server_env, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    log = tmp_path / "log"
    process = subprocess.Popen(
        [sys.executable, "-c", FLOW, "model", str(port)],
        cwd=tmp_path, env=env, stdout=log.open("wb"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 150
    while True:
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                break
        except httpx.TransportError:
            assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.2)
    made = httpx.post(f"{url}/v1/responses", json={"input": TEXT}, timeout=60).json()
    assert made["status"] == "completed"
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/health")
    assert "serving model version" in log.read_text()
    assert newest_run(prefect_server_env).name
