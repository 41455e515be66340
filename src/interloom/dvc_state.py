"""DVC's own files after a kill, and the copies in which it runs experiments.

DVC rewrites ``dvc.lock`` and its table of running commands (``.dvc/tmp/rwlock``) in place. A kill
at that very moment leaves them cut off, and DVC then refuses every command. Each stage keeps a copy
of ``dvc.lock`` when it starts; ``repair`` puts the copy back if the original is cut off.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interloom.digests import digest
from interloom.errors import InterloomError

LOCK = "dvc.lock"
COPY = ".interloom/dvc.lock"
RUNNING = ".dvc/tmp/rwlock"
BUSY = ".dvc/tmp/lock"
EXPERIMENTS = ".dvc/tmp/exps"
"""Where ``dvc exp run --temp`` and ``--queue`` work, in copies of the project."""


def home(root: Path) -> Path:
    """The project that ``root`` is a copy of for an experiment of DVC; else ``root`` itself.

    Such a copy is thrown away. What must outlive it (records of runs, answers that were paid for,
    the ledger of costs) belongs to the project.
    """
    whole = os.environ.get("DVC_ROOT")
    if whole and root.resolve().is_relative_to(Path(whole).resolve() / EXPERIMENTS):
        return Path(whole)
    return root


def changed(root: Path, found: Mapping[str, str]) -> dict[str, str]:
    """Paths with another content than DVC has noted, and the command that brings that back.

    Args:
        found: digests of files and folders by path; those that DVC knows nothing of are left out.
    """
    lock = _read(root / LOCK) or {}
    notes = {
        out["path"]: (out["md5"], f"dvc checkout {stage}")
        for stage, content in lock.get("stages", {}).items()
        for out in content.get("outs") or ()
    }
    wrong = {p: notes[p][1] for p, md5 in found.items() if p in notes and notes[p][0] != md5}
    for file in sorted(root.glob("?*.dvc")):
        for out in (_read(file) or {}).get("outs", ()):
            whole = root / out["path"]
            inside = [path for path in found if Path(path).is_relative_to(out["path"])]
            if inside and whole.exists() and digest(whole) != out["md5"]:
                wrong |= dict.fromkeys(inside, f"dvc checkout --force {file.name}")
    return wrong


def keep(root: Path) -> None:
    """Copy ``dvc.lock``, if there is a whole one, to where ``repair`` finds it."""
    if not _whole(root / LOCK):
        return
    part = root / f"{COPY}.part"
    part.parent.mkdir(exist_ok=True)
    shutil.copyfile(root / LOCK, part)
    part.replace(root / COPY)


def repair(root: Path) -> list[str]:
    """Make DVC usable again after a kill; says what was done, nothing if nothing had to be.

    What DVC has forgotten with the lost lines it finds again in its cache of runs.

    Raises:
        InterloomError: DVC is at work in this folder.
    """
    table_broken = (root / RUNNING).exists() and not _is_json(root / RUNNING)
    lock_broken = (root / LOCK).exists() and not _whole(root / LOCK)
    if (table_broken or lock_broken) and _busy(root / BUSY):
        raise InterloomError(f"{root}: dvc is running here; repair when it has ended")
    done = []
    if table_broken:
        (root / RUNNING).unlink()
        done.append(f"removed {RUNNING}: it was cut off")
    if lock_broken:
        (root / LOCK).unlink()
        if _whole(root / COPY):
            shutil.copyfile(root / COPY, root / LOCK)
            done.append(f"{LOCK} was cut off: put back as the last stage found it")
        else:
            done.append(f"removed {LOCK}: it was cut off, and no stage had kept a copy")
    return done


def _whole(path: Path) -> bool:
    """Whether a lock file is there, can be read, and has a digest for all that it names."""
    content = _read(path)
    if content is None or not isinstance(content.get("stages", {}), dict):
        return False
    stages = content.get("stages", {}).values()
    return "schema" in content and all(_whole_stage(stage) for stage in stages)


def _read(path: Path) -> dict[str, Any] | None:
    """A YAML mapping; none if there is no such file or it cannot be read."""
    import yaml

    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    try:
        content: Any = yaml.load(path.read_text(encoding="utf-8"), loader)
    except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return content if isinstance(content, dict) else None


def _whole_stage(stage: Any) -> bool:
    if not isinstance(stage, dict) or "cmd" not in stage:
        return False
    named = [*(stage.get("deps") or ()), *(stage.get("outs") or ())]
    return all(isinstance(item, dict) and item.get("path") and item.get("md5") for item in named)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        return False
    return True


def _busy(path: Path) -> bool:
    """Whether a process holds DVC's lock on the folder."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(file, fcntl.LOCK_UN)
    return False
