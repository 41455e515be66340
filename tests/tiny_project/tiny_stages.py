"""Three small real stages for tests of the machinery: ``python tiny_stages.py STAGE``.

They write, count, keep checkpoints and record metrics like the real ones, in milliseconds.
``TINY_*`` variables make them slow, or fail, at a chosen place.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from PIL import Image

from interloom import images, ranks
from interloom.errors import InterloomError
from interloom.runner import StageRun, run_stage
from interloom.seeding import derive_seed
from interloom.settings.file import Settings, load_settings
from interloom.stages import StageSpec

NUMBERS = {"numbers": "outputs/numbers.txt"}
SQUARES = {"squares": "outputs/squares"}
STAGES = {
    spec.name: spec
    for spec in (
        StageSpec(
            name="numbers",
            summary="write seeded numbers",
            module="tiny_stages",
            sections=("prompts",),
            outs=NUMBERS,
            metrics={"metrics": "metrics/numbers.json"},
        ),
        StageSpec(
            name="squares",
            summary="square them, one file each, with a checkpoint after every one",
            module="tiny_squares",
            sections=("trajectories",),
            deps=NUMBERS,
            outs=SQUARES,
            metrics={"metrics": "metrics/squares.json"},
            plots={"curve": "plots/squares.csv"},
            together=True,
        ),
        StageSpec(
            name="total",
            summary="add them up",
            module="tiny_total",
            sections=(),
            deps=SQUARES,
            outs={"total": "outputs/total.txt"},
        ),
    )
}


def pause() -> None:
    """Wait as long as the test wants (or while there is a file ``hold``), between any two things
    that a stage does."""
    time.sleep(float(os.environ.get("TINY_PAUSE", "0")))
    while Path("hold").exists():
        time.sleep(0.05)


def run(settings: Settings, stage: StageRun) -> None:
    """Body of ``numbers``."""
    seeds = [derive_seed(settings.seed, index) % 1000 for index in range(settings.prompts.count)]
    stage.out("numbers").write_text("\n".join(map(str, seeds)) + "\n", encoding="utf-8")
    pause()
    stage.out("metrics").write_text(
        json.dumps({"count": len(seeds), "nested": {"max": max(seeds)}})
    )
    stage.log("numbers written")


def squares(settings: Settings, stage: StageRun) -> None:
    """Body of ``squares``: resumes from its checkpoint."""
    numbers = [int(line) for line in stage.dep("numbers").read_text().split()]
    checkpoint = stage.work / "done.json"
    done: list[int] = json.loads(checkpoint.read_text()) if checkpoint.exists() else []
    stage.log(f"starting at {len(done)}")
    hold: list[bytes] = []
    with stage.progress(len(numbers), "square") as bar:
        bar.advance(len(done))
        for index in range(len(done), len(numbers)):
            done.append(numbers[index] ** 2)
            if ranks.rank() == 0:
                part = checkpoint.with_suffix(".part")
                part.write_text(json.dumps(done))
                part.replace(checkpoint)
            stage.metrics({"square": done[-1]}, step=index)
            bar.advance()
            pause()
            if os.environ.get("TINY_FAIL_AT") == str(index):
                raise InterloomError(f"told to fail at {index}")
            crashing = os.environ.get("TINY_CRASH_RANK", str(ranks.rank())) == str(ranks.rank())
            if crashing and index >= int(os.environ.get("TINY_CRASH_FROM", "1000")):
                raise RuntimeError(f"told to crash at {index}")
            hold.append(b"x" * (int(os.environ.get("TINY_MEMORY", "0")) << 18))
    folder = stage.out("squares")
    folder.mkdir()
    for index, value in enumerate(done):
        (folder / f"part-{index:05d}.txt").write_text(f"{value}\n")
        pause()
    stage.out("curve").write_text(
        "step,square\n" + "".join(f"{i},{v}\n" for i, v in enumerate(done))
    )
    stage.out("metrics").write_text(json.dumps({"sum": sum(done)}))
    stage.picture("dot", images.to_png(Image.new("RGB", (8, 8), "red")))
    extra = stage.work / "note.txt"
    extra.write_text("an artifact")
    stage.artifact(extra, "notes")


def total(settings: Settings, stage: StageRun) -> None:
    """Body of ``total``; reads a section that it does not declare if told to."""
    if os.environ.get("TINY_READ_UNDECLARED"):
        print(settings.prompts)
    values = [int(path.read_text()) for path in sorted(stage.dep("squares").iterdir())]
    pause()
    stage.out("total").write_text(f"{sum(values)}\n")


def main(words: list[str]) -> None:
    """Run a stage here or in pods, as ``interloom run`` does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage")
    parser.add_argument("--params", default="params.yaml")
    parser.add_argument("--inputs", type=Path)
    parser.add_argument("--no-track", action="store_true")
    given = parser.parse_args(words)
    spec, settings = STAGES[given.stage], load_settings(given.params)
    if settings.cluster.runs(spec.name):
        from interloom.cluster.executor import run_on_cluster

        command = ("python", "-m", "tiny_stages", spec.name)
        run_on_cluster(spec, settings, Path.cwd(), command=command)
        return
    if given.inputs is None:
        run_stage(spec, settings, Path.cwd())
        return
    from interloom.cluster.data import Inputs

    inputs = Inputs.read(given.inputs)
    run_stage(spec, settings, Path.cwd(), inputs=inputs.files, keep_work=inputs.kind == "dvc")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InterloomError as refusal:  # as the command line does
        print(f"interloom: {refusal}", file=sys.stderr)
        sys.exit(2)
