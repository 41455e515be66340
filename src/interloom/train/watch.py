"""What happens beside the optimiser: metrics, held-out evaluation, checkpoints, the best model.

One callback for SFT and GRPO. Everything it keeps lies in the stage's work folder, so that a stage
that was killed continues from its last whole checkpoint and ends with the same numbers::

    work/checkpoints/checkpoint-40/…/complete   marker, written when the checkpoint is whole
    work/best/                                  model of the best evaluation so far
    work/history.json                           every evaluation and every logged training step
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from interloom import ranks
from interloom.atomic import put
from interloom.progress import Bar
from interloom.runner import StageRun
from interloom.train import together

Metrics = dict[str, float]
COMPLETE = "complete"


def checkpoints(work: Path) -> Path:
    """The folder that the trainer writes its checkpoints to."""
    return work / "checkpoints"


def last_checkpoint(work: Path) -> Path | None:
    """The newest whole checkpoint. Half-written ones, left by a kill, are removed."""

    def look() -> Path | None:
        found: list[Path] = []
        for folder in sorted(checkpoints(work).glob("checkpoint-*")):
            if (folder / COMPLETE).is_file():
                found.append(folder)
            else:
                shutil.rmtree(folder)
        return max(found, key=lambda folder: int(folder.name.split("-")[1]), default=None)

    return together.on_first(look)


def evaluation_steps(total: int, count: int) -> list[int]:
    """``count`` steps spread evenly over the training, the last one included.

    >>> evaluation_steps(10, 3)
    [3, 7, 10]
    """
    count = max(1, min(count, total))
    return [round(total * (i + 1) / count) for i in range(count)]


class Watch(TrainerCallback):
    """Evaluates, keeps the best, logs to the stage's run.

    Args:
        evaluate: measures the current model on held-out data.
        select: the metric by which the best model is chosen; larger is better, a tie goes to the
        later.
        evaluations: how often to evaluate; a checkpoint is written each time.
        save: writes the current model to a folder; with several processes all call it, those that
        only give their share of the weights without a folder.
        at_start: also evaluate before the first step, so that training can never end worse than it
        began.
        patience: end early after so many evaluations without a new best; 0 never does.
    """

    def __init__(
        self,
        stage: StageRun,
        *,
        evaluate: Callable[[int], Metrics],
        select: str,
        evaluations: int,
        save: Callable[[Path | None], None],
        at_start: bool = False,
        patience: int = 0,
    ) -> None:
        self.stage = stage
        self.evaluate = evaluate
        self.select = select
        self.count = evaluations
        self.save = save
        self.at_start = at_start
        self.patience = patience
        self.evaluations: list[dict[str, Any]] = []
        self.training: list[dict[str, Any]] = []
        self._bar: Bar | None = None

    @property
    def best(self) -> dict[str, Any]:
        """The evaluation of the best model: its metrics and its ``step``."""
        assert self.evaluations, "nothing has been evaluated yet"
        return max(self.evaluations, key=lambda entry: (entry[self.select], entry["step"]))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        done = state.global_step
        history = self.stage.work / "history.json"
        if done and history.is_file():
            # What came after the checkpoint is trained again.
            kept = json.loads(history.read_text())
            self.evaluations = [e for e in kept["evaluations"] if e["step"] <= done]
            self.training = [e for e in kept["training"] if e["step"] <= done]
        self._bar = self.stage.progress(state.max_steps - done, "training steps")
        self._bar.__enter__()
        if self.at_start and not self.evaluations:
            self._evaluate(0)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        numbers = numeric(logs or {})
        if not numbers:
            return
        self.stage.metrics({f"train/{k}": v for k, v in numbers.items()}, step=state.global_step)
        self.training.append({"step": state.global_step, **numbers})

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        assert self._bar is not None
        self._bar.advance()
        if state.global_step in evaluation_steps(state.max_steps, self.count):
            self._evaluate(state.global_step)
            control.should_save = True
            behind = [e for e in self.evaluations if e["step"] > self.best["step"]]
            if self.patience and len(behind) >= self.patience:
                self.stage.log(f"no new best in {len(behind)} evaluations: ending early")
                control.should_training_stop = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        together.wait_for_all()  # each process writes a part of it
        self._write()  # what was logged of this step came after its evaluation
        if ranks.rank() == 0:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            (folder / COMPLETE).touch()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        assert self._bar is not None
        self._bar.__exit__(None, None, None)
        self._write()

    def _evaluate(self, step: int) -> None:
        metrics = self.evaluate(step)
        self.evaluations.append({"step": step, **metrics})
        self.stage.metrics({f"held_out/{k}": v for k, v in metrics.items()}, step=step)
        shown = ", ".join(f"{name} {value:.3g}" for name, value in metrics.items())
        self.stage.log(f"step {step}, held out: {shown}")
        if self.best["step"] == step and ranks.rank() == 0:
            replace_folder(self.stage.work / "best", self.save)
        elif self.best["step"] == step:
            self.save(None)
        self._write()

    def _write(self) -> None:
        if ranks.rank():
            return
        path = self.stage.work / "history.json"
        text = json.dumps({"evaluations": self.evaluations, "training": self.training})
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").replace(path)


def numeric(logs: Mapping[str, Any]) -> Metrics:
    """The finite numbers among a trainer's logs."""
    return {
        name: float(value)
        for name, value in logs.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder aside and put it in the place of the old one."""
    aside = folder.with_name(folder.name + ".new")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write(aside)
    put(aside, folder)


def write_curve(path: Path, watch: Watch) -> None:
    """All evaluations and training logs as one CSV: ``step, split, metric, value``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "split", "metric", "value"])
        for split, entries in (("held out", watch.evaluations), ("train", watch.training)):
            for entry in entries:
                for name, value in entry.items():
                    if name != "step":
                        writer.writerow([entry["step"], split, name, f"{value:.6g}"])
