"""The report's page: its sections as HTML. Everything is inside: styles, charts, pictures."""

from __future__ import annotations

import html
import random
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from interloom.benchmarks import svg
from interloom.benchmarks.evaluate import unjudged_note
from interloom.benchmarks.graded import Graded
from interloom.construct import gallery, store
from interloom.seeding import derive_seed

PAPER: dict[str, dict[str, float]] = {
    "ueval": {
        "generator": 18.2, "zero-shot": 48.1, "planner-sft": 60.5, "full-sft": 64.5,
        "full-rl": 66.3, "oracle": 77.4,
    },
    "wise": {"generator": 47.0, "full-rl": 73.0},
    "rise": {"generator": 13.3, "full-rl": 28.9},
    "geneval": {"adaptive-base": 86.0, "adaptive-sft": 86.0, "adaptive-rl": 89.0},
    "kris": {"adaptive-base": 73.75, "adaptive-sft": 79.16, "adaptive-rl": 80.18},
    "omnicontext": {"adaptive-base": 88.2, "adaptive-sft": 91.2, "adaptive-rl": 93.5},
}  # fmt: skip
"""InterleaveThinker's tables with FLUX.2-klein-9B, and SAIR's with Emu3.5; another world, shown for
the order of effects."""
Summary = Mapping[str, Any]
Curve = dict[tuple[str, str], list[tuple[float, float]]]
CURVES = {
    "sft-planner": ("plan_validity", "prompt_match", "format_validity", "loss"),
    "sft-critic": ("judgment_accuracy", "accuracy_on_true", "accuracy_on_false", "loss"),
    "grpo-critic": ("reward", "fix", "judgment_accuracy", "reward/repaired"),
}
"""Per training stage the metrics that are drawn."""


def cells_of(summary: Summary) -> dict[str, dict[str, Any]]:
    """Cells by benchmark and system, in the order of the run."""
    found: dict[str, dict[str, Any]] = {}
    for cell in summary["cells"]:
        found.setdefault(cell["benchmark"], {})[cell["system"]] = cell
    return found


def judge_line(summary: Summary) -> str:
    """Whether the judge is the training's own, in words."""
    if summary["training_judge"]:
        return "The judge that scored the training data and gave the rewards also grades here."
    return "The judge took no part in the training."


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


def heading(summary: Summary) -> str:
    """Title, what the page is about, and where its sections are."""
    judge = html.escape(judge_line(summary))
    kind = "bad" if summary["training_judge"] else "muted"
    links = " · ".join(
        f'<a href="#{name.lower().replace(" ", "-")}">{name}</a>'
        for name in ("Scores", "Differences", "By task", "What it took", "Training", "Sequences")
    )
    return (
        f"<h1>interloom report</h1><p class=muted>profile {html.escape(summary['profile'])}, seed "
        f"{summary['seed']} (one training); intervals are 95 % bootstrap over items.</p>"
        f"<p class={kind}>{judge}</p><nav>{links}</nav>"
    )


def section(name: str) -> str:
    """A section's head, which the links at the top lead to."""
    return f'<h2 id="{name.lower().replace(" ", "-")}">{name}</h2>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """A table whose columns sort on a click; cells are HTML, the first ``words`` columns text."""
    top = "".join(f'<th data-sort tabindex="0">{cell}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class=scroll><table class="words{words}"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def interval(estimate: Mapping[str, float], signed: bool = False) -> str:
    """``value [low, high]``."""
    sign = "+" if signed else ""
    low, high = estimate["low"], estimate["high"]
    return f"{estimate['value']:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def _cell(cell: Mapping[str, Any]) -> str:
    """A score with its interval, and a warning if much of it is unjudged."""
    value = cell["overall"]
    low, high = value["low"], value["high"]
    note = html.escape(unjudged_note(cell["unjudged"]))
    return f"{value['value']:.1f} <small>[{low:.1f}, {high:.1f}]</small>" + (
        f" <span class=bad>{note.strip()}</span>" if note else ""
    )


def scores_section(summary: Summary) -> str:
    """All scores, the paper's beside them, and a chart for each benchmark."""
    cells = cells_of(summary)
    rows = []
    for system, made_of in summary["systems"].items():
        row = [f'<span title="{html.escape(made_of)}">{html.escape(system)}</span>']
        for benchmark, by_system in cells.items():
            row.append(_cell(by_system[system]) if system in by_system else "")
            if benchmark in PAPER:
                paper = PAPER[benchmark].get(system)
                row.append(f"<span class=paper>{paper:.1f}</span>" if paper is not None else "")
        rows.append(row)
    head = ["system"]
    for benchmark in cells:
        head.append(html.escape(benchmark))
        head += ["<span class=paper>paper, another scale</span>"] if benchmark in PAPER else []
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
        "<p class=muted>0–100. The columns in italics are InterleaveThinker’s figures on the real "
        "benchmarks with far larger models: another world and <b>another scale</b>. "
        "Compare the order of the systems, not the numbers.</p>"
    )
    return (
        f"{section('Scores')}{table(head, rows)}{note}<div class=charts>{charts}</div>"
        f"{protocols(summary)}{systems_table(summary)}"
    )


def protocols(summary: Summary) -> str:
    """What every score above rests on."""
    rows = []
    for benchmark, by_system in cells_of(summary).items():
        one = next(iter(by_system.values()))
        worst = max(cell["unjudged"] for cell in by_system.values())
        shown = f"{worst:.1%}"
        rows.append(
            [
                html.escape(benchmark), html.escape(one["protocol"]), html.escape(one["judge"]),
                html.escape(one["source"]), f"<code>{one['data'][:12]}</code>",
                str(summary["seed"]), str(one["overall"]["n"]),
                f"<span class=bad>{shown}</span>" if unjudged_note(worst) else shown,
            ]
        )  # fmt: skip
    head = ["benchmark", "protocol", "judge", "data", "data hash", "seed", "items", "unjudged"]
    return f"<h3>What the scores rest on</h3>{table(head, rows, 5)}" + (
        "<p class=muted>Unjudged: share of judge calls without a usable answer after all tries, of "
        "the worst system; they are left out of the score, and never counted as one.</p>"
    )


def systems_table(summary: Summary) -> str:
    """What each system is made of."""
    rows = [[html.escape(system), html.escape(made)] for system, made in summary["systems"].items()]
    return f"<h3>Systems</h3><div class=prose>{table(['system', 'made of'], rows, 2)}</div>"


def _caption(summary: Summary, benchmark: str) -> str:
    """One line under a benchmark's tables: protocol, judge, data, seed."""
    one = next(iter(cells_of(summary)[benchmark].values()))
    return (
        f"<p class=muted>{html.escape(one['protocol'])}; judge {html.escape(one['judge'])}; data "
        f"<code>{one['data'][:12]}</code>; seed {summary['seed']}; {one['overall']['n']} items</p>"
    )


def differences_section(summary: Summary) -> str:
    """Paired differences of neighbours."""
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
        f"{section('Differences')}{table(['benchmark', 'step', 'difference', 'items'], rows, 2)}"
        "<p class=muted>Paired over the items that were judged for both; 95 % bootstrap; grey "
        "intervals include 0.</p>"
    )


def parts_section(summary: Summary) -> str:
    """Every benchmark's own further figures."""
    parts = [section("By task")]
    for benchmark, by_system in cells_of(summary).items():
        names = list(dict.fromkeys(name for cell in by_system.values() for name in cell["parts"]))
        rows = [
            [
                html.escape(system),
                *(f"{cell['parts'][n]:.1f}" if n in cell["parts"] else "" for n in names),
            ]
            for system, cell in by_system.items()
        ]
        shown = table(["system", *map(html.escape, names)], rows)
        parts.append(f"<h3>{html.escape(benchmark)}</h3>{shown}{_caption(summary, benchmark)}")
    return "".join(parts)


def run_section(summary: Summary) -> str:
    """How many pictures, failures and seconds the answers took."""
    names = ("images_per_request", "steps_per_request", "without_plan", "failed_calls", "seconds")
    rows = [
        [
            html.escape(cell["benchmark"]),
            html.escape(cell["system"]),
            *(f"{cell['run'][name]:.2f}" for name in names),
            f"{cell['unjudged']:.1%}",
        ]
        for cell in summary["cells"]
    ]
    head = ["benchmark", "system", *(name.replace("_", " ") for name in names), "unjudged"]
    return f"{section('What it took')}{table(head, rows, 2)}"


def curves_section(curves: Mapping[str, Curve], drawn: Mapping[str, Sequence[str]]) -> str:
    """How the models were trained: the metrics that are ``drawn``, by stage."""
    charts = []
    for stage, names in drawn.items():
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
    return f"{section('Training')}<div class=charts>{''.join(charts)}</div>"


def data_section(verdict: Mapping[str, Any]) -> str:
    """What the gate found."""
    rows = [
        [html.escape(name), str(entry["rows"]), str(entry["expectations"])]
        for name, entry in verdict.get("suites", {}).items()
    ]
    shown = table(["dataset", "rows", "expectations"], rows)
    return f"<h3>Data that passed the gate</h3>{shown}"


# --- sequences ------------------------------------------------------------------------------------


def chosen_items(scores: Mapping[str, float], count: int, seed: int) -> dict[str, list[str]]:
    """The worst, the best and some random items, ``count`` together, none twice.

    >>> chosen_items({"a": 1, "b": 2, "c": 3, "d": 4}, 3, 0)["best"]
    ['d']
    """
    order = sorted(scores, key=lambda item: (scores[item], item))
    each = max(1, count // 3)
    worst = order[:each]
    best = [item for item in reversed(order) if item not in worst][:each]
    rest = [item for item in order if item not in (*worst, *best)]
    rng = random.Random(derive_seed(seed, "report"))
    chance = rng.sample(rest, min(len(rest), max(0, count - 2 * each)))
    return {"worst": worst, "best": best, "random": chance} if count else {}


def gallery_section(evaluation: Path, answers: Path, summary: Summary, count: int) -> str:
    """Worst, best and random items of each benchmark, of the last system that is no oracle."""
    cells = cells_of(summary)
    each = -(-count // len(cells)) if count else 0
    parts = [section("Sequences")]
    for benchmark, by_system in cells.items():
        systems = [name for name in by_system if name != "oracle"] or list(by_system)
        system = systems[-1]
        scores = Graded.read(evaluation / benchmark / system / "graded.json").items
        groups = chosen_items(scores, each, summary["seed"])
        wanted = {item for items in groups.values() for item in items}
        shown = {
            trajectory.request.id: trajectory
            for trajectory in store.read_trajectories(answers / benchmark / system / "trajectories")
            if item_of(trajectory.request.id, benchmark) in wanted
        }
        parts.append(
            f"<h3>{html.escape(f'{benchmark}, {system}')}</h3>{_caption(summary, benchmark)}"
        )
        for name, items in groups.items():
            articles = "".join(
                gallery.sequence(trajectory, f"{identity}: {scores[item]:.0f} of 100")
                for item in items
                for identity, trajectory in shown.items()
                if item_of(identity, benchmark) == item
            )
            if articles:
                open_ = "" if name == "random" else " open"
                parts.append(
                    f"<details class=group{open_}><summary>{name}</summary>{articles}</details>"
                )
    return "".join(parts)


def item_of(request: str, benchmark: str) -> str:
    """The graded item that a request belongs to: GenEval has several pictures of one prompt."""
    item = request.removeprefix(f"{benchmark}/")
    return item.partition("/")[0] if benchmark == "geneval" else item
