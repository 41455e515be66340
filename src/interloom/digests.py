"""The md5 of a file or folder as DVC computes it, without importing DVC.

A folder's digest is the md5 of the sorted list of its files with their digests, marked ``.dir``.
Digests of large files are remembered by size, inode and modification time, as DVC does too.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from pathlib import Path

REMEMBER_FROM = 1 << 20
"""Bytes; below this, hashing is quicker than looking up."""


def digest(path: Path, memory: Path | None = None) -> str:
    """md5 of the file or folder at ``path``; ``memory`` is a file that remembers large ones.

    Raises ``FileNotFoundError`` if there is nothing.
    """
    if not path.is_dir():
        return _file(path, memory)
    entries = [
        {"md5": _file(Path(folder) / name, memory), "relpath": _relative(folder, name, path)}
        for folder, folders, names in os.walk(path, followlinks=True)
        if _prune(folders)
        for name in names
        if not name.endswith(".pyc")
    ]
    entries.sort(key=lambda entry: entry["relpath"])
    listing = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"


def _prune(folders: list[str]) -> bool:
    """Keep ``os.walk`` out of what ``.dvcignore`` leaves out; always true."""
    folders[:] = [name for name in folders if name != "__pycache__"]
    return True


def _relative(folder: str, name: str, root: Path) -> str:
    return (Path(folder) / name).relative_to(root).as_posix()


def _file(path: Path, memory: Path | None) -> str:
    status = path.stat()
    if memory is None or status.st_size < REMEMBER_FROM:
        return _md5(path)
    key = f"{path.resolve()}|{status.st_ino}|{status.st_size}|{status.st_mtime_ns}"
    memory.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _remembered(path, key, memory)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        memory.unlink(missing_ok=True)  # damaged; it only saves time, and is begun anew
        return _md5(path)


def _remembered(path: Path, key: str, memory: Path) -> str:
    with sqlite3.connect(memory, timeout=30) as table:
        table.execute("CREATE TABLE IF NOT EXISTS digests (key TEXT PRIMARY KEY, md5 TEXT)")
        row = table.execute("SELECT md5 FROM digests WHERE key = ?", (key,)).fetchone()
        if row is None:
            row = (_md5(path),)
            table.execute("INSERT OR REPLACE INTO digests VALUES (?, ?)", (key, row[0]))
    table.close()
    return row[0]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
