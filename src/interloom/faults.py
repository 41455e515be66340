"""Faults of the machine and of files, in words that say what is to be done.

Errors of libraries tell where in their code something broke. What a user can mend is told in one
line instead: the disk, rights, and inputs that are not what was written.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from interloom import dvc_state
from interloom.errors import InterloomError

FULL = frozenset([errno.ENOSPC, errno.EDQUOT])
FORBIDDEN = frozenset([errno.EACCES, errno.EPERM, errno.EROFS])
MISPLACED = frozenset([errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP])
"""A path that can be no file, such as one below a file."""
FULL_WORDS = ("No space left on device", "database or disk is full", "Disk quota exceeded")
"""How libraries that have errors of their own (safetensors, SQLite, torch) say it."""


@contextmanager
def told_plainly(name: str, root: Path, inputs: Mapping[str, str] | None = None) -> Iterator[None]:
    """Say in one line what the user must mend, where the cause is the machine or a broken input.

    Args:
        name: of the stage.
        inputs: what it reads, with the digest that each has now.

    Raises:
        InterloomError: for a full disk, missing rights and inputs that DVC knows otherwise.
    """
    try:
        yield
    except InterloomError:
        raise
    except Exception as error:
        fault = machine_fault(error)
        if fault is not None:
            free = shutil.disk_usage(root).free / 2**20
            raise InterloomError(
                f"stage {name}: {fault}; {free:.0f} MiB are free in {root}. Once that is mended, "
                "run it again: it goes on from its last checkpoint"
            ) from error
        wrong = dvc_state.changed(root, inputs or {})
        if not wrong:
            raise
        listed = "; ".join(f"{path}: `{command}`" for path, command in wrong.items())
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise InterloomError(
            f"stage {name} failed ({reason}), and it read what DVC knows with another content. "
            f"If nobody meant to change it, put it back: {listed}"
        ) from error


def machine_fault(error: BaseException) -> str | None:
    """What is wrong with the machine, if that is what made ``error``: disk or rights.

    >>> machine_fault(OSError(errno.ENOSPC, "No space left on device"))
    'the disk is full'
    >>> machine_fault(PermissionError(errno.EACCES, "Permission denied", "outputs"))
    'outputs may not be written or read (Permission denied)'
    >>> machine_fault(ValueError("other"))
    """
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in FORBIDDEN | MISPLACED:
            return f"{one.filename} may not be written or read ({one.strerror})"
        full = isinstance(one, OSError) and one.errno in FULL
        if full or any(words in str(one) for words in FULL_WORDS):
            return "the disk is full"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__
