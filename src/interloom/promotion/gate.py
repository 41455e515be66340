"""The gate: is the challenger good enough to replace the champion? A pure function of evidence.

Both versions answered the same questions when they were evaluated, so scores are compared item by
item: the paired bootstrap takes out what makes an item hard for everyone. A check never guesses:
what was not measured, or cannot be compared, does not pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from interloom.benchmarks.evidence import BenchmarkEvidence, Evidence
from interloom.benchmarks.statistics import Estimate, paired_difference
from interloom.settings.operation import GateSettings


@dataclass(frozen=True)
class Check:
    """One question of the gate: what was measured (none if nothing was), and the limit."""

    name: str
    figure: float | None
    shown: str
    limit: str
    passed: bool
    interval: tuple[float, float] | None = None

    def row(self) -> dict[str, str]:
        """For tables."""
        return {
            "check": self.name,
            "figure": self.shown,
            "limit": self.limit,
            "passed": "yes" if self.passed else "NO",
        }


@dataclass(frozen=True)
class Verdict:
    """All checks of one comparison."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """What speaks against it, a line each."""
        return [
            f"{check.name}: {check.shown} (limit: {check.limit})"
            for check in self.checks
            if not check.passed
        ]

    def figures(self) -> dict[str, float]:
        """Figures by check, with the ends of their intervals, under names of metrics."""
        found: dict[str, float] = {}
        for check in self.checks:
            name = check.name.replace(": ", ".").replace(" ", "_")
            if check.figure is not None:
                found[name] = check.figure
            if check.interval is not None:
                found[f"{name}.low"], found[f"{name}.high"] = check.interval
        return found


def judge(challenger: Evidence, champion: Evidence | None, limits: GateSettings) -> Verdict:
    """Hold a challenger against the champion and the limits.

    Without a champion (the first version of all) only what needs none is checked: floors, budgets
    and judged shares.
    """
    checks: list[Check] = []
    comparable: list[str] = []
    for name, limit in limits.benchmarks.items():
        ours = challenger.benchmarks.get(name)
        if ours is None:
            checks.append(_missing(f"{name}: score", "the challenger was not evaluated on it"))
            continue
        if not ours.graded.items:
            checks.append(_missing(f"{name}: score", "none of the challenger's items was judged"))
            continue
        overall = ours.graded.overall
        checks.append(_least(f"{name}: score", overall.value, limit.floor, str(overall)))
        unjudged = ours.graded.unjudged
        checks.append(_most(f"{name}: unjudged", unjudged, limits.max_unjudged, f"{unjudged:.1%}"))
        if champion is None:
            continue
        same = _same_questions(name, ours, champion.benchmarks.get(name))
        checks.append(same)
        if same.passed:
            comparable.append(name)
            difference = ours.graded.minus(champion.benchmarks[name].graded)
            checks.append(_interval(f"{name}: difference", difference, -limit.max_loss))
    if champion is not None and len(comparable) == len(limits.benchmarks):
        gain = mean_difference(challenger, champion, comparable)
        checks.append(_interval("mean difference", gain, limits.min_gain))
    return Verdict((*checks, *_budgets(challenger, limits)))


def mean_difference(challenger: Evidence, champion: Evidence, names: list[str]) -> Estimate:
    """Mean over benchmarks, each with equal weight, of the paired differences of their scores."""
    ours: dict[str, float] = {}
    theirs: dict[str, float] = {}
    strata: dict[str, str] = {}
    weights: dict[str, float] = {}
    for name in names:
        graded, other = challenger.benchmarks[name].graded, champion.benchmarks[name].graded
        tasks = {graded.strata[item] for item in graded.items.keys() & other.items.keys()}
        share = {task: graded.weights.get(task, 1.0) for task in tasks}
        weights |= {f"{name}/{task}": value / sum(share.values()) for task, value in share.items()}
        strata |= {f"{name}/{item}": f"{name}/{task}" for item, task in graded.strata.items()}
        ours |= {f"{name}/{item}": value for item, value in graded.items.items()}
        theirs |= {f"{name}/{item}": value for item, value in other.items.items()}
    return paired_difference(ours, theirs, strata, weights)


def _same_questions(name: str, ours: BenchmarkEvidence, theirs: BenchmarkEvidence | None) -> Check:
    """Scores of other items, or graded in another way, are never compared."""
    what = f"{name}: comparable"
    if theirs is None:
        return _missing(what, "the champion was not evaluated on it")
    for word, mine, other in (
        ("protocol", ours.graded.protocol, theirs.graded.protocol),
        ("judge", ours.graded.judge, theirs.graded.judge),
    ):
        if mine != other:
            return _missing(what, f"another {word}: {mine}, the champion's {other}", f"one {word}")
    everything = ours.questions.keys() | theirs.questions.keys()
    same = [item for item in everything if ours.questions.get(item) == theirs.questions.get(item)]
    share = f"{len(same)} of {len(everything)} questions are the same"
    if len(same) < len(everything):
        wanted = "all: evaluate both with one evaluate.items and seed"
        return Check(what, len(same) / len(everything), share, wanted, False)
    if not ours.graded.items.keys() & theirs.graded.items.keys():
        return _missing(what, "no item was judged for both")
    return Check(what, 1.0, share, "all", True)


def _budgets(challenger: Evidence, limits: GateSettings) -> list[Check]:
    images, latency = challenger.images_per_request, challenger.latency
    median, p95 = latency.median, latency.p95
    where = f"{len(latency.seconds)} requests, {latency.machine}"
    return [
        _most("images per request", images, limits.max_images_per_request, f"{images:.2f}"),
        _most("median seconds", median, limits.max_median_seconds, f"{median:.2f} ({where})"),
        _most("p95 seconds", p95, limits.max_p95_seconds, f"{p95:.2f} ({where})"),
    ]


def _least(name: str, figure: float, limit: float, shown: str) -> Check:
    return Check(name, figure, shown, f"≥ {limit:g}", figure >= limit)


def _most(name: str, figure: float, limit: float, shown: str) -> Check:
    return Check(name, figure, shown, f"≤ {limit:g}", figure <= limit)


def _interval(name: str, difference: Estimate, limit: float) -> Check:
    """The lower end decides: what the data cannot rule out counts."""
    low, high = difference.low, difference.high
    shown = f"{difference.value:+.1f} [{low:+.1f}, {high:+.1f}] over {difference.n} items"
    wanted = f"lower end ≥ {limit:+g}"
    return Check(name, difference.value, shown, wanted, low >= limit, (low, high))


def _missing(name: str, words: str, limit: str = "measured") -> Check:
    return Check(name, None, words, limit, False)


def as_text(rows: Sequence[Mapping[str, str]]) -> str:
    """A table for the terminal and for logs; all rows have the first row's columns.

    >>> print(as_text([{"a": "1", "bc": "x"}, {"a": "234", "bc": ""}]))
    a    bc
    1    x
    234
    """
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
