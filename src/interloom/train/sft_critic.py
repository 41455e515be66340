"""Stage ``sft-critic``: the critic learns to judge and to refine (InterleaveThinker §3.4)."""

from __future__ import annotations

from typing import Any

from interloom import dialogue
from interloom.construct import critic_data
from interloom.roles import CritiqueCase
from interloom.runner import StageRun
from interloom.settings import Settings
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


def request_of(row: Row) -> str:
    """The id of the request that a row of critic data comes from: ``<request>/<step>``."""
    return row["step_id"].rsplit("/", 1)[0]


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    options, style = settings.sft_critic, settings.models.dialogue
    rows = load_rows(stage.dep("critic-data") / "sft.parquet", stage.work / "rows")
    keys = [request_of({"step_id": step_id}) for step_id in rows["step_id"]]
    train, held = split_held_out(keys, options.held_out)
    kept = plain_rows(rows, held)
    truths = [bool(row["success"]) for row in kept]

    def converse(row: Row) -> dict[str, Any]:
        return critic_data.to_conversation(row, style)

    task = sft.Task(
        name="critic",
        samples=with_conversations(rows.select(train), converse),
        lengths=text_lengths(rows.select(train), lambda _: 2, ("before", "after")),
        held_out=[dialogue.critic_messages(case_of(row), style) for row in kept],
        figures=lambda answers: critic_figures(answers, truths),
        select="judgment_accuracy",
        images_needed=True,
    )
    base = sft.base_model(settings.models, stage.dep("vlm"))
    sft.fit(task, options, settings.models, stage, base=base, out="critic-sft", seed=settings.seed)
