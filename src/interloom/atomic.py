"""Moving a finished set of outputs into place so that a kill at any moment loses or breaks nothing.

A body writes under a folder *aside*. When all is there, a note with the digests is written beside
it (``whole.json``); from then on the set counts as made, and ``finish`` may be called, killed and
called again until everything stands in place.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from interloom.digests import digest

NOTE = "whole.json"


def declare_whole(aside: Path, digests: Mapping[str, str]) -> None:
    """Note that all of ``digests`` (path → md5) is written under ``aside``."""
    part = aside / f"{NOTE}.part"
    part.write_text(json.dumps(dict(digests)), encoding="utf-8")
    part.replace(aside / NOTE)


def is_whole(root: Path, aside: Path) -> bool:
    """Whether every noted output is either aside or already in place under ``root``."""
    note = aside / NOTE
    if not note.exists():
        return False
    noted: dict[str, str] = json.loads(note.read_text(encoding="utf-8"))
    return all((aside / path).exists() or _stands(root / path, md5) for path, md5 in noted.items())


def finish(root: Path, aside: Path) -> dict[str, str]:
    """Rename every noted output from ``aside`` to ``root``; their digests by path.

    Then ``aside`` is removed.
    """
    noted: dict[str, str] = json.loads((aside / NOTE).read_text(encoding="utf-8"))
    for path in noted:
        if (aside / path).exists():
            put(aside / path, root / path)
    shutil.rmtree(aside)
    return noted


def _stands(path: Path, md5: str) -> bool:
    return path.exists() and digest(path) == md5


def put(source: Path, target: Path) -> None:
    """Move ``source`` to ``target`` at once, replacing what is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    old = source.with_name(f"{source.name}.old")
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(old, ignore_errors=True)
        _rename(target, old)
    _rename(source, target)
    shutil.rmtree(old, ignore_errors=True)


def _rename(source: Path, target: Path) -> None:
    """Rename, also across file systems (a mounted output folder): copy beside the target first."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f".{target.name}.incomplete")
        shutil.rmtree(beside, ignore_errors=True)
        if source.is_dir():
            shutil.copytree(source, beside)
            shutil.rmtree(source)
        else:
            shutil.copy2(source, beside)
            source.unlink()
        beside.replace(target)
