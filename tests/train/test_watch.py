from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState

from interloom.runner import StageRun
from interloom.train import watch as watching
from interloom.train.watch import Watch, evaluation_steps, last_checkpoint, replace_folder


def make(stage: StageRun, scores: list[float], **options: Any) -> Watch:
    left = iter(scores)

    def save(folder: Path | None) -> None:
        assert folder is not None
        (folder / "weights").write_text("w")

    return Watch(
        stage,
        evaluate=lambda step: {"score": next(left), "step_seen": float(step)},
        select="score",
        evaluations=len(scores),
        save=save,
        **options,
    )


def drive(watch: Watch, steps: int, start: int = 0) -> TrainerControl:
    """Call the callback as a trainer does."""
    control, state = TrainerControl(), TrainerState()
    state.max_steps, state.global_step = steps, start
    arguments: Any = SimpleNamespace(output_dir="unused")
    watch.on_train_begin(arguments, state, control)
    while state.global_step < steps and not control.should_training_stop:
        state.global_step += 1
        watch.on_log(arguments, state, control, logs={"loss": 1.0 / state.global_step, "x": None})
        watch.on_step_end(arguments, state, control)
    watch.on_train_end(arguments, state, control)
    return control


@pytest.fixture
def stage(open_stage: Callable[[str], StageRun]) -> StageRun:
    return open_stage("sft-critic")


def test_the_best_model_is_kept_and_a_tie_goes_to_the_later(stage: StageRun):
    watch = make(stage, [0.5, 0.7, 0.7, 0.6])
    control = drive(watch, 8)
    assert watch.best == {"step": 6, "score": 0.7, "step_seen": 6.0}
    assert control.should_save
    assert (stage.work / "best" / "weights").read_text() == "w"


def test_training_can_never_end_worse_than_it_began(stage: StageRun):
    watch = make(stage, [0.9, 0.1, 0.2], at_start=True)
    watch.count = 2
    drive(watch, 4)
    assert watch.best["step"] == 0


def test_patience_ends_early(stage: StageRun):
    watch = make(stage, [0.5, 0.4, 0.3, 0.9], patience=2)
    assert drive(watch, 4).should_training_stop
    assert [entry["step"] for entry in watch.evaluations] == [1, 2, 3]


def test_history_before_the_checkpoint_is_taken_over_and_what_came_after_is_not(stage: StageRun):
    drive(make(stage, [0.5, 0.7, 0.6, 0.8]), 4)
    again = make(stage, [0.1, 0.2])
    again.count = 4
    drive(again, 4, start=2)
    assert [(e["step"], e["score"]) for e in again.evaluations] == [
        (1, 0.5), (2, 0.7), (3, 0.1), (4, 0.2),
    ]  # fmt: skip
    assert [entry["step"] for entry in again.training] == [1, 2, 3, 4]
    kept = json.loads((stage.work / "history.json").read_text())
    assert kept["evaluations"] == again.evaluations


def test_the_curve_has_every_number(stage: StageRun, tmp_path: Path):
    watch = make(stage, [0.5, 0.7])
    drive(watch, 2)
    watching.write_curve(tmp_path / "plots" / "c.csv", watch)
    rows = list(csv.DictReader((tmp_path / "plots" / "c.csv").open()))
    assert {"step": "2", "split": "held out", "metric": "score", "value": "0.7"} in rows
    assert {"step": "1", "split": "train", "metric": "loss", "value": "1"} in rows
    assert not [row for row in rows if row["metric"] == "x"]


def test_half_written_checkpoints_are_removed(tmp_path: Path):
    for name, whole in (("checkpoint-9", True), ("checkpoint-10", True), ("checkpoint-20", False)):
        folder = watching.checkpoints(tmp_path) / name
        folder.mkdir(parents=True)
        if whole:
            (folder / watching.COMPLETE).touch()
    found = last_checkpoint(tmp_path)
    assert found is not None and found.name == "checkpoint-10"
    assert not (watching.checkpoints(tmp_path) / "checkpoint-20").exists()
    assert last_checkpoint(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("total", "count", "steps"), [(10, 3, [3, 7, 10]), (2, 5, [1, 2]), (1, 1, [1]), (9, 1, [9])]
)
def test_evaluations_are_spread_and_include_the_last_step(total: int, count: int, steps: list[int]):
    assert evaluation_steps(total, count) == steps


def test_a_folder_is_replaced_whole(tmp_path: Path):
    target = tmp_path / "out"
    replace_folder(target, lambda folder: (folder / "old").touch())
    replace_folder(target, lambda folder: (folder / "new").touch())
    assert [path.name for path in target.iterdir()] == ["new"]

    def fails(folder: Path) -> None:
        (folder / "half").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        replace_folder(target, fails)
    assert [path.name for path in target.iterdir()] == ["new"]
