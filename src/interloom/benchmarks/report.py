"""Stage ``report``: one page with everything a reader needs to believe or doubt a run.

``reports/index.html`` is self-contained (styles, charts and pictures inside), ``report.md`` is the
same in short for a terminal or a pull request, ``plots/*.csv`` are the numbers behind the charts.
"""

from __future__ import annotations

import csv
import html
import json
import shutil
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

from interloom.benchmarks import svg
from interloom.benchmarks.graded import Graded
from interloom.construct import gallery, store
from interloom.runner import StageRun
from interloom.settings import Settings

PAPER: dict[str, dict[str, float]] = {
    "ueval": {
        "generator": 18.2, "zero-shot": 48.1, "planner-sft": 60.5, "full-sft": 64.5,
        "full-rl": 66.3, "oracle": 77.4,
    },
    "wise": {"generator": 47.0, "full-rl": 73.0},
    "rise": {"generator": 13.3, "full-rl": 28.9},
}  # fmt: skip
"""InterleaveThinker's tables with FLUX.2-klein-9B; another world, shown for the order of
effects."""
UNJUDGED_WARNING = 0.02
CURVES = {
    "sft-planner": ("plan_validity", "prompt_match", "format_validity", "loss"),
    "sft-critic": ("judgment_accuracy", "accuracy_on_true", "accuracy_on_false", "loss"),
    "grpo-critic": ("reward", "fix", "judgment_accuracy", "reward/repaired"),
}
"""Per training stage the metrics that are drawn."""


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    evaluation = stage.dep("evaluation")
    summary = json.loads((evaluation / "summary.json").read_text(encoding="utf-8"))
    curves = {name: read_curve(stage.dep(f"curve-{name}")) for name in CURVES}
    verdict = json.loads(stage.dep("validation").read_text(encoding="utf-8"))
    example = next(store.read_trajectories(stage.dep("trajectories")), None)
    out = stage.out("report")
    (out / "plots").mkdir(parents=True)
    page = "".join(
        [
            heading(summary, settings.seed),
            scores_section(summary),
            differences_section(summary),
            parts_section(summary),
            run_section(summary),
            curves_section(curves),
            data_section(verdict),
            gallery_section(evaluation, summary, settings.report.gallery_items),
            ""
            if example is None
            else "<h2>A training trajectory</h2>"
            + gallery.sequence(example, f"{example.request.id}, by the teacher"),
        ]
    )
    (out / "index.html").write_text(document(page), encoding="utf-8")
    (out / "report.md").write_text(markdown(summary, settings.seed), encoding="utf-8")
    write_plots(out / "plots", summary, {name: stage.dep(f"curve-{name}") for name in CURVES})
    stage.artifact(out / "index.html", "report")
    stage.log(f"open {Path('reports') / 'index.html'}")


# --- reading --------------------------------------------------------------------------------------

Curve = dict[tuple[str, str], list[tuple[float, float]]]


def read_curve(path: Path) -> Curve:
    """Points by (split, metric) from a training stage's CSV."""
    curve: Curve = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            points = curve.setdefault((row["split"], row["metric"]), [])
            points.append((float(row["step"]), float(row["value"])))
    return curve


def cells_of(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Cells by benchmark and system, in the order of the run."""
    found: dict[str, dict[str, Any]] = {}
    for cell in summary["cells"]:
        found.setdefault(cell["benchmark"], {})[cell["system"]] = cell
    return found


def systems_of(summary: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(cell["system"] for cell in summary["cells"]))


# --- the page -------------------------------------------------------------------------------------


def document(body: str) -> str:
    """The page around the sections."""
    beside = resources.files("interloom.benchmarks")
    style = (beside / "report.css").read_text("utf-8")
    script = (beside / "report.js").read_text("utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>interloom report</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}{gallery.style()}</style></head><body>{body}<script>{script}</script></body></html>\n"
    )


def heading(summary: Mapping[str, Any], seed: int) -> str:
    protocols = {cell["protocol"]: cell["judge"] for cell in summary["cells"]}
    lines = "".join(
        f"<li>{html.escape(protocol)}, judged by {html.escape(judge)}</li>"
        for protocol, judge in protocols.items()
    )
    return (
        f"<h1>interloom report</h1><p class=muted>profile {html.escape(summary['profile'])}, seed "
        f"{seed}; one training seed, intervals are 95 % bootstrap over items. The judge that "
        f"scored the training data also grades here.</p><ul>{lines}</ul>"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose columns sort on a click; cells are HTML."""
    top = "".join(f"<th data-sort>{cell}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f"<div class=scroll><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def interval(estimate: Mapping[str, float], signed: bool = False) -> str:
    """``value [low, high]``."""
    sign = "+" if signed else ""
    low, high = estimate["low"], estimate["high"]
    return f"{estimate['value']:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def scores_section(summary: Mapping[str, Any]) -> str:
    cells = cells_of(summary)
    rows = []
    for system in systems_of(summary):
        row = [html.escape(system)]
        for benchmark, by_system in cells.items():
            cell = by_system.get(system)
            row.append(interval(cell["overall"]) + _warning(cell) if cell else "")
            paper = PAPER.get(benchmark, {}).get(system)
            row.append(f"<span class=muted>{paper:.1f}</span>" if paper is not None else "")
        rows.append(row)
    head = ["system"]
    for benchmark in cells:
        head += [benchmark, "<span class=muted>paper</span>"]
    charts = "".join(
        svg.bars(
            [
                svg.Bar(system, *(cell["overall"][key] for key in ("value", "low", "high")))
                for system, cell in by_system.items()
            ],
            title=benchmark,
        )
        for benchmark, by_system in cells.items()
    )
    note = (
        "<p class=muted>Scores 0–100. The paper's column is another world and another scale: "
        "compare the order of the systems, not the numbers.</p>"
    )
    return f"<h2>Scores</h2>{table(head, rows)}{note}<div class=charts>{charts}</div>"


def _warning(cell: Mapping[str, Any]) -> str:
    if cell["unjudged"] <= UNJUDGED_WARNING:
        return ""
    return f' <span class=bad title="unjudged">({cell["unjudged"]:.0%} unjudged)</span>'


def differences_section(summary: Mapping[str, Any]) -> str:
    rows = []
    for entry in summary["differences"]:
        clear = entry["low"] > 0 or entry["high"] < 0
        kind = "muted" if not clear else "good" if entry["low"] > 0 else "bad"
        rows.append(
            [
                html.escape(entry["benchmark"]),
                html.escape(f"{entry['from']} → {entry['to']}"),
                f"<span class={kind}>{interval(entry, signed=True)}</span>",
                str(entry["n"]),
            ]
        )
    return (
        f"<h2>Differences</h2>{table(['benchmark', 'step', 'difference', 'items'], rows)}"
        "<p class=muted>Paired over items; grey intervals include 0.</p>"
    )


def parts_section(summary: Mapping[str, Any]) -> str:
    sections = []
    for benchmark, by_system in cells_of(summary).items():
        names = list(next(iter(by_system.values()))["parts"])
        rows = [
            [html.escape(system), *(f"{cell['parts'][name]:.1f}" for name in names)]
            for system, cell in by_system.items()
        ]
        sections.append(f"<h3>{html.escape(benchmark)}</h3>{table(['system', *names], rows)}")
    return "<h2>By task</h2>" + "".join(sections)


def run_section(summary: Mapping[str, Any]) -> str:
    names = ("images_per_request", "steps_per_request", "without_plan", "failed_calls", "seconds")
    rows = [
        [
            html.escape(f"{cell['benchmark']} × {cell['system']}"),
            *(f"{cell['run'][name]:.2f}" for name in names),
            f"{cell['unjudged']:.1%}",
        ]
        for cell in summary["cells"]
    ]
    head = ["cell", *(name.replace("_", " ") for name in names), "unjudged"]
    return f"<h2>What it took</h2>{table(head, rows)}"


def curves_section(curves: Mapping[str, Curve]) -> str:
    charts = []
    for stage, names in CURVES.items():
        lines = {
            f"{name}, {split}": points
            for name in names
            for split in ("held out", "train")
            if (points := curves[stage].get((split, name)))
        }
        bounded = {name: p for name, p in lines.items() if not name.startswith("loss")}
        charts.append(svg.curves(bounded, title=stage))
        losses = {name: p for name, p in lines.items() if name.startswith("loss")}
        charts.append(svg.curves(losses, title=f"{stage}: loss") if losses else "")
    return f"<h2>Training</h2><div class=charts>{''.join(charts)}</div>"


def data_section(verdict: Mapping[str, Any]) -> str:
    rows = [
        [html.escape(name), str(entry["rows"]), str(entry["expectations"])]
        for name, entry in verdict.get("suites", {}).items()
    ]
    return f"<h2>Data that passed the gate</h2>{table(['dataset', 'rows', 'expectations'], rows)}"


def gallery_section(evaluation: Path, summary: Mapping[str, Any], count: int) -> str:
    """Worst, best and evenly spread items of the last trained system on each benchmark."""
    sections = []
    for benchmark, by_system in cells_of(summary).items():
        trained = [system for system in by_system if system != "oracle"]
        folder = evaluation / benchmark / trained[-1]
        scores = Graded.read(folder / "graded.json").items
        trajectories = {
            t.request.id.split("/", 1)[1]: t
            for t in store.read_trajectories(folder / "trajectories")
        }
        order = sorted(scores, key=lambda item: (scores[item], item))
        chosen = spread(order, count // len(cells_of(summary)))
        shown = "".join(
            gallery.sequence(trajectories[item], f"{benchmark} {item}: {scores[item]:.0f} of 100")
            for item in chosen
        )
        sections.append(f"<h3>{html.escape(f'{benchmark}, {trained[-1]}')}</h3>{shown}")
    return "<h2>Sequences, from worst to best</h2>" + "".join(sections)


def spread(items: Sequence[str], count: int) -> list[str]:
    """``count`` of the items, evenly spread, first and last included.

    >>> spread(list("abcdefg"), 3)
    ['a', 'd', 'g']
    """
    if count >= len(items):
        return list(items)
    if count < 2:
        return list(islice(items, count))
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


# --- files beside it ------------------------------------------------------------------------------


def markdown(summary: Mapping[str, Any], seed: int) -> str:
    """Scores and differences as Markdown."""
    cells = cells_of(summary)
    lines = [
        "# interloom report",
        "",
        f"Profile {summary['profile']}, seed {seed}. Scores 0–100 with 95 % bootstrap intervals.",
        "",
        "| system | " + " | ".join(cells) + " |",
        "|---|" + "---|" * len(cells),
    ]
    for system in systems_of(summary):
        values = [
            interval(by_system[system]["overall"]) if system in by_system else ""
            for by_system in cells.values()
        ]
        lines.append(f"| {system} | " + " | ".join(values) + " |")
    lines += ["", "| benchmark | step | difference |", "|---|---|---|"]
    for entry in summary["differences"]:
        step = f"{entry['from']} → {entry['to']}"
        lines.append(f"| {entry['benchmark']} | {step} | {interval(entry, signed=True)} |")
    judged = {cell["protocol"]: cell["judge"] for cell in summary["cells"]}
    lines += ["", *(f"- {protocol}: judged by {judge}" for protocol, judge in judged.items()), ""]
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
