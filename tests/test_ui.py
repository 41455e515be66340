"""`interloom ui` for real: both pages answer, and both servers end with the command."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
from tiny_project.project import Project, copy_project, free_port, wait_for

ROOT = Path(__file__).parent.parent


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except (urllib.error.URLError, OSError):
        return False


def test_both_uis_answer_and_end(project_template: Path, tmp_path: Path) -> None:
    project: Project = copy_project(project_template, tmp_path / "project", track=True)
    mlflow, prefect = free_port(), free_port()
    ports = ["--mlflow-port", str(mlflow), "--prefect-port", str(prefect)]
    process = project.start(sys.executable, "-m", "interloom.cli", "ui", *ports)

    def serves(url: str) -> bool:
        assert process.poll() is None, process.communicate()[0]
        return answers(url)

    try:
        wait_for(lambda: serves(f"http://127.0.0.1:{prefect}/api/health"), seconds=150, every=1)
        wait_for(lambda: serves(f"http://127.0.0.1:{mlflow}/health"), seconds=150, every=1)
        assert answers(f"http://127.0.0.1:{prefect}/")
        assert answers(f"http://127.0.0.1:{mlflow}/")
        print("both up")
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
    finally:
        process.terminate()
        print(process.communicate(timeout=60)[0])
    wait_for(lambda: not any(child.is_running() for child in children), seconds=30)


@pytest.mark.parametrize("option", ["--mlflow-port", "--prefect-port"])
def test_a_taken_port_is_said_before_anything_starts(option: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ports = {"--mlflow-port": free_port(), "--prefect-port": free_port(), option: port}
        words = [str(word) for pair in ports.items() for word in pair]
        command = [sys.executable, "-m", "interloom.cli", "ui", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"port {port} is taken" in done.stderr and option in done.stderr
    assert len(done.stderr.splitlines()) == 1
