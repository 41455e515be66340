"""Where and from which code something was made: git, host, versions."""

from __future__ import annotations

import getpass
import json
import os
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

OWN_OUTPUTS = ("dvc.lock", "metrics", "plots")
"""Files kept in git that the pipeline itself writes: they do not make a checkout dirty."""
PACKAGES = (
    "interloom", "torch", "transformers", "diffusers", "trl", "peft", "accelerate", "datasets",
    "numpy", "pandas", "pillow", "dvc", "mlflow", "prefect", "great-expectations",
)  # fmt: skip


CALLER = {
    "INTERLOOM_GIT_COMMIT": "mlflow.source.git.commit",
    "INTERLOOM_GIT_BRANCH": "mlflow.source.git.branch",
    "INTERLOOM_GIT_DIRTY": "interloom.git_dirty",
    "INTERLOOM_USER": "mlflow.user",
}
"""Variables by which a caller tells its pods, which have no git, about its checkout."""


def provenance(folder: Path) -> dict[str, str]:
    """Tags for an MLflow run made in ``folder``; ``none`` as commit outside git."""
    there = ("-C", str(folder))
    commit = git(*there, "rev-parse", "HEAD")
    ours = (f":!{path}" for path in OWN_OUTPUTS)
    changed = git(*there, "status", "--porcelain", "--", ".", *ours)
    told = {tag: os.environ[name] for name, tag in CALLER.items() if name in os.environ}
    return {
        "mlflow.source.name": "interloom",
        "mlflow.source.type": "PROJECT",
        "mlflow.source.git.commit": commit or "none",
        "mlflow.source.git.branch": git(*there, "rev-parse", "--abbrev-ref", "HEAD") or "none",
        "mlflow.user": _user(),
        "interloom.git_dirty": str(bool(changed) or not commit).lower(),
        "interloom.host": socket.gethostname(),
        "interloom.platform": platform.platform(),
        "interloom.python": platform.python_version(),
        "interloom.cpus": str(os.cpu_count()),
        "interloom.packages": json.dumps(versions(PACKAGES)),
    } | told


def _user() -> str:
    """The account's name; a container may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of those of ``names`` that are installed."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git(*words: str) -> str:
    """What git says; empty outside a repository, without commits or without git."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
