from __future__ import annotations

from pathlib import Path

import pytest
from adaptive_project import adaptive_project
from data_project import Project, play_generators


@pytest.fixture(scope="session")
def stories_project(tmp_path_factory: pytest.TempPathFactory, tiny_umm: Path) -> Project:
    """A project with stories, validated. Tests only read it."""
    project = adaptive_project(tmp_path_factory.mktemp("adaptive"), tiny_umm)
    with pytest.MonkeyPatch.context() as patch:
        play_generators(patch)
        project.run("adaptive-data", "validate-adaptive")
    return project
