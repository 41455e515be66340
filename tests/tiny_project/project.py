"""A throwaway project folder with git, DVC and the tiny stages, driven by the real commands."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tiny_project.tiny_stages import STAGES

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
BIN = Path(sys.executable).parent
ENVIRONMENT = {"GIT_CONFIG_GLOBAL": os.devnull, "SHELL": "/bin/sh"}


@dataclass
class Project:
    """The folder and the environment that its commands get."""

    root: Path
    env: dict[str, str]

    def run(self, *words: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command here and wait."""
        done = subprocess.run(
            words,
            cwd=self.root,
            env=self.environment(env),
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )
        if check and done.returncode:
            raise AssertionError(f"{words} gave {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        """Start a command here, in a process group of its own."""
        return subprocess.Popen(
            words,
            cwd=self.root,
            env=self.environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def environment(self, extra: dict[str, str]) -> dict[str, str]:
        """The test's environment without trackers or DVC of its own."""
        base = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("DVC_", "INTERLOOM_", "MLFLOW_", "PREFECT_", "TINY_"))
        }
        path = os.pathsep.join([str(HERE), str(REPOSITORY / "src"), str(REPOSITORY)])
        return (
            base
            | {"PYTHONPATH": path, "PATH": f"{BIN}{os.pathsep}{base['PATH']}"}
            | self.env
            | extra
        )

    def stage(self, name: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a tiny stage without DVC."""
        return self.run(*stage_command(name), check=check, **env)

    def repro(
        self, *words: str, check: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """``dvc repro``."""
        return self.run("dvc", "repro", *words, check=check, **env)

    def set_params(self, **sections: Any) -> None:
        """Change values in params.yaml: ``set_params(prompts={"count": 3}, seed=1)``."""
        file = self.root / "params.yaml"
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
        for name, value in sections.items():
            if isinstance(value, dict):
                raw[name] |= value
            else:
                raw[name] = value
        file.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")

    def outputs(self) -> dict[str, str]:
        """Digest of everything that the stages wrote, by path."""
        from interloom.digests import digest

        paths = [path for spec in STAGES.values() for path in spec.products.values()]
        return {path: digest(self.root / path) for path in paths if (self.root / path).exists()}

    def leftovers(self) -> list[str]:
        """Half-written things: anything aside, or beside outputs."""
        found = [*self.root.glob(".interloom/work/*/*.new"), *self.root.glob("**/*.incomplete")]
        return [str(path.relative_to(self.root)) for path in found]


def stage_command(name: str) -> tuple[str, ...]:
    """The command of a tiny stage."""
    return (sys.executable, str(HERE / "tiny_stages.py"), name)


def copy_project(template: Path, root: Path, *, track: bool = False) -> Project:
    """A copy of a project that was made before; much quicker than making one."""
    shutil.copytree(template, root, symlinks=True)
    project = Project(root, ENVIRONMENT)
    project.set_params(tracking={"enabled": track})
    return project


def make_project(root: Path, *, count: int = 5) -> Project:
    """Set up git, DVC, params.yaml and dvc.yaml in the empty folder ``root``."""
    root.mkdir(parents=True, exist_ok=True)
    project = Project(root, ENVIRONMENT)
    (root / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    project.set_params(prompts={"count": count}, tracking={"enabled": False}, seed=7)
    (root / ".gitignore").write_text("/outputs\n/plots\n/.interloom\n/mlflow.db*\n/mlruns\n")
    (root / "dvc.yaml").write_text(json.dumps({"stages": _dvc_stages()}))
    project.run("git", "init", "-q", "-b", "main")
    project.run("git", "config", "user.name", "test")
    project.run("git", "config", "user.email", "test@example.org")
    project.run("dvc", "init", "-q")
    project.run("dvc", "config", "core.analytics", "false")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "start")
    return project


def _dvc_stages() -> dict[str, Any]:
    return {
        spec.name: {
            "cmd": " ".join(stage_command(spec.name)),
            "deps": list(spec.deps.values()),
            "params": ["seed", *spec.sections],
            "outs": list(spec.outs.values()),
            "metrics": [{path: {"cache": False}} for path in spec.metrics.values()],
            "plots": list(spec.plots.values()),
        }
        for spec in STAGES.values()
    }


def kill_group(process: subprocess.Popen[str]) -> None:
    """``kill -9`` a started command and all its children."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_for(condition: Any, seconds: float = 30, every: float = 0.1) -> None:
    """Wait until ``condition()`` holds; fails after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still not so after {seconds} s"
        time.sleep(every)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
