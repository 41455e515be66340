"""Stage ``sft-critic``: the critic learns to judge and to refine (InterleaveThinker §3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from interloom import dialogue
from interloom.construct import critic_data
from interloom.dialogue import Style
from interloom.roles import CritiqueCase
from interloom.runner import StageRun
from interloom.settings.file import Settings
from interloom.train import sft
from interloom.train.data import (
    Row,
    load_rows,
    plain_rows,
    split_held_out,
    text_lengths,
    with_conversations,
)
from interloom.train.measure import critic_figures


def case_of(row: Row) -> CritiqueCase:
    """What the critic saw in a row of critic data."""
    return CritiqueCase(
        before=row["before"],
        after=row["after"],
        prompt=row["prompt"],
        used_prompt=row["used_prompt"],
    )


@dataclass(frozen=True)
class CriticSamples:
    """Samples to train on with their lengths, and the rows kept from it."""

    samples: Dataset
    lengths: list[int]
    held_out: list[Row]


def request_of(row: Row) -> str:
    """The id of the request that a row of critic data comes from: ``<request>/<step>``."""
    return row["step_id"].rsplit("/", 1)[0]


def critic_samples(path: Path, cache: Path, held_out: int, style: Style) -> CriticSamples:
    """The critic's SFT rows as samples, and those kept from training."""
    rows = load_rows(path, cache)
    keys = [request_of({"step_id": step_id}) for step_id in rows["step_id"]]
    train, held = split_held_out(keys, held_out)
    chosen = rows.select(train)
    return CriticSamples(
        samples=with_conversations(chosen, lambda row: critic_data.to_conversation(row, style)),
        lengths=text_lengths(chosen, lambda _: 2, ("before", "after")),
        held_out=plain_rows(rows, held),
    )


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    options, style = settings.sft_critic, settings.models.dialogue
    path, cache = stage.dep("critic-data") / "sft.parquet", stage.work / "rows"
    data = critic_samples(path, cache, options.held_out, style)
    truths = [bool(row["success"]) for row in data.held_out]
    task = sft.Task(
        name="critic",
        samples=data.samples,
        lengths=data.lengths,
        held_out=[dialogue.critic_messages(case_of(row), style) for row in data.held_out],
        figures=lambda answers: critic_figures(answers, truths),
        select="judgment_accuracy",
        images_needed=True,
    )
    base = sft.base_model(settings.models, stage.dep("vlm"))
    sft.fit(task, options, settings.models, stage, base=base, out="critic-sft", seed=settings.seed)
