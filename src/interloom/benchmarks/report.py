"""Stage ``report``: one page with everything a reader needs to believe or doubt a run.

``reports/index.html`` is self-contained (styles, charts and pictures inside; ``report_page.py``),
``report.md`` is the same in short for a terminal or a pull request, ``plots/*.csv`` are the numbers
behind the charts.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interloom.benchmarks import report_page as page
from interloom.benchmarks.report_page import CURVES, Curve, cells_of, interval, judge_line
from interloom.construct import gallery, store
from interloom.runner import StageRun
from interloom.settings.file import Settings


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    example = next(store.read_trajectories(stage.dep("trajectories")), None)
    title = "<h3>A training trajectory</h3>"
    shown = (
        title + gallery.sequence(example, f"{example.request.id}, by the teacher")
        if example
        else ""
    )
    write(settings, stage, CURVES, stage.dep("validation"), shown)


def write(
    settings: Settings,
    stage: StageRun,
    drawn: Mapping[str, Sequence[str]],
    validation: Path,
    example: str = "",
) -> None:
    """The report of one system's stages.

    Args:
        drawn: per training stage the metrics that are drawn.
        validation: the verdict on its data.
        example: HTML that stands at the end.
    """
    evaluation = stage.dep("evaluation")
    summary = json.loads((evaluation / "summary.json").read_text(encoding="utf-8"))
    paths = {name: stage.dep(f"curve-{name}") for name in drawn}
    curves = {name: read_curve(path) for name, path in paths.items()}
    verdict = json.loads(validation.read_text(encoding="utf-8"))
    shown = settings.report.gallery_items
    out = stage.out("report")
    (out / "plots").mkdir(parents=True)
    body = "".join(
        [
            page.heading(summary),
            page.scores_section(summary),
            page.differences_section(summary),
            page.parts_section(summary),
            page.run_section(summary),
            page.curves_section(curves, drawn),
            page.data_section(verdict),
            page.gallery_section(evaluation, stage.dep("answers"), summary, shown),
            example,
        ]
    )
    (out / "index.html").write_text(page.document(body), encoding="utf-8")
    (out / "report.md").write_text(markdown(summary), encoding="utf-8")
    write_plots(out / "plots", summary, paths)
    stage.artifact(out / "index.html", "report")
    stage.log(f"open {stage.place('report') / 'index.html'}")


def read_curve(path: Path) -> Curve:
    """Points by (split, metric) from a training stage's CSV."""
    curve: Curve = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            points = curve.setdefault((row["split"], row["metric"]), [])
            points.append((float(row["step"]), float(row["value"])))
    return curve


def markdown(summary: Mapping[str, Any]) -> str:
    """Scores, differences and what they rest on, as Markdown."""
    cells = cells_of(summary)
    lines = [
        "# interloom report",
        "",
        f"Profile {summary['profile']}, seed {summary['seed']}. Scores 0–100 with 95 % bootstrap "
        f"intervals over items. {judge_line(summary)}",
        "",
        "| system | " + " | ".join(cells) + " |",
        "|---|" + "---|" * len(cells),
    ]
    for system in summary["systems"]:
        values = [
            interval(by_system[system]["overall"]) if system in by_system else ""
            for by_system in cells.values()
        ]
        lines.append(f"| {system} | " + " | ".join(values) + " |")
    lines += ["", "Pictures of a request:", "", "| system | " + " | ".join(cells) + " |"]
    lines.append("|---|" + "---|" * len(cells))
    for system in summary["systems"]:
        taken = [
            f"{by_system[system]['run']['images_per_request']:.2f}" if system in by_system else ""
            for by_system in cells.values()
        ]
        lines.append(f"| {system} | " + " | ".join(taken) + " |")
    lines += ["", "| benchmark | step | difference |", "|---|---|---|"]
    for entry in summary["differences"]:
        step = f"{entry['from']} → {entry['to']}"
        lines.append(f"| {entry['benchmark']} | {step} | {interval(entry, signed=True)} |")
    head = ("benchmark", "protocol", "judge", "data", "data hash", "items", "unjudged at most")
    lines += ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for benchmark, by_system in cells.items():
        one = next(iter(by_system.values()))
        worst = max(cell["unjudged"] for cell in by_system.values())
        lines.append(
            f"| {benchmark} | {one['protocol']} | {one['judge']} | {one['source']} | "
            f"{one['data'][:12]} | {one['overall']['n']} | {worst:.1%} |"
        )
    lines += ["", *(f"- {name}: {made_of}" for name, made_of in summary["systems"].items()), ""]
    return "\n".join(lines)


def write_plots(folder: Path, summary: Mapping[str, Any], curves: Mapping[str, Path]) -> None:
    """The numbers behind the charts."""
    for name, path in curves.items():
        shutil.copyfile(path, folder / f"{name}.csv")
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["benchmark", "system", "value", "low", "high", "n"])
        for cell in summary["cells"]:
            overall = cell["overall"]
            numbers = [f"{overall[key]:.4f}" for key in ("value", "low", "high")]
            writer.writerow([cell["benchmark"], cell["system"], *numbers, overall["n"]])
