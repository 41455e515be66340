"""Datasets on disk: Parquet with image bytes inside, self-describing, written whole or not at all.

Trajectories are kept in shards, one row per trajectory; ``datasets.load_dataset("parquet", …)``
reads the folder as it is. A source image is never stored twice: it is the last input image or the
accepted image of the step before, and is put back on reading.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom.errors import InterloomError
from interloom.records import (
    Attempt,
    Critique,
    Failure,
    Plan,
    Request,
    Score,
    Step,
    StepTrace,
    Trajectory,
)

if TYPE_CHECKING:
    import pyarrow as pa

METADATA_KEY = b"interloom"
BATCH = 64
"""Rows that are read at a time."""
TRAJECTORIES = 32
"""Trajectories in a row group: with pictures of a megapixel, a gigabyte."""
STEP_FIELDS = ("step_number", "step_name", "instruction", "prompt", "auxiliary_text")


def content(*values: object) -> str:
    """Digest of a row's content, by which copies are found."""
    hasher = hashlib.sha256()
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode()
        hasher.update(len(data).to_bytes(8, "big") + data)
    return hasher.hexdigest()[:32]


def step_type() -> pa.DataType:
    import pyarrow as pa

    return pa.struct(
        {name: pa.int32() if name == "step_number" else pa.string() for name in STEP_FIELDS}
    )


def trajectory_schema() -> pa.Schema:
    """One row per trajectory; ``attempts`` has one inner list per step that was begun."""
    import pyarrow as pa

    attempt = pa.struct(
        {
            "prompt": pa.string(),
            "seed": pa.int64(),
            "generator": pa.string(),
            "image": pa.binary(),
            "success": pa.bool_(),
            "refine_prompt": pa.string(),
            "reasoning": pa.string(),
            "semantic": pa.float64(),
            "quality": pa.float64(),
            "failure_role": pa.string(),
            "failure_reason": pa.string(),
        }
    )
    return pa.schema(
        {
            "id": pa.string(),
            "text": pa.string(),
            "kind": pa.string(),
            "category": pa.string(),
            "subcategory": pa.string(),
            "images": pa.list_(pa.binary()),
            "captions": pa.list_(pa.string()),
            "reasoning": pa.string(),
            "plan": pa.list_(step_type()),
            "attempts": pa.list_(pa.list_(attempt)),
            "failure_role": pa.string(),
            "failure_reason": pa.string(),
        }
    )


def _failure_fields(failure: Failure | None) -> dict[str, str | None]:
    return {
        "failure_role": failure and failure.role,
        "failure_reason": failure and failure.reason,
    }


def _failure(row: Mapping[str, Any]) -> Failure | None:
    if row["failure_role"] is None:
        return None
    return Failure(role=row["failure_role"], reason=row["failure_reason"])


def _attempt_row(attempt: Attempt) -> dict[str, Any]:
    critique, score = attempt.critique, attempt.score
    return {
        "prompt": attempt.prompt,
        "seed": attempt.seed,
        "generator": attempt.generator,
        "image": attempt.image,
        "success": critique and critique.success,
        "refine_prompt": critique and critique.refine_prompt,
        "reasoning": critique and critique.reasoning,
        "semantic": score and score.semantic,
        "quality": score and score.quality,
        **_failure_fields(attempt.failure),
    }


def _attempt(row: Mapping[str, Any]) -> Attempt:
    critique = score = None
    if row["success"] is not None:
        critique = Critique(
            success=row["success"],
            refine_prompt=row["refine_prompt"],
            reasoning=row["reasoning"],
        )
    if row["semantic"] is not None:
        score = Score(semantic=row["semantic"], quality=row["quality"])
    return Attempt(
        prompt=row["prompt"],
        seed=row["seed"],
        generator=row["generator"],
        image=row["image"],
        critique=critique,
        score=score,
        failure=_failure(row),
    )


def request_row(request: Request) -> dict[str, Any]:
    return {
        "id": request.id,
        "text": request.text,
        "kind": request.kind,
        "category": request.category,
        "subcategory": request.subcategory,
        "images": list(request.images),
        "captions": list(request.captions),
    }


def request_from(row: Mapping[str, Any]) -> Request:
    """The request of a prompt, trajectory or planner row."""
    return Request(
        id=row["id"],
        text=row["text"],
        kind=row["kind"],
        category=row["category"],
        subcategory=row["subcategory"],
        images=tuple(row["images"]),
        captions=tuple(row["captions"]),
    )


def step_row(step: Step) -> dict[str, Any]:
    return {name: getattr(step, name) for name in STEP_FIELDS}


def trajectory_row(trajectory: Trajectory) -> dict[str, Any]:
    plan = trajectory.plan
    return {
        **request_row(trajectory.request),
        "reasoning": plan and plan.reasoning,
        "plan": plan and [step_row(step) for step in plan.steps],
        "attempts": [[_attempt_row(a) for a in trace.attempts] for trace in trajectory.steps],
        **_failure_fields(trajectory.failure),
    }


def trajectory_from(row: Mapping[str, Any]) -> Trajectory:
    """The trajectory of a row, source images put back."""
    request = request_from(row)
    plan = None
    traces: list[StepTrace] = []
    if row["plan"] is not None:
        steps = tuple(Step(**step) for step in row["plan"])
        plan = Plan(reasoning=row["reasoning"], steps=steps)
        source = request.images[-1] if request.images else None
        for step, attempts in zip(steps, row["attempts"], strict=False):
            trace = StepTrace(
                step=step,
                source=source if attempts else None,
                attempts=tuple(_attempt(attempt) for attempt in attempts),
            )
            traces.append(trace)
            source = trace.accepted.image if trace.accepted else source
    return Trajectory(request=request, plan=plan, steps=tuple(traces), failure=_failure(row))


def write_table(
    path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema, about: Mapping[str, Any],
    group_rows: int = 512,
) -> int:  # fmt: skip
    """Write rows to one Parquet file through a temporary name; returns their number.

    Args:
        about: what the file is, kept as JSON in the schema's metadata under ``interloom``.
        group_rows: rows per row group, which is what is held in memory.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    described = schema.with_metadata({METADATA_KEY: json.dumps(about, sort_keys=True).encode()})
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    waiting = iter(rows)
    # No dictionary for images: they do not repeat, and looking for repeats costs memory.
    words: Any = [field.name for field in schema if pa.types.is_string(field.type)]
    with pq.ParquetWriter(part, described, compression="zstd", use_dictionary=words) as writer:
        while group := list(islice(waiting, group_rows)):
            writer.write_table(pa.Table.from_pylist([dict(row) for row in group], described))
            written += len(group)
    part.replace(path)
    return written


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of one Parquet file or of a folder's shards in order, a few at a time.

    Args:
        columns: those that are read, in dots if they are inside of others; all if not given.

    Raises:
        InterloomError: nothing there, not Parquet, or without these columns; names the file.
    """
    import pyarrow.parquet as pq

    for file in _files(path):
        with _sound(file), pq.ParquetFile(file) as parquet:
            _check_columns(file, columns or (), parquet.schema_arrow)
            for batch in parquet.iter_batches(BATCH, columns=columns):
                yield from batch.to_pylist()


def _files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise InterloomError(f"{path}: no Parquet file; run the stage that makes it")
    return files


@contextmanager
def _sound(file: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:  # the latter for pages that do not unpack
        raise InterloomError(f"{file}: not a sound Parquet file ({error})") from error


def _check_columns(file: Path, wanted: Iterable[str], found: pa.Schema) -> None:
    missing = sorted({name.partition(".")[0] for name in wanted} - set(found.names))
    if missing:
        raise InterloomError(
            f"{file}: no column {missing[0]!r}; this is not what the stage that makes it wrote"
        )


def about(path: Path) -> dict[str, Any]:
    """What a file says of itself (the metadata that ``write_table`` put there)."""
    import pyarrow.parquet as pq

    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(METADATA_KEY, b"{}"))


def write_shards(
    trajectories: Iterable[Trajectory],
    folder: Path,
    *,
    shard_rows: int,
    about: Mapping[str, Any],
    number: int = 0,
) -> int:
    """Write ``part-00000.parquet`` …, ``shard_rows`` trajectories each; returns their number.

    Args:
        number: of the first shard, where other parts are before these.
    """
    waiting = iter(trajectories)
    folder.mkdir(parents=True, exist_ok=True)
    schema = trajectory_schema()
    total = 0
    while group := list(islice(waiting, shard_rows)):
        rows = (trajectory_row(trajectory) for trajectory in group)
        facts = {**about, "shard": number, "rows": len(group)}
        path = folder / f"part-{number:05d}.parquet"
        total += write_table(path, rows, schema, facts, group_rows=TRAJECTORIES)
        number += 1
    return total


def read_trajectories(folder: Path) -> Iterator[Trajectory]:
    """All trajectories of a folder of shards, in the order of the requests."""
    return (trajectory_from(row) for row in read_rows(folder, trajectory_schema().names))


def read_chosen(folder: Path, ids: Collection[str]) -> Iterator[Trajectory]:
    """The trajectories of these requests, in order; pictures of others are not read.

    Raises:
        InterloomError: as ``read_rows`` does.
    """
    import pyarrow.dataset as ds

    chosen = ds.field("id").isin(list(ids))
    for file in _files(folder):
        with _sound(file):
            shard = ds.dataset(file, format="parquet")
            _check_columns(file, trajectory_schema().names, shard.schema)
            rows = shard.to_batches(filter=chosen, batch_size=BATCH, batch_readahead=1)
            for batch in rows:
                yield from map(trajectory_from, batch.to_pylist())
