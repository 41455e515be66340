"""``interloom pocket …``: train the miniatures, measure them, look at them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The pocket world: train its miniatures, look at it.", no_args_is_help=True)


class Miniature(StrEnum):
    generator = "generator"
    vlm = "vlm"
    umm = "umm"


@app.command()
def train(
    miniature: Annotated[Miniature, typer.Argument(help="Which miniature.")],
    out: Annotated[Path, typer.Option(help="Folder that gets the model folders.")] = Path("data"),
    work: Annotated[Path, typer.Option(help="Checkpoints; a killed run resumes.")] = Path(
        ".interloom/foundation"
    ),
    seed: Annotated[int, typer.Option(help="Seed of weights and data.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    scale: Annotated[
        float, typer.Option(min=0.001, help="Factor on the number of steps (1 = as shipped).")
    ] = 1.0,
    batch: Annotated[
        int | None, typer.Option(min=1, help="vlm: lessons a step, if not as shipped.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="vlm: processes that draw lessons ahead.")
    ] = 2,
    device: Annotated[str, typer.Option(help="vlm: cpu, cuda, cuda:1 ...")] = "cpu",
) -> None:
    """Train a shipped miniature from scratch: seeded, resumable, its curve in MLflow."""
    from interloom.pocket.foundation.command import train_miniature
    from interloom.pocket.foundation.training import Machine

    train_miniature(
        miniature.value, out, work, seed=seed, threads=threads, scale=scale, batch=batch,
        machine=Machine(device, workers),
    )  # fmt: skip


@app.command()
def report(
    data: Annotated[Path, typer.Option(help="Folder with the miniatures.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Where the report goes.")] = Path("outputs/pocket"),
    n: Annotated[int, typer.Option(min=4, help="Prompts per cell.")] = 201,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
) -> None:
    """Measure what the shipped generators can and cannot do."""
    import torch
    from tqdm import tqdm

    from interloom.pocket.foundation.shipped import load_generator
    from interloom.pocket.measurements import measure
    from interloom.pocket.report import write

    torch.set_num_threads(threads)
    reports = []
    for name in ("generator", "generator-weak"):
        with tqdm(desc=f"{name}: pictures", unit="", mininterval=2) as bar:
            generator = load_generator(data / name)

            def tick(made: int, bar: tqdm = bar) -> None:
                bar.update(made)

            reports.append(measure(generator, n, tick))
        write(reports, out)
    typer.echo(f"Wrote {out}/report.json, report.md and report.png")


@app.command()
def show(
    data: Annotated[Path, typer.Option(help="Folder with the miniatures.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Where the page goes.")] = Path("outputs/pocket"),
    seed: Annotated[int, typer.Option(help="Seed of scenes and pictures.")] = 0,
) -> None:
    """Write contact sheets and a page of worlds, edits and failures."""
    from interloom.pocket.show import write_show

    typer.echo(f"Open {write_show(data, out, seed)}")
