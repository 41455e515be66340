"""``interloom show …``: a look at the data that was made, on the terminal."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from interloom.construct.coverage import Coverage
from interloom.errors import InterloomError
from interloom.project import find_project

app = typer.Typer(help="Look at the data that was made.", no_args_is_help=True)

Number = Annotated[int, typer.Option(help="Samples to show; 0 shows none.", min=0)]
Category = Annotated[str, typer.Option(help="Only this category or sub-category.")]
Seed = Annotated[int, typer.Option(help="Which samples.")]
WithCoverage = Annotated[bool, typer.Option(help="The table of the sub-categories.")]


@app.callback()
def show() -> None:
    """Look at the data that was made."""


@app.command()
def prompts(
    number: Number = 20, only: Category = "", seed: Seed = 0, coverage: WithCoverage = True
) -> None:
    """Samples of the requests that the stage `prompts` wrote, and how they are spread."""
    from interloom.construct import store

    path = find_project() / "outputs" / "prompts.parquet"
    columns = ("text", "kind", "category", "subcategory", "template", "slots")
    _show(store.read_rows(path, columns), number, only, seed, coverage)


@app.command()
def taxonomy(
    count: Annotated[int, typer.Option(help="Requests to write.", min=1)] = 2000,
    number: Number = 20,
    only: Category = "",
    seed: Seed = 0,
    coverage: WithCoverage = True,
    pictures: Annotated[Path | None, typer.Option(help="Folder of pictures for a third.")] = None,
) -> None:
    """Samples of the full taxonomy, whatever the profile; nothing is written."""
    from interloom.construct import given_pictures, taxonomy_prompts
    from interloom.construct.taxonomy import load

    given = given_pictures.find(pictures) if pictures else []
    made = taxonomy_prompts.drafts(load(), count, seed, Counter(), given, share=1 / 3)
    _show((draft._asdict() for draft in made), number, only, seed, coverage)


@app.command()
def trajectories(
    number: Annotated[int, typer.Option(help="Trajectories on the page.", min=1)] = 40,
    category: Annotated[str, typer.Option(help="Only this category.")] = "",
    outcome: Annotated[str, typer.Option(help="Only this outcome, such as `repaired`.")] = "",
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("outputs/show/trajectories.html"),
) -> None:
    """A page of trajectories: plans, all attempts, judgments and scores; nothing else is needed."""
    from interloom.construct import gallery

    root = find_project()
    shards, scores = root / "outputs/trajectories", root / "outputs/critic-data/scores.parquet"
    ids = gallery.choose(shards, number, seed, category=category, outcome=outcome)
    known = scores if scores.is_file() else None
    page = gallery.write(shards, root / out, ids, f"{len(ids)} trajectories", known)
    typer.echo(f"Open {page}")


def _show(
    rows: Iterable[dict[str, Any]], number: int, only: str, seed: int, coverage: bool
) -> None:
    counted, samples, seen = Coverage(), [], 0
    rng = random.Random(seed)
    for row in rows:
        counted.add(row["category"], row["subcategory"], row["template"], row["kind"])
        if only and only not in (row["category"], row["subcategory"]):
            continue
        # Every row has the same chance to stay, and only the samples are held.
        seen += 1
        if len(samples) < number:
            samples.append(row)
        elif (place := rng.randrange(seen)) < number:
            samples[place] = row
    if only and not seen:
        known = ", ".join(sorted({category for category, _ in counted.entries}))
        raise InterloomError(f"--only {only!r}: no such requests; categories: {known}")
    for row in samples:
        typer.echo(f"[{row['category']} / {row['subcategory']} / {row['template']}, {row['kind']}]")
        typer.echo(f"  {row['text']}")
    if coverage:
        typer.echo(("\n" if samples else "") + counted.table())
