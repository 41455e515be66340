"""Errors that a user can cause and can mend."""

from __future__ import annotations

import errno
from collections.abc import Iterator

FULL = frozenset([errno.ENOSPC, errno.EDQUOT])
FORBIDDEN = frozenset([errno.EACCES, errno.EPERM, errno.EROFS])
FULL_WORDS = ("No space left on device", "database or disk is full", "Disk quota exceeded")
"""How libraries that have errors of their own (safetensors, SQLite, torch) say it."""


class InterloomError(Exception):
    """Something in the user's hands is wrong: the message names it and says what to do.

    The command line prints the message as one line and exits with status 2, without a traceback.
    """


def machine_fault(error: BaseException) -> str | None:
    """What is wrong with the machine, if that is what made ``error``: disk or rights.

    >>> machine_fault(OSError(errno.ENOSPC, "No space left on device"))
    'the disk is full'
    >>> machine_fault(PermissionError(errno.EACCES, "Permission denied", "outputs"))
    'outputs may not be written or read (Permission denied)'
    >>> machine_fault(ValueError("other"))
    """
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in FORBIDDEN:
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
