"""`interloom ui` for real: both pages answer, and both servers end with the command."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
from tiny_project.project import Project, copy_project, free_port, wait_for


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
