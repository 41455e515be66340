"""The plan as a table and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from interloom.planning.calibration import Calibration, figures
from interloom.planning.estimate import GB, Plan


def as_json(plan: Plan, known: Calibration) -> dict[str, Any]:
    """Everything, in hours, bytes and US dollars."""
    return {
        "profile": plan.profile,
        "volumes": asdict(plan.volumes),
        "stories": asdict(plan.stories),
        "stages": [asdict(stage) | {"usd_calls": stage.usd} for stage in plan.stages],
        "totals": {
            "gpu_hours": plan.gpu_hours,
            "gpu_hours_training": plan.training_hours("agents"),
            "gpu_hours_training_adaptive": plan.training_hours("adaptive"),
            "gpu_hours_published": known.published.hours.value * known.published.gpus.value,
            "storage": plan.storage,
            "usd_calls": sum(stage.usd for stage in plan.stages),
            "usd_gpus": plan.gpu_hours * plan.usd_per_gpu_hour,
            "usd": plan.usd,
        },
        "warnings": plan.warnings,
    }


def as_text(plan: Plan, known: Calibration, *, width: int = 110) -> str:
    """For the terminal: stages, calls, the largest memories, totals against the paper, warnings."""
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(Group(*_page(plan, known)))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _page(plan: Plan, known: Calibration) -> list[RenderableType]:
    rows = plan.volumes.rows
    said = known.published
    hours = said.hours.value * said.gpus.value
    trained, told = plan.training_hours("agents"), plan.stories
    lines = [
        f"profile {plan.profile}: {plan.volumes.requests:,.0f} requests, "
        f"{plan.volumes.attempts:,.0f} pictures; rows: planner {rows.planner:,.0f}, critic SFT "
        f"{rows.critic:,.0f}, critic RL {rows.rl:,.0f}",
        f"adaptive: {told.requests:,.0f} requests, {told.stories:,.0f} stories of "
        f"{told.story_tokens:,.0f} tokens, {told.rl_requests:,.0f} requests for RL",
    ]
    totals = [
        f"altogether {plan.gpu_hours:,.1f} GPU-hours on {known.gpu.name}, {plan.storage / GB:,.0f} "
        f"GB, {plan.usd:,.0f} US$ ({sum(s.usd for s in plan.stages):,.0f} of it for calls)",
        f"trainings of planner and critic {trained:,.1f} GPU-hours; the paper: {hours:,.0f} "
        f"({said.hours.value:.0f} h on {said.gpus.value:.0f}): {trained / hours:.2f} of it",
        f"trainings of the adaptive system {plan.training_hours('adaptive'):,.1f} GPU-hours; its "
        "paper says none",
        "Rules of thumb, right within tens of percents at best: `interloom plan --figures` shows "
        "what they rest on.",
    ]
    tables = [_stages(plan), _parts(plan)]
    if any(stage.calls for stage in plan.stages):
        tables.append(_calls(plan))
    warnings = [Text(f"warning: {warning}") for warning in plan.warnings]
    return [*map(Text, lines), *tables, *map(Text, totals), *warnings]


def _table(*columns: str, left: int = 1) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < left else "right", no_wrap=True)
    return table


def _stages(plan: Plan) -> Table:
    table = _table("stage", "GPUs", "GPU-h", "hours", "GB/GPU", "GB files", "calls", "US$ calls")
    for stage in plan.stages:
        table.add_row(
            stage.stage,
            _number(stage.gpus, 0),
            _number(stage.gpu_hours, 1),
            _number(stage.hours, 1),
            _number(stage.memory / GB, 1),
            _number(stage.storage / GB, 1),
            _short(sum(call.count for call in stage.calls)),
            _number(stage.usd, 0),
        )
    return table


def _parts(plan: Plan) -> Table:
    table = _table("training", "hours of each card", "GB at the peak", left=3)
    for stage in plan.stages:
        if stage.parts:
            spent = ", ".join(f"{what} {hours:.1f}" for what, hours in stage.parts.items() if hours)
            held = sorted(stage.memory_parts.items(), key=lambda part: -part[1])
            kept = ", ".join(f"{what} {size / GB:.1f}" for what, size in held[:3])
            table.add_row(stage.stage, spent, kept)
    table.columns[1].no_wrap = table.columns[2].no_wrap = False
    return table


def _calls(plan: Plan) -> Table:
    table = _table(
        "calls of", "for", "model", "calls", "tokens in", "tokens out", "hours", "US$", left=3
    )
    for stage in plan.stages:
        for call in stage.calls:
            mark = " (ledger)" if call.from_ledger else ""
            table.add_row(
                stage.stage,
                call.what,
                call.model + mark,
                _short(call.count),
                _short(call.count * call.each.input),
                _short(call.count * call.each.output),
                f"{call.hours:,.1f}",
                f"{call.usd:,.0f}",
            )
    table.columns[2].no_wrap = False
    return table


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}" if value else "–"


def _short(value: float) -> str:
    """Three digits and a unit: 1.03G, 288k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return _number(value, 0)


def figures_text(known: Calibration) -> str:
    """Every figure with its source, one a line."""
    return "\n".join(
        f"{name} = {figure.value:g} {figure.unit}  [{figure.source}]"
        for name, figure in figures(known)
    )
