"""A project folder in which the adaptive stages run, with an untrained unified model."""

from __future__ import annotations

import shutil
from pathlib import Path

from data_project import Project, new_project


def adaptive_project(root: Path, umm: Path, count: int = 42) -> Project:
    """A project whose unified model is untrained, and whose generators are renderers."""
    project = new_project(root)
    shutil.copytree(umm, root / "data" / "umm")
    settings = project.settings
    options = settings.adaptive_data.model_copy(
        update={"count": count, "rl_count": 9, "in_flight": 16, "threads": 1}
    )
    return Project(root, settings.model_copy(update={"adaptive_data": options}))
