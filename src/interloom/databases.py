"""The SQLite files that a project keeps: what is said when one of them is damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interloom.errors import InterloomError


@contextmanager
def told_if_damaged(path: Path, without: str) -> Iterator[None]:
    """Name the file when SQLite finds that it is none of its own, or a broken one.

    Args:
        without: what is lost when the file is moved away.

    Raises:
        InterloomError: naming the file and what to do. A full disk and a lock are other errors.
    """
    try:
        yield
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        raise InterloomError(
            f"{path}: not a sound SQLite file ({error}). Move it away and run again: {without}"
        ) from error
