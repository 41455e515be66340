"""SFT beside a plain TRL loop on the same data: python scripts/sft_speed.py [SAMPLES [ROUNDS]]

The shipped VLM on SAMPLES of the project's critic data and of its planner data (the stages
``critic-data`` and ``planner-data`` make them), one epoch each, without held-out evaluation:

- *plain*: TRL's ``SFTTrainer`` with rows in memory, shuffled, as its documentation does it;
- *ours*: rows memory-mapped and turned into conversations when asked for, batches of like length.

ROUNDS in turn, so that other work on the machine meets both alike. Prints samples per second of the
clock and of the processor, and the mean loss of the last fifth of the steps.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl.trainer.sft_trainer import SFTTrainer

from interloom.backends.transformers import load_model, load_processor
from interloom.construct import critic_data, planner_data
from interloom.settings.file import Settings, load_settings
from interloom.settings.training import SftSettings
from interloom.train import sft
from interloom.train.batches import LikeLengthsSFTTrainer
from interloom.train.data import load_rows, text_lengths, with_conversations


@dataclass(frozen=True)
class Data:
    """Samples of one agent in both forms."""

    name: str
    options: SftSettings
    lazy: Dataset
    lengths: Sequence[int]

    def in_memory(self) -> Dataset:
        """The same samples as rows of a dataset, decoded pictures included."""
        return Dataset.from_list([self.lazy[place] for place in range(len(self.lazy))])


def agents(settings: Settings, samples: int, work: Path) -> list[Data]:
    style = settings.models.dialogue
    critic = load_rows(Path("outputs/critic-data/sft.parquet"), work / "critic")
    planner = load_rows(Path("outputs/planner-data/sft.parquet"), work / "planner")
    critic, planner = (rows.select(range(min(samples, len(rows)))) for rows in (critic, planner))
    return [
        Data(
            "critic",
            settings.sft_critic,
            with_conversations(critic, lambda row: critic_data.to_conversation(row, style)),
            text_lengths(critic, lambda _: 2, ("before", "after")),
        ),
        Data(
            "planner",
            settings.sft_planner,
            with_conversations(planner, lambda row: planner_data.to_conversation(row, style)),
            text_lengths(planner, lambda row: len(row["captions"]), ("images",)),
        ),
    ]


def measure(data: Data, settings: Settings, work: Path, *, ours: bool) -> str:
    """One epoch; what it took."""
    sft.prepare(data.options.threads, 0)
    options = data.options.model_copy(update={"epochs": 1})
    base, models = Path("data/vlm"), settings.models
    shared: dict[str, Any] = {
        "model": load_model(base, dtype=options.weights_dtype),
        "args": sft.sft_config(options, models, work, 0),
        "processing_class": load_processor(base, max_image_pixels=models.max_image_pixels),
    }
    shared["args"].logging_steps = 1
    if ours:
        trainer: Any = LikeLengthsSFTTrainer(
            lengths=data.lengths, batch_size=options.batch_size, train_dataset=data.lazy, **shared
        )
    else:
        trainer = SFTTrainer(train_dataset=data.in_memory(), **shared)
    trainer.remove_callback(PrinterCallback)
    clock, cpu = time.perf_counter(), time.process_time()
    trainer.train()
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    last = losses[-max(1, len(losses) // 5) :]
    count = len(data.lazy)
    return (
        f"{data.name:8} {'ours' if ours else 'plain':6} {count / clock:6.1f} samples/s, "
        f"{count / cpu:6.1f} per CPU second, loss {sum(last) / len(last):.3f}"
    )


def main(samples: str = "480", rounds: str = "2") -> None:
    settings = load_settings()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for data in agents(settings, int(samples), Path(folder)):
            for _ in range(int(rounds)):
                for ours in (False, True):
                    print(measure(data, settings, Path(folder), ours=ours), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
