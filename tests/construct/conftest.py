"""The data stages run once for all tests of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from data_project import DATA_STAGES, Project, new_project, play_generators


@pytest.fixture(scope="session")
def data_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the outputs of all data stages. Copy it before you change it."""
    project = new_project(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        play_generators(patch)
        project.run(*DATA_STAGES)
    return project


@pytest.fixture
def copied_project(data_project: Project, tmp_path: Path) -> Project:
    shutil.copytree(data_project.root, tmp_path / "project")
    return Project(tmp_path / "project", data_project.settings)
