"""Stage ``sft-planner``: the planner learns to write whole plans (InterleaveThinker §3.4).

SFT alone: a plan's worth shows only after some 25 generator calls, too late for a useful reward.
"""

from __future__ import annotations

from typing import Any

from interloom import dialogue
from interloom.construct import general, planner_data, store
from interloom.records import Plan, Step
from interloom.runner import StageRun
from interloom.settings.file import Settings
from interloom.train import sft
from interloom.train.data import (
    Row,
    joined,
    load_rows,
    plain_rows,
    split_held_out,
    text_lengths,
    with_conversations,
)
from interloom.train.measure import planner_figures
from interloom.train.sft_critic import critic_samples


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    options, style = settings.sft_planner, settings.models.dialogue
    rows = load_rows(stage.dep("planner-data") / "sft.parquet", stage.work / "rows")
    # A sample cut from a request is named "<request>/after-2": all of a request stay on one side.
    keys = [name.split("/")[0] for name in rows["id"]]
    train, held = split_held_out(keys, options.held_out)
    kept = plain_rows(rows, held)
    requests = [store.request_from(row) for row in kept]
    targets = [_plan(row) for row in kept]

    def converse(row: Row) -> dict[str, Any]:
        return planner_data.to_conversation(row, style)

    parts = [with_conversations(rows.select(train), converse)]
    lengths = text_lengths(rows.select(train), lambda row: len(row["captions"]), ("images",))
    if times := options.with_critic_rows:
        path, cache = stage.dep("critic-data") / "sft.parquet", stage.work / "critic-rows"
        also = critic_samples(path, cache, settings.sft_planner.held_out, style)
        parts += [also.samples] * times
        lengths += also.lengths * times
    if (path := stage.dep("planner-data") / "general.parquet").exists():
        questions = load_rows(path, stage.work / "general")
        parts.append(with_conversations(questions, general.to_conversation))
        lengths += text_lengths(
            questions, lambda row: row["question"].count(dialogue.IMAGE_MARK), ("images",)
        )
    task = sft.Task(
        name="planner",
        samples=joined(parts),
        lengths=lengths,
        held_out=[dialogue.planner_messages(request, style) for request in requests],
        figures=lambda answers: planner_figures(answers, requests, targets),
        select="plan_validity",
        images_needed=False,
    )
    base = sft.base_model(settings.models, stage.dep("vlm"))
    sft.fit(task, options, settings.models, stage, base=base, out="planner-sft", seed=settings.seed)


def _plan(row: Row) -> Plan:
    return Plan(reasoning=row["reasoning"], steps=tuple(Step(**step) for step in row["plan"]))
