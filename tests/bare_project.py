"""A copy of this repository's pipeline without its data: what needs no model runs in it."""

from __future__ import annotations

import shutil
from pathlib import Path

from tiny_project.project import ENVIRONMENT, REPOSITORY, Project

FILES = ("dvc.yaml", "params.yaml", ".gitignore", ".dvcignore", ".dvc/config")
FOLDERS = (".dvc/plots", "profiles", "src", "flows")


def make(root: Path, count: int) -> Project:
    """The project, in git, with so many requests and no tracking."""
    project = Project(root, ENVIRONMENT)
    for path in FOLDERS:
        shutil.copytree(
            REPOSITORY / path, root / path, ignore=shutil.ignore_patterns("__pycache__")
        )
    for path in FILES:
        shutil.copy(REPOSITORY / path, root / path)
    project.run("git", "init", "-q")
    project.run("git", "config", "user.name", "test")
    project.run("git", "config", "user.email", "test@example.org")
    project.set_params(prompts={"count": count}, tracking={"enabled": False})
    commit(project)
    return project


def commit(project: Project) -> None:
    """Everything that is there."""
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "what was run")
