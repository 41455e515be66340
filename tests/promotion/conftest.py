from __future__ import annotations

from pathlib import Path

import pytest
from registry_project import from_template

from interloom.catalogue import Catalogue


@pytest.fixture
def catalogue(empty_mlflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    """An empty registry on SQLite in a project of the test's own, which is the present folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = from_template(empty_mlflow, tmp_path / "project")
    monkeypatch.chdir(made.root)
    return made
