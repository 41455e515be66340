"""The seven benchmarks: where items come from, and who grades what was made of them.

Items are a pocket edition's or a user's copy of the real ones, both in the published layout. The
exact verifier grades the first, a chat model either of them, and a detector the real GenEval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from interloom.benchmarks import (
    comm,
    geneval,
    kris,
    omnicontext,
    pocket_comm,
    pocket_geneval,
    pocket_kris,
    pocket_omnicontext,
    pocket_rise,
    pocket_ueval,
    pocket_wise,
    published,
    rise,
    ueval,
    wise,
)
from interloom.benchmarks.geneval import Detector
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.judging import ChatJudge
from interloom.construct import store
from interloom.errors import InterloomError
from interloom.records import Request, Trajectory
from interloom.settings.evaluation import AskedSettings, GradingSettings
from interloom.settings.fields import BenchmarkName


class Pocket(Protocol):
    """What the module of a pocket edition offers."""

    NAME: str
    PROTOCOL: str

    @staticmethod
    def published(count: int, seed: int) -> list[Any]:
        """Items as the benchmark publishes them, ``count`` at most."""
        ...

    @staticmethod
    def requests(count: int, seed: int) -> list[Request]:
        """The items as requests; the same for every system."""
        ...

    @staticmethod
    def write(folder: Path, trajectories: Sequence[Trajectory], *, with_text: bool) -> None:
        """Write what a system made, in the benchmark's own layout."""
        ...

    @staticmethod
    def grade(folder: Path, count: int, seed: int) -> Graded:
        """Grade what lies in the folder, exactly."""
        ...


POCKET: dict[str, Any] = {
    edition.NAME: edition
    for edition in (
        pocket_ueval,
        pocket_comm,
        pocket_wise,
        pocket_rise,
        pocket_geneval,
        pocket_kris,
        pocket_omnicontext,
    )
}
"""Pocket editions by name."""
PUBLISHED: dict[str, Any] = {
    module.NAME: module for module in (ueval, comm, wise, rise, geneval, kris, omnicontext)
}
"""The benchmarks themselves by name: records, layout, judge, formula."""


@dataclass(frozen=True)
class Grader:
    """Who grades, with what the ``grading`` section says of it.

    ``chat`` is none for the exact verifier; ``detector`` grades the real GenEval if there is one.
    """

    options: GradingSettings
    chat: ChatJudge | None = None
    detector: Detector | None = None


@dataclass(frozen=True)
class Edition:
    """One benchmark as it is run: its items, chosen and in order."""

    name: str
    items: Sequence[Any]
    requests: Sequence[Request]
    source: str
    """Where a copy of the real benchmark lies; empty for the pocket edition."""
    count: int
    seed: int

    @property
    def data(self) -> str:
        """Digest of all questions: scores are compared only where it is the same."""
        return store.content(*(store.request_row(request) for request in self.requests))

    @property
    def images(self) -> int:
        """Pictures per prompt, which GenEval alone has several of."""
        return geneval.IMAGES if self.source else pocket_geneval.IMAGES

    def write(self, folder: Path, trajectories: Sequence[Trajectory], *, with_text: bool) -> None:
        """Write what a system made, in the benchmark's own layout."""
        module = PUBLISHED[self.name]
        write = partial(module.write, items=self.items) if module is geneval else module.write
        write(folder, trajectories, with_text=with_text)

    def grade(self, folder: Path, grader: Grader) -> Graded:
        """Grade what lies in the folder.

        Raises:
            InterloomError: the exact verifier is asked about a real benchmark.
        """
        if grader.detector is not None and self.detectable:
            grades = geneval.detected(self.items, folder, grader.detector, self.images)
            protocol = f"{geneval.PROTOCOL}, {grader.detector.name} as detector (transformers)"
            return self._graded(grades, protocol, grader.detector.name)
        if grader.chat is None:
            if self.source:
                raise InterloomError(
                    f"grading.backend = pocket: the exact verifier knows its own world alone; "
                    f"{self.name} at {self.source} needs another judge"
                )
            return POCKET[self.name].grade(folder, self.count, self.seed)
        return self._judged(folder, grader.chat, grader.options)

    @property
    def detectable(self) -> bool:
        """Whether a detector of photographs can grade this."""
        return self.name == geneval.NAME and bool(self.source)

    def calls(self) -> int:
        """Judge calls that one system's answers take at most."""
        if self.name == geneval.NAME:
            return len(self.items) * self.images
        return sum(PUBLISHED[self.name].calls(item) for item in self.items)

    def _judged(self, folder: Path, judge: ChatJudge, options: GradingSettings) -> Graded:
        module = PUBLISHED[self.name]
        if self.name == wise.NAME:
            # The pocket edition's categories are those of the legacy ids.
            chosen = options.wise_protocol if self.source else "legacy"
            grades: Any = wise.judged(self.items, folder, judge, chosen)
            protocol = f"wise/{chosen}"
        elif self.name == geneval.NAME:
            grades = geneval.judged(self.items, folder, judge, self.images)
            protocol = f"{geneval.PROTOCOL}, chat model instead of a detector"
        else:
            grades, protocol = module.judged(self.items, folder, judge), module.PROTOCOL
        suffix = "" if self.source else ", pocket edition 1"
        return self._graded(grades, protocol + suffix, judge.name)

    def _graded(self, grades: Any, protocol: str, judge: str) -> Graded:
        return PUBLISHED[self.name].graded(self.items, grades, protocol=protocol, judge=judge)


def open_edition(
    name: BenchmarkName | str,
    options: AskedSettings,
    seed: int,
    wise_protocol: wise.Protocol = "legacy",
) -> Edition:
    """A benchmark with the items that the ``evaluate`` section asks for.

    Args:
        wise_protocol: under which the real WISE is going to be graded; it decides the categories,
            and with them the choice of items if not all are taken.

    Raises:
        InterloomError: the copy of the real benchmark is not there, or not in its layout.
    """
    sources: dict[str, str] = {**options.data}
    source = sources.get(name, "")
    if not source:
        edition = POCKET[name]
        items = edition.published(options.items, seed)
        requests = edition.requests(options.items, seed)
        return Edition(name, items, requests, "", options.items, seed)
    module = PUBLISHED[name]
    path = published.located(source)
    loaded = wise.load(path, wise_protocol) if name == wise.NAME else module.load(path)
    items = spread(loaded, [module.requests([item])[0].category for item in loaded], options.items)
    return Edition(name, items, module.requests(items), source, options.items, seed)


def spread(items: Sequence[Any], tasks: Sequence[str], count: int) -> list[Any]:
    """``count`` items at most, of all tasks alike as far as they go, in their order.

    >>> spread("aabbbbbc", "aabbbbbc", 5)
    ['a', 'a', 'b', 'b', 'c']
    """
    places: dict[str, list[int]] = {}
    for place, task in enumerate(tasks):
        places.setdefault(task, []).append(place)
    turns = sorted((turn, group[turn]) for group in places.values() for turn in range(len(group)))
    return [items[place] for place in sorted(place for _, place in turns[:count])]
