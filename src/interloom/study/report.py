"""A study's claims and comparisons as JSON, Markdown tables and a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from interloom.benchmarks.statistics import Estimate
from interloom.study.claims import Findings
from interloom.study.comparison import Comparison

Comparisons = Mapping[str, Sequence[Comparison]]


def to_markdown(title: str, head: str, found: Findings) -> str:
    """The claims and effects with their verdicts, then one table per question: both means, their
    difference with its interval, each seed's."""
    lines = [f"# {title}", "", head, ""]
    lines += [
        "## What was claimed",
        "",
        "| claim | difference [95 %] | verdict |",
        "|" + "---|" * 3,
    ]
    lines += [f"| {c.text} | {c.comparison.difference} | {c.verdict} |" for c in found.claims]
    lines.append("")
    if found.effects:
        lines += ["| effect | times [95 %] | the paper's | verdict |", "|" + "---|" * 4]
        lines += [
            f"| {e.text} | {e.times.value:.2f} [{e.times.low:.2f}, {e.times.high:.2f}] | "
            f"{e.least:g} | {e.verdict} |"
            for e in found.effects
        ]
        lines.append("")
    for question, rows in found.comparisons.items():
        lines += [f"## {question}", ""]
        lines += ["| | mean | against | mean | difference [95 %] | by seed | n |", "|" + "---|" * 7]
        for row in rows:
            by_seed = ", ".join(f"{value:+.1f}" for value in row.by_seed.values())
            mark = "**" if row.difference.excludes_zero else ""
            lines.append(
                f"| {row.ours} | {row.our_mean:.1f} | {row.theirs} | {row.their_mean:.1f} | "
                f"{mark}{row.difference}{mark} | {by_seed} | {row.difference.n} |"
            )
        lines.append("")
    return "\n".join(lines)


def plot(comparisons: Comparisons, path: Path) -> None:
    """Every difference with its interval, question by question."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    count = sum(len(rows) + 1 for rows in comparisons.values())
    figure, axis = pyplot.subplots(figsize=(8, 0.32 * count + 1))
    place, ticks, labels = 0.0, [], []
    for question, rows in comparisons.items():
        axis.text(0, place, question, fontsize=9, fontweight="bold", va="center", ha="center",
                  bbox={"facecolor": "white", "edgecolor": "none"})  # fmt: skip
        place -= 1
        for row in rows:
            gap = row.difference
            colour = "#1a7f4e" if gap.low > 0 else "#b3261e" if gap.high < 0 else "#777777"
            axis.plot([gap.low, gap.high], [place, place], color=colour, linewidth=2)
            axis.plot(gap.value, place, "o", color=colour)
            axis.plot(list(row.by_seed.values()), [place] * len(row.by_seed), "|", color="#333333")
            ticks.append(place)
            labels.append(f"{row.ours} − {row.theirs}")
            place -= 1
    axis.axvline(0, color="#999999", linewidth=0.8, zorder=0)
    axis.set_yticks(ticks, labels, fontsize=8)
    axis.set_xlabel("difference in points of 100: mean, 95 % interval, and each seed (|)")
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _finite(times: Estimate) -> dict[str, float | None]:
    """For JSON, which knows nothing infinite."""
    return {name: v if math.isfinite(v) else None for name, v in asdict(times).items()}


def write(name: str, head: str, found: Findings, out: Path) -> list[Path]:
    """``NAME.json``, ``NAME.md`` and ``NAME.png`` in ``out``; their paths."""
    out.mkdir(parents=True, exist_ok=True)
    data, page, picture = (out / f"{name}.{ending}" for ending in ("json", "md", "png"))
    raw = {
        "claims": [asdict(claim) | {"verdict": claim.verdict} for claim in found.claims],
        "effects": [
            {**asdict(effect), "times": _finite(effect.times), "verdict": effect.verdict}
            for effect in found.effects
        ],
        "comparisons": {q: [asdict(row) for row in rows] for q, rows in found.comparisons.items()},
    }
    data.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    text = to_markdown(f"Study: {name}", head, found)
    shown = f"\n![All differences with their intervals]({picture.name})\n"
    page.write_text(text + shown, encoding="utf-8")
    plot(found.comparisons, picture)
    return [data, page, picture]
