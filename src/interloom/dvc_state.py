"""DVC's own files after a kill.

DVC rewrites ``dvc.lock`` and its table of running commands (``.dvc/tmp/rwlock``) in place. A kill
at that very moment leaves them cut off, and DVC then refuses every command. Each stage keeps a copy
of ``dvc.lock`` when it starts; ``repair`` puts the copy back if the original is cut off.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

from interloom.errors import InterloomError

LOCK = "dvc.lock"
COPY = ".interloom/dvc.lock"
RUNNING = ".dvc/tmp/rwlock"
BUSY = ".dvc/tmp/lock"


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
    import yaml

    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    try:
        content: Any = yaml.load(path.read_text(encoding="utf-8"), loader)
    except (FileNotFoundError, UnicodeDecodeError, yaml.YAMLError):
        return False
    if not isinstance(content, dict) or not isinstance(content.get("stages", {}), dict):
        return False
    stages = content.get("stages", {}).values()
    return "schema" in content and all(_whole_stage(stage) for stage in stages)


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
