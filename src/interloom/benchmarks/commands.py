"""``interloom benchmarks …``: what will be compared, what grading costs, whether editions hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interloom.errors import InterloomError
from interloom.project import find_project

app = typer.Typer(help="Benchmarks: systems, costs, soundness.", no_args_is_help=True)
Params = Annotated[Path, typer.Option(help="Params file.")]


@app.callback()
def benchmarks() -> None:
    """What will be compared, what grading costs, whether the pocket editions hold."""


@app.command()
def systems(params: Params = Path("params.yaml")) -> None:
    """The systems of the params file and what each is made of."""
    from interloom.benchmarks.parts import described, identity
    from interloom.settings.file import load_settings

    root = find_project()
    settings = load_settings(root / params)
    for name in settings.evaluate.systems:
        found = identity(name, settings, lambda dep: "", lambda uri: "looked up when it runs")
        typer.echo(f"{name:<16} {described(found)}")


@app.command()
def estimate(params: Params = Path("params.yaml")) -> None:
    """How many judge calls stage `evaluate` would make, and what they cost. Calls nobody."""
    from interloom.benchmarks.graders import estimates, summary
    from interloom.settings.file import load_settings

    root = find_project()
    settings = load_settings(root / params)
    asked = settings.evaluate
    typer.echo(f"judge: {settings.grading.backend} {settings.grading.model}")
    typer.echo("\n".join(summary(estimates(settings, root, asked, asked.systems))))
    typer.echo("At most: what was answered before is kept, and costs nothing again.")


@app.command()
def validate(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks; all by default.")] = None,
    items: Annotated[int, typer.Option(help="Items of each at most.", min=8)] = 240,
    seed: Annotated[int, typer.Option(help="Which items.")] = 7,
) -> None:
    """Whether every item of the pocket editions is held out, solvable, and not by a blank page."""
    from interloom.benchmarks.editions import POCKET
    from interloom.benchmarks.validation import validate as examine

    unknown = [name for name in names or () if name not in POCKET]
    if unknown:
        raise InterloomError(f"no benchmark {unknown[0]!r}; benchmarks: {', '.join(POCKET)}")
    unsound = False
    for name in names or POCKET:
        problems = examine(POCKET[name], items, seed)
        count = len(POCKET[name].published(items, seed))
        typer.echo(f"{name:<12} {count} items: {'sound' if not problems else ''}".rstrip())
        for problem in problems:
            typer.echo(f"  {problem}")
        unsound = unsound or bool(problems)
    raise typer.Exit(1 if unsound else 0)
