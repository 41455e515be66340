"""``interloom study …``: questions that take many trainings, answered by one command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from interloom.cli import find_project

app = typer.Typer(help="Questions that take many trainings.", no_args_is_help=True)


@app.callback()
def study() -> None:
    """Questions that take many trainings, answered by one command."""


@app.command("critic-rl")
def critic_rl(
    seeds: Annotated[int, typer.Option(help="Trainings of everything.", min=1)] = 5,
    only: Annotated[
        list[str] | None, typer.Option("--variant", help="Beside `full` only these variants.")
    ] = None,
    items: Annotated[int, typer.Option(help="Items per benchmark and seed.", min=8)] = 48,
    cases: Annotated[int, typer.Option(help="Failed steps per seed.", min=8)] = 150,
    jobs: Annotated[int, typer.Option(help="Trainings at a time.", min=1)] = 2,
    out: Annotated[Path, typer.Option(help="Folder of the trainings.")] = Path("studies/critic-rl"),
    to: Annotated[Path, typer.Option(help="Folder of table and plot.")] = Path("docs/studies"),
) -> None:
    """Does training pay, arrow by arrow, and what does each part of reward and data buy?

    Killed, it goes on where it was.
    """
    from interloom.errors import InterloomError
    from interloom.study import critic_rl as study
    from interloom.study import report

    root = find_project()
    os.chdir(root)
    names = {variant.name: variant for variant in study.VARIANTS}
    chosen = only if only is not None else list(names)
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise InterloomError(f"no variant {', '.join(unknown)}; variants: {', '.join(names)}")
    plan = study.Plan(
        seeds=tuple(range(1, seeds + 1)),
        variants=(study.FULL, *(names[name] for name in chosen if name != study.FULL.name)),
        items=items,
        cases=cases,
        jobs=jobs,
    )
    study.train(root, out, plan, typer.echo)
    repaired = {seed: study.critics(out, plan, seed, typer.echo) for seed in plan.seeds}
    head = (
        f"`interloom study critic-rl --seeds {seeds} --items {items} --cases {cases}`: {seeds} "
        "seeds, each with its own data, agents and held-out items; scores are 0-100; differences "
        "are paired by item, their intervals from a bootstrap over seeds and items. Bold: the "
        "interval excludes zero. Judge and truth: the pocket world's verifier."
    )
    report.write("critic-rl", head, study.results(out, plan, repaired), to)
    typer.echo((to / "critic-rl.md").read_text(encoding="utf-8"))
