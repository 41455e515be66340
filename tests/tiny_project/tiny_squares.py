"""Module of the stage ``squares``."""

from tiny_stages import squares as run

__all__ = ["run"]
