"""A study's comparisons as JSON, a Markdown table and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from interloom.study.comparison import Comparison

Results = Mapping[str, Sequence[Comparison]]


def to_markdown(title: str, head: str, results: Results) -> str:
    """One table per question: both means, their difference with its interval, each seed's."""
    lines = [f"# {title}", "", head, ""]
    for question, rows in results.items():
        lines += [f"## {question[0].upper()}{question[1:]}", ""]
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


def plot(results: Results, path: Path) -> None:
    """Every difference with its interval, question by question."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    count = sum(len(rows) + 1 for rows in results.values())
    figure, axis = pyplot.subplots(figsize=(8, 0.32 * count + 1))
    place, ticks, labels = 0.0, [], []
    for question, rows in results.items():
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


def write(name: str, head: str, results: Results, out: Path) -> None:
    """``NAME.json``, ``NAME.md`` and ``NAME.png`` in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    raw = {question: [asdict(row) for row in rows] for question, rows in results.items()}
    (out / f"{name}.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    text = to_markdown(f"Study: {name}", head, results)
    picture = f"\n![All differences with their intervals]({name}.png)\n"
    (out / f"{name}.md").write_text(text + picture, encoding="utf-8")
    plot(results, out / f"{name}.png")
