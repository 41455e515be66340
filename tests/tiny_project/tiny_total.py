"""Module of the stage ``total``."""

from tiny_stages import total as run

__all__ = ["run"]
