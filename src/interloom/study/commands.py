"""``interloom study …``: questions that take many trainings, answered by one command."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from interloom.project import find_project

if TYPE_CHECKING:
    from interloom.settings.file import Settings
    from interloom.study.claims import Findings

app = typer.Typer(help="Questions that take many trainings.", no_args_is_help=True)


@app.callback()
def study() -> None:
    """Questions that take many trainings, answered by one command."""


@app.command("critic-rl")
def critic_rl(
    seeds: Annotated[int, typer.Option(help="Trainings of everything.", min=1)] = 5,
    only: Annotated[
        list[str] | None, typer.Option("--variant", help="Only these variants beside the full one.")
    ] = None,
    benchmarks: Annotated[
        list[str] | None, typer.Option("--benchmark", help="Several, the claims' one first.")
    ] = None,
    items: Annotated[
        int, typer.Option(help="Items per benchmark and seed; UEval's have eight tasks.", min=8)
    ] = 48,
    cases: Annotated[int, typer.Option(help="Failed steps per seed.", min=8)] = 150,
    jobs: Annotated[int, typer.Option(help="Tasks at a time, one thread each.", min=1)] = 2,
    out: Annotated[Path, typer.Option(help="Folder of the trainings.")] = Path("studies/critic-rl"),
    to: Annotated[Path, typer.Option(help="Folder of table and plot.")] = Path("docs/studies"),
) -> None:
    """Does training pay, arrow by arrow, and what does each part of reward and data buy?

    Killed, it goes on where it was.
    """
    from interloom.errors import InterloomError
    from interloom.settings.file import load_settings
    from interloom.study import critic_rl as study
    from interloom.study import report
    from interloom.study.claims import findings

    root = find_project()
    os.chdir(root)
    settings = load_settings()
    names = {variant.name: variant for variant in study.variants(settings)}
    chosen = only if only is not None else list(names)
    _known("variant", chosen, list(names))
    asked = benchmarks or ["ueval"]
    _known("benchmark", asked, ["ueval", "wise", "rise"])
    if not (root / "data/vlm").exists():
        raise InterloomError("data/vlm is not there: run `dvc pull data.dvc`")
    plan = study.Plan(
        seeds=tuple(range(1, seeds + 1)),
        variants=tuple(names[name] for name in chosen),
        benchmarks=tuple(asked),
        items=items,
        cases=cases,
    )
    made = study.Study(root, out, plan)
    made.run(jobs, typer.echo)
    found = findings(made)
    command = f"interloom study critic-rl --seeds {seeds} --items {items} --cases {cases}"
    command += "".join(f" --benchmark {name}" for name in benchmarks or ())
    command += "".join(f" --variant {name}" for name in only or ())
    head = _head(command, seeds, "agents", list(made.lab.tasks))
    files = report.write("critic-rl", head, found, to)
    _record("critic-rl", settings, root, found, files, seeds=seeds, items=items, cases=cases)
    typer.echo((to / "critic-rl.md").read_text(encoding="utf-8"))


@app.command()
def adaptive(
    seeds: Annotated[int, typer.Option(help="Trainings of everything.", min=1)] = 5,
    only: Annotated[
        list[str] | None, typer.Option("--variant", help="Only these beside SFT on all modes.")
    ] = None,
    items: Annotated[int, typer.Option(help="Items per benchmark and seed.", min=8)] = 96,
    cases: Annotated[
        int, typer.Option(help="Scenes, and chains of orders, of each complexity.", min=1)
    ] = 16,
    agents: Annotated[
        bool, typer.Option("--agents", help="Train the agents too, and ask them the same.")
    ] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for all trainings.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Tasks at a time, one thread each.", min=1)] = 2,
    out: Annotated[Path, typer.Option(help="Folder of the trainings.")] = Path("studies/adaptive"),
    to: Annotated[Path, typer.Option(help="Folder of tables and plots.")] = Path("docs/studies"),
) -> None:
    """What does each mode buy, and what does the price on pictures do (SAIR's tables)?

    Killed, it goes on where it was.
    """
    from interloom.errors import InterloomError
    from interloom.settings.file import load_settings
    from interloom.study import adaptive as study
    from interloom.study import adaptive_claims, report

    root = find_project()
    os.chdir(root)
    settings = load_settings()
    names = {one.name: one for one in study.variants(settings.grpo_adaptive.bonus)}
    chosen = ["sft", *only] if only is not None else list(names)
    _known("variant", chosen, list(names))
    if not (root / "data/umm").exists():
        raise InterloomError("data/umm is not there: run `dvc pull data.dvc`")
    plan = study.Plan(
        seeds=tuple(range(1, seeds + 1)),
        variants=tuple(names[name] for name in dict.fromkeys(chosen)),
        items=items,
        cases=cases,
        changes=tuple(changes or ()),
        agents=agents,
    )
    made = study.Study(root, out, plan)
    made.run(jobs, typer.echo)
    found = adaptive_claims.findings(made)
    command = f"interloom study adaptive --seeds {seeds} --items {items} --cases {cases}"
    command += "".join(f" --variant {name}" for name in only or ())
    command += " --agents" * agents + "".join(f" --set {change}" for change in changes or ())
    head = _head(command, seeds, "models", list(made.lab.tasks))
    files = report.write("adaptive", head, found, to)
    modes, budgets = to / "adaptive-modes.png", to / "adaptive-budgets.png"
    adaptive_claims.plot_modes(made, modes)
    shown, pictures = f"\n![Modes by complexity]({modes.name})\n", [modes]
    if "rl" in chosen:
        adaptive_claims.plot_budgets(made, budgets)
        shown += f"\n![Success by pictures]({budgets.name})\n"
        pictures.append(budgets)
    with (to / "adaptive.md").open("a", encoding="utf-8") as page:
        page.write(adaptive_claims.tables(made) + shown)
    _record(
        "adaptive",
        settings,
        root,
        found,
        [*files, *pictures],
        seeds=seeds,
        items=items,
        cases=cases,
    )
    typer.echo((to / "adaptive.md").read_text(encoding="utf-8"))


def _head(command: str, seeds: int, trained: str, folders: Sequence[Path]) -> str:
    """What was done, how to read the tables, and what it took."""
    from interloom.study.tasks import cost

    spent = sum(cost(folder)["cpu_seconds"] for folder in folders)
    return (
        f"`{command}`: {seeds} seeds, each with its own data, {trained} and held-out items; scores "
        "are 0-100; differences are paired by item, their intervals from a bootstrap over seeds "
        "and items. Bold: the interval excludes zero. Judge and truth: the pocket world's "
        "verifier. "
        f"{len(folders)} tasks, {spent / 60:.0f} CPU minutes."
    )


def _known(kind: str, asked: Sequence[str], names: Sequence[str]) -> None:
    from interloom.errors import InterloomError

    unknown = [name for name in asked if name not in names]
    if unknown:
        raise InterloomError(f"no {kind} {', '.join(unknown)}; {kind}s: {', '.join(names)}")


def _record(
    name: str,
    settings: Settings,
    root: Path,
    found: Findings,
    files: Sequence[Path],
    **sizes: int,
) -> None:
    """The study as one MLflow run."""
    from interloom.tracking import open_recorder

    if not settings.tracking.enabled:
        return
    recorder = open_recorder(
        root,
        settings.tracking,
        stage=f"study-{name}",
        summary="compare trainings over seeds and variants",
        params=sizes,
        inputs=(),
        tags={},
    )
    measured = [(claim.text, claim.comparison.difference) for claim in found.claims]
    measured += [(effect.text, effect.times) for effect in found.effects]
    values = {}
    for text, estimate in measured:
        for end in ("value", "low", "high"):
            # Infinitely many times nothing is no number that MLflow's databases take.
            if math.isfinite(figure := getattr(estimate, end)):
                values[_metric_name(text, end)] = figure
    recorder.metrics(values, None)
    for file in files:
        recorder.artifact(file, "study")
    complaint = recorder.close("FINISHED")
    if complaint:
        typer.echo(f"warning: {complaint}", err=True)


def _metric_name(text: str, end: str) -> str:
    """A claim or an effect, and which end of its interval, as MLflow takes it.

    >>> _metric_name("1. zero-shot → planner-sft rises on ueval", "low")
    '1. zero-shot to planner-sft rises on ueval low'
    >>> _metric_name("wise: full-rl / generator", "value")
    'wise - full-rl per generator'
    """
    plain = text.replace("→", "to").replace(": ", " - ").replace(" / ", " per ")
    return plain if end == "value" else f"{plain} {end}"
