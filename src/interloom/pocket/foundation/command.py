"""What ``interloom pocket train`` does: one MLflow run, and whole model folders or none."""

# The libraries' own annotations are looser than their code.
# pyright: reportArgumentType=false

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from interloom.errors import InterloomError
from interloom.pocket.foundation.shipped import load_autoencoder, load_generator
from interloom.pocket.foundation.training import HERE, Machine, Report, prefixed
from interloom.seeding import seed_everything


def train_miniature(
    name: str,
    out: Path,
    work: Path,
    *,
    seed: int,
    threads: int,
    scale: float,
    batch: int | None = None,
    machine: Machine = HERE,
) -> None:
    """Train ``generator`` (with autoencoder and weak snapshot), ``vlm`` or ``umm`` into ``out``.

    Raises:
        InterloomError: a target folder is there already, or a generator is missing (the other
            models learn from what they make); a device that is not there, or that this miniature
            is not trained on.
    """
    _check(name, batch, machine)
    target, weak = out / name, out / "generator-weak"
    begun = (work / f"{name}.pt").exists()  # a killed run: the weak generator was its own snapshot
    for there in (target, weak) if name == "generator" and not begun else (target,):
        if there.exists():
            raise InterloomError(f"{there} is there already: move it away, or choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    seed_everything(seed)
    settings = {"miniature": name, "seed": seed, "threads": threads, "scale": scale,
                "batch": batch, **asdict(machine)}  # fmt: skip
    with _curve(name, work, settings) as report:
        if name == "generator":
            _train_generator(target, weak, work, seed, report, scale)
        elif name == "vlm":
            from interloom.pocket.foundation import vlm

            # It looks at pictures as the generators make them.
            autoencoder = load_autoencoder(out / "generator").to(machine.device)
            generator = load_generator(weak, device=machine.device)
            vlm.train_vlm(
                autoencoder, generator, target, work, seed, report, scale, batch or vlm.BATCH,
                machine,
            )  # fmt: skip
        else:
            from interloom.pocket.foundation import umm

            autoencoder = load_autoencoder(out / "generator")
            umm.train_umm(autoencoder, target, work, seed, report, scale)


def _check(name: str, batch: int | None, machine: Machine) -> None:
    if name != "vlm" and (batch is not None or machine.device != "cpu"):
        raise InterloomError(f"--batch and --device are for the vlm; {name} is trained on the CPU")
    try:
        torch.empty(0, device=machine.device)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InterloomError(f"--device {machine.device}: not to be had here ({reason})") from error


def _train_generator(
    out: Path, weak: Path, work: Path, seed: int, report: Report, scale: float
) -> None:
    from interloom.pocket.foundation import autoencoder as first
    from interloom.pocket.foundation import generator as second

    schedule = first.SCHEDULE.scaled(scale)
    trained = first.train_autoencoder(work, seed, prefixed(report, "autoencoder"), schedule)
    second.train_generator(trained, out, weak, work, seed, report, second.SCHEDULE.scaled(scale))


@contextmanager
def _curve(name: str, work: Path, settings: Mapping[str, object]) -> Iterator[Report]:
    """Reports go to a CSV beside the checkpoints as they come, and to one MLflow run."""
    import mlflow

    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{name}-curve.csv"
    mlflow.set_experiment("pocket-foundation")
    with mlflow.start_run(run_name=f"train {name}"), path.open("a", newline="") as file:
        mlflow.log_params(dict(settings))
        rows = csv.writer(file)

        def report(step: int, metrics: Mapping[str, float]) -> None:
            rows.writerows([step, key, value] for key, value in metrics.items())
            file.flush()
            mlflow.log_metrics(dict(metrics), step=step)

        yield report
        mlflow.log_artifact(str(path))
