"""How requests are spread over the sub-categories: counted as they pass, shown as a table."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple


class Line(NamedTuple):
    """A sub-category: its requests, how many come with pictures, and its different templates."""

    category: str
    subcategory: str
    count: int
    pictured: int
    templates: int
    share: float
    """Of all requests."""


class Coverage:
    """Counts by sub-category; ``entries`` has the categories and sub-categories that occurred."""

    def __init__(self) -> None:
        self.entries: Counter[tuple[str, str]] = Counter()
        self.templates: set[str] = set()
        self._pictured: Counter[tuple[str, str]] = Counter()
        self._templates: dict[tuple[str, str], set[str]] = {}

    def add(self, category: str, subcategory: str, template: str, kind: str) -> None:
        """Count one request."""
        entry = (category, subcategory)
        self.entries[entry] += 1
        self._pictured[entry] += kind != "create"
        self._templates.setdefault(entry, set()).add(template)
        self.templates.add(template)

    def lines(self) -> list[Line]:
        """By category and sub-category."""
        total = self.entries.total()
        return [
            Line(*entry, count, self._pictured[entry], len(self._templates[entry]), count / total)
            for entry, count in sorted(self.entries.items())
        ]

    def table(self) -> str:
        """For the terminal: a line per sub-category and one with the sums."""
        head = f"{'category':<20} {'sub-category':<28} {'requests':>8} {'pictured':>8}"
        shown = [f"{head} {'templates':>9} {'share':>7}"]
        shown += [
            f"{line.category:<20} {line.subcategory:<28} {line.count:>8} {line.pictured:>8} "
            f"{line.templates:>9} {line.share:>7.2%}"
            for line in self.lines()
        ]
        kinds = f"{len({category for category, _ in self.entries})} categories"
        sums = f"{kinds:<20} {f'{len(self.entries)} sub-categories':<28}"
        counts = f"{self.entries.total():>8} {self._pictured.total():>8} {len(self.templates):>9}"
        return "\n".join([*shown, f"{sums} {counts} {'':>7}".rstrip()])
