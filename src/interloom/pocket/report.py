"""The measurements as JSON, tables and curves (``interloom pocket report``).

``report.json`` is a list with one object per generator. Its keys are the properties of
:class:`~interloom.pocket.measurements.Report`:

- ``generator``: its name;
- ``one_shot``, ``composed``: a share by number of things, ``"1"`` … ``"7"`` and ``"5"`` … ``"7"``;
- ``single_edits``: a share by operation, and ``all``;
- ``knowledge``: a share each for ``raw`` and ``explicit``;
- ``repairs``: a share by way of repairing; ``repairs_by_operation``: the same by operation;
- ``speed``: a list with ``batch``, ``seconds_per_image`` and ``images_per_second``.

A share is ``{"value", "low", "high", "n"}``: the share of pictures that are exactly right, in
[0, 1], its 95 % Wilson interval and the number of pictures. ``report.md`` says the same in tables
and ``report.png`` in curves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from interloom.pocket.measurements import SEEDS, Report, Share


def to_markdown(reports: Sequence[Report]) -> str:
    """All tables, one column per generator."""
    head = "| | " + " | ".join(report.generator for report in reports) + " |\n"
    head += "|---|" + "---|" * len(reports) + "\n"

    def table(title: str, pick: Callable[[Report], dict[str, Share]]) -> str:
        keys = dict.fromkeys(key for report in reports for key in pick(report))
        rows = [
            f"| {key} | " + " | ".join(
                f"{pick(r)[key]} ({pick(r)[key].n})" if key in pick(r) else "–" for r in reports
            ) + " |"
            for key in keys
        ]  # fmt: skip
        return f"### {title}\n\n{head}" + "\n".join(rows) + "\n"

    parts = [
        "# What the shipped generators can do\n",
        "Share of pictures that show exactly what was asked for, read by the verifier; 95 % Wilson"
        " intervals, n in brackets. Prompts are held out. How often the generators fail follows"
        " from what they were trained on (captions of one or two things, edits in few common"
        " wordings, no riddles); no failure is injected.\n",
        f"Each generator is one set of weights, from one training seed. The prompts of a cell take"
        f" {len(SEEDS)} sampling seeds in turn ({', '.join(map(str, SEEDS))}), and repairs as many"
        " others.\n",
        table("Whole captions by number of things, one shot", lambda r: r.one_shot),
        table("The same scenes, one thing at a time", lambda r: r.composed),
        table("Explicit single edits, first try", lambda r: r.single_edits),
        table("Knowledge", lambda r: r.knowledge),
        table("After a failed edit, each kind as often as it fails", lambda r: r.repairs),
    ]
    for report in reports:
        parts.append(_repair_table(report))
    speeds = [
        f"| {s.batch} | " + " | ".join(
            f"{r.speed[i].seconds_per_image:.3f} s, {r.speed[i].images_per_second:.1f}/s"
            for r in reports
        ) + " |"
        for i, s in enumerate(reports[0].speed)
    ]  # fmt: skip
    title = "### Seconds per image and images per second, by batch size\n\n"
    return "\n".join([*parts, title + head + "\n".join(speeds) + "\n"])


def _repair_table(report: Report) -> str:
    ways = list(report.repairs)
    head = "| | " + " | ".join(ways) + " | n |\n|---|" + "---|" * (len(ways) + 1) + "\n"
    rows = [
        f"| {operation} | " + " | ".join(f"{row[way].value:.2f}" for way in ways)
        + f" | {row[ways[0]].n} |"
        for operation, row in report.repairs_by_operation.items()
    ]  # fmt: skip
    title = f"### Repairs by edit and wording ({report.generator})\n\n"
    return title + head + "\n".join(rows) + "\n"


def plot(reports: Sequence[Report], path: Path) -> None:
    """Three panels: one shot against composed, single edits, repairs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle, right_panel) = pyplot.subplots(1, 3, figsize=(15, 4.2))
    colours = ("#2d5ce2", "#f88e18", "#28a248")
    for report, colour in zip(reports, colours, strict=False):
        _line(left, report.one_shot, colour, f"{report.generator}, one shot", "o-")
        _line(left, report.composed, colour, f"{report.generator}, step by step", "s--")
    left.set(xlabel="things in the picture", ylabel="exactly right", ylim=(0, 1.03))
    left.legend(fontsize=8)
    width = 0.8 / len(reports)
    bars = (
        (middle, [r.single_edits for r in reports]),
        (right_panel, [r.repairs for r in reports]),
    )
    for panel, measured in bars:
        for i, (report, shares, colour) in enumerate(zip(reports, measured, colours, strict=False)):
            places = [j + i * width for j in range(len(shares))]
            low = [s.value - s.low for s in shares.values()]
            high = [s.high - s.value for s in shares.values()]
            values = [s.value for s in shares.values()]
            panel.bar(places, values, width, yerr=(low, high), color=colour, label=report.generator)
            panel.set_xticks(range(len(shares)), list(shares), rotation=45, ha="right", fontsize=8)
        panel.set_ylim(0, 1.03)
        panel.legend(fontsize=8)
    middle.set_title("explicit single edits, first try", fontsize=10)
    right_panel.set_title("after a failed edit", fontsize=10)
    left.set_title("whole scenes", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _line(axis, shares: dict[str, Share], colour: str, label: str, style: str) -> None:
    xs = [int(key) for key in shares]
    values = [share.value for share in shares.values()]
    axis.plot(xs, values, style, color=colour, label=label)
    axis.fill_between(
        xs, [s.low for s in shares.values()], [s.high for s in shares.values()],
        color=colour, alpha=0.15,
    )  # fmt: skip


def write(reports: Sequence[Report], out: Path) -> None:
    """``report.json``, ``report.md`` and ``report.png`` in a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps([asdict(r) for r in reports], indent=1) + "\n")
    (out / "report.md").write_text(to_markdown(reports))
    plot(reports, out / "report.png")
