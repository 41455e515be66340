"""Errors that a user can cause and can mend."""

from __future__ import annotations


class InterloomError(Exception):
    """Something in the user's hands is wrong: the message names it and says what to do.

    The command line prints the message as one line and exits with status 2, without a traceback.
    """
