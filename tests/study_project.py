"""A project folder in which studies can be planned: params, code, and stand-ins for the models."""

from __future__ import annotations

import shutil
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def make(folder: Path) -> Path:
    """A project whose shipped models are only names."""
    folder.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    (folder / "src").symlink_to(REPOSITORY / "src")
    for name in ("vlm", "generator", "generator-weak", "umm"):
        model = folder / "data" / name
        model.mkdir(parents=True)
        (model / "weights").write_text(name)
    return folder
