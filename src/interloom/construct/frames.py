"""Datasets as flat tables of facts, one row per thing that can be wrong.

Great Expectations reads columns of plain values. So pictures become their size or what is wrong
with them, plans become the list of their faults, and contents become digests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from interloom import dialogue, images
from interloom.construct import critic_data, general, planner_data, prompts, reviewed, store
from interloom.construct.critic_data import HeldOut
from interloom.errors import InterloomError
from interloom.records import Plan, Request, Step, Trajectory

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

NO_PICTURE = "none"


def look(data: bytes | None) -> str:
    """``96x96`` for a sound picture, ``none`` for no picture, or what is wrong with it."""
    if data is None:
        return NO_PICTURE
    try:
        image = images.from_bytes(data)
    except InterloomError as error:
        return str(error)
    return f"{image.width}x{image.height}"


def looks(pictures: Sequence[bytes]) -> str:
    """Sizes of several pictures, each once, or the first thing that is wrong."""
    return ", ".join(sorted({look(data) for data in pictures})) or NO_PICTURE


def request_content(request: Request) -> str:
    return store.content(" ".join(request.text.lower().split()), request.kind, *request.images)


def malformed(error: ValidationError) -> str:
    """What keeps a row from being a record, in a few words."""
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def _table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([dict(row) for row in rows], columns=list(columns))


# --- files ----------------------------------------------------------------------------------------


def schema_faults(path: Path, schema: pa.Schema) -> tuple[str, int]:
    """How a file's columns differ from the wanted ones (empty: not at all), and its rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            found, rows = file.schema_arrow, file.metadata.num_rows
    except (OSError, pa.ArrowInvalid) as error:
        return f"not a sound Parquet file ({error})", 0
    faults = [f"{name} is missing" for name in schema.names if name not in found.names]
    faults += [f"{name} is unknown" for name in found.names if name not in schema.names]
    faults += [
        f"{field.name} is {found.field(field.name).type}, wanted {field.type}"
        for field in schema
        if field.name in found.names and not found.field(field.name).type.equals(field.type)
    ]
    return "; ".join(faults), rows


def files_table(prompt_file: Path, trajectories: Path, critic: Path, planner: Path) -> pd.DataFrame:
    """Every data file with its faults of schema and its number of rows."""
    wanted = [(prompt_file, prompts.prompt_schema())]
    shards = sorted(trajectories.glob("*.parquet")) or [trajectories / "part-00000.parquet"]
    wanted += [(shard, store.trajectory_schema()) for shard in shards]
    wanted += [(critic / f"{name}.parquet", critic_data.critic_schema()) for name in ("sft", "rl")]
    wanted += [(planner / "sft.parquet", planner_data.planner_schema())]
    if (path := planner / "general.parquet").exists():
        wanted += [(path, general.general_schema())]
    rows: list[dict[str, Any]] = []
    for path, schema in wanted:
        faults, count = schema_faults(path, schema)
        rows.append({"id": f"{path.parent.name}/{path.name}", "faults": faults, "rows": count})
    return _table(rows, ("id", "faults", "rows"))


# --- datasets -------------------------------------------------------------------------------------

PROMPT_COLUMNS = (
    "id", "text", "kind", "category", "subcategory", "template", "malformed", "pictures",
    "captions_fit", "pictures_fit", "content", "held_out",
)  # fmt: skip


def _fits(request: Request) -> tuple[bool, bool]:
    """Captions as many as pictures (or none); pictures there exactly where the kind wants them."""
    captions = len(request.captions) in (0, len(request.images))
    return captions, bool(request.images) == (request.kind != "create")


def _is_held_out(prompt: str | None, picture: bytes | None, held_out: HeldOut) -> bool:
    """Damaged pictures are another expectation's business."""
    if prompt is None or not re.fullmatch(r"\d+x\d+|none", look(picture)):
        return False
    return held_out(prompt, picture)


def _said_held_out(request: Request, held_out: HeldOut) -> bool:
    if request.kind == "text_response":
        return False
    return _is_held_out(request.text, request.images[-1] if request.images else None, held_out)


def prompts_table(path: Path, held_out: HeldOut) -> pd.DataFrame:
    """One row per request."""

    def rows() -> Iterator[dict[str, Any]]:
        for row in store.read_rows(path):
            plain = {name: row[name] for name in PROMPT_COLUMNS if name in row}
            try:
                request = store.request_from(row)
            except ValidationError as error:
                yield plain | {"malformed": malformed(error)}
                continue
            captions, pictures = _fits(request)
            yield {
                **plain,
                "malformed": "",
                "pictures": looks(request.images),
                "captions_fit": captions,
                "pictures_fit": pictures,
                "content": request_content(request),
                "held_out": _said_held_out(request, held_out),
            }

    return _table(rows(), PROMPT_COLUMNS)


TRAJECTORY_COLUMNS = (
    "id", "malformed", "known", "plan_length", "plan_faults", "most_attempts", "pictures",
    "links", "failure",
)  # fmt: skip


def _links(trajectory: Trajectory) -> str:
    """Pictures and judgments that must be there by what the record says of itself, and are not."""
    faults: list[str] = []
    for trace in trajectory.steps:
        where = f"step {trace.step.step_number}"
        if trace.step.prompt is not None and not trace.attempts:
            faults.append(f"{where} has no attempt")
        for number, attempt in enumerate(trace.attempts):
            if attempt.image is None and attempt.failure is None:
                faults.append(f"{where}, attempt {number}: neither picture nor failure")
            if attempt.critique is not None and attempt.image is None:
                faults.append(f"{where}, attempt {number}: a judgment of no picture")
            if attempt.critique is None and attempt.score is not None:
                faults.append(f"{where}, attempt {number}: a score without a judgment")
    begun, planned = len(trajectory.steps), len(trajectory.plan.steps) if trajectory.plan else 0
    if trajectory.failure is None and begun != planned:
        faults.append(f"{begun} of {planned} steps and no failure")
    return "; ".join(faults)


def _plan_faults(plan: Plan, request: Request) -> str:
    return "; ".join(dialogue.plan_faults(plan, request))


def trajectories_table(folder: Path, known: set[str]) -> pd.DataFrame:
    """One row per trajectory; ``known`` are the ids of the requests."""

    def rows() -> Iterator[dict[str, Any]]:
        for row in store.read_rows(folder):
            try:
                trajectory = store.trajectory_from(row)
            except ValidationError as error:
                yield {"id": row["id"], "malformed": malformed(error)}
                continue
            plan, failure = trajectory.plan, trajectory.failure
            made = [
                attempt.image
                for trace in trajectory.steps
                for attempt in trace.attempts
                if attempt.image is not None
            ]
            yield {
                "id": trajectory.request.id,
                "malformed": "",
                "known": trajectory.request.id in known,
                "plan_length": len(plan.steps) if plan else None,
                "plan_faults": _plan_faults(plan, trajectory.request) if plan else "",
                "most_attempts": max((len(t.attempts) for t in trajectory.steps), default=0),
                "pictures": looks(made),
                "links": _links(trajectory),
                "failure": f"{failure.role}: {failure.reason}" if failure else None,
            }

    return _table(rows(), TRAJECTORY_COLUMNS)


CRITIC_COLUMNS = (
    "id", "known", "before", "after", "prompt", "used_prompt", "refine_prompt", "reasoning",
    "success", "repeats", "semantic", "quality", "split", "content", "held_out",
)  # fmt: skip


def critic_table(path: Path, known: set[str], held_out: HeldOut) -> pd.DataFrame:
    """One row per judged image of the critic's SFT or RL file."""

    asked = known | {reviewed.REQUESTS}  # what people judged was asked of the service

    def rows() -> Iterator[dict[str, Any]]:
        for row in store.read_rows(path):
            words = (row["prompt"], row["used_prompt"])
            yield {
                **{name: row[name] for name in CRITIC_COLUMNS if name in row},
                "known": row["id"].split("/")[0] in asked,
                "before": look(row["before"]),
                "after": look(row["after"]),
                "repeats": row["success"] is not True or row["refine_prompt"] == words[1],
                "content": critic_data.row_content(row),
                "held_out": _is_held_out(row["prompt"], row["before"], held_out),
            }

    return _table(rows(), CRITIC_COLUMNS)


PLANNER_COLUMNS = (
    "id", "malformed", "known", "source", "text", "kind", "pictures", "captions_fit",
    "pictures_fit", "plan_length", "plan_faults", "reasoning", "content",
)  # fmt: skip


def planner_table(path: Path, known: set[str]) -> pd.DataFrame:
    """One row per sample of the planner's file."""

    answered = known | {"imported"}  # what was imported was asked by nobody here

    def rows() -> Iterator[dict[str, Any]]:
        for row in store.read_rows(path):
            plain = {name: row[name] for name in PLANNER_COLUMNS if name in row}
            try:
                request = store.request_from(row)
                plan = Plan(steps=tuple(Step(**step) for step in row["plan"] or ()))
            except ValidationError as error:
                yield plain | {"malformed": malformed(error)}
                continue
            captions, pictures = _fits(request)
            yield {
                **plain,
                "malformed": "",
                "known": request.id.split("/")[0] in answered,
                "pictures": looks(request.images),
                "captions_fit": captions,
                "pictures_fit": pictures,
                "plan_length": len(plan.steps),
                "plan_faults": _plan_faults(plan, request),
                "content": request_content(request),
            }

    return _table(rows(), PLANNER_COLUMNS)


GENERAL_COLUMNS = ("id", "question", "answer", "pictures", "pictures_fit")


def general_table(path: Path) -> pd.DataFrame:
    """One row per question that the planner rehearses."""

    def rows() -> Iterator[dict[str, Any]]:
        for row in store.read_rows(path):
            marked = (row["question"] or "").count(dialogue.IMAGE_MARK)
            shown = row["images"]
            looked = {
                "pictures": looks(shown or []),
                "pictures_fit": shown is not None and marked == len(shown),
            }
            yield row | looked

    return _table(rows(), GENERAL_COLUMNS)


def corpus_table(sft: pd.DataFrame, rl: pd.DataFrame) -> pd.DataFrame:
    """One row of facts about the critic's two files together."""
    shared = set(sft["content"]) & set(rl["content"])
    row = {
        "id": "critic-data",
        "sft_rl_ratio": len(sft) / len(rl) if len(rl) else None,
        "shared_rows": len(shared) + len(set(sft["id"]) & set(rl["id"])),
    }
    return _table([row], tuple(row))
