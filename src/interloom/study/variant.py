"""One training of a study: the project with some params changed, in a folder of its own.

DVC runs it as it runs the project. All variants share one cache, so that a stage whose inputs and
params two of them have in common is computed once, and a study that was killed goes on where it
was.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from interloom.errors import InterloomError
from interloom.settings import change_params

SHARED = ("data", "src")
"""What a variant reads from the project itself."""


@dataclass(frozen=True)
class Variant:
    """``changes`` are those of ``interloom params set``. Its ``system`` is compared with the full
    training's ``against``, and its ``critic`` with that system's (none: it is the same one)."""

    name: str
    changes: tuple[str, ...] = ()
    system: str = "full-rl"
    against: str = "full-rl"
    critic: str | None = "critic-rl"


def prepare(root: Path, folder: Path, changes: tuple[str, ...], cache: Path) -> None:
    """Write the variant's folder anew but for what DVC has made there."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(root / "dvc.yaml", folder)
    shutil.copy(root / "params.yaml", folder)
    change_params(folder / "params.yaml", changes)
    for name in SHARED:
        if (root / name).exists() and not (folder / name).is_symlink():
            (folder / name).symlink_to((root / name).resolve(), target_is_directory=True)
    if not (folder / ".dvc").is_dir():
        _dvc(folder, "init", "--no-scm", "--quiet")
        _dvc(folder, "config", "core.analytics", "false")
        _dvc(folder, "config", "core.check_update", "false")
        _dvc(folder, "config", "cache.dir", str(cache.resolve()))


def reproduce(folder: Path, target: str, log: Path) -> None:
    """Run everything up to ``target`` that is not up to date.

    Raises:
        InterloomError: DVC failed; names the log.
    """
    with log.open("a", encoding="utf-8") as file:
        # The variant's own stages print their progress there too.
        status = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", target],
            cwd=folder,
            check=False,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        ).returncode
    if status:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise InterloomError(f"{folder.name} failed ({' '.join(last)}); see {log}")


def _dvc(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InterloomError(f"dvc {' '.join(arguments)} in {folder}: {done.stderr.strip()}")
