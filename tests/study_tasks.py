"""Work of tasks for tests: worker processes find it by this module's name."""

from __future__ import annotations

import os
from pathlib import Path

from interloom.errors import InterloomError


def note(folder: Path, *, before: tuple[Path, ...] = ()) -> None:
    """Say what was there already, and where and by whom this is done."""
    print("working")
    seen = [str((path / "made").exists()) for path in before]
    (folder / "made").write_text(" ".join([str(Path.cwd() == folder), str(os.getpid()), *seen]))


def fail(folder: Path) -> None:
    raise InterloomError(f"no luck in {folder.name}")


def crash(folder: Path) -> None:
    raise ZeroDivisionError("by nothing")
