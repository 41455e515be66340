"""Where the project is."""

from __future__ import annotations

from pathlib import Path

from interloom.errors import InterloomError


def find_project() -> Path:
    """The project folder: the nearest one upwards that has ``params.yaml`` and ``dvc.yaml``."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise InterloomError(f"{here} is in no interloom project (no params.yaml beside a dvc.yaml)")
