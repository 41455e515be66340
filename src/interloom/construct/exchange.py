"""``interloom data``: the authors' released files, written from our data and read into it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from interloom.errors import InterloomError
from interloom.project import find_project
from interloom.records import Trajectory

app = typer.Typer(help="The authors' released files: write them, read them.", no_args_is_help=True)

Kind = Literal[
    "execution-records", "interleaved", "reflections", "critic-rl", "planner-sft", "critic-sft"
]
FILES: dict[Kind, str] = {
    "interleaved": "interleaved.jsonl",
    "reflections": "reflections.jsonl",
    "critic-rl": "critic_rl.jsonl",
    "planner-sft": "planner_sft.json",
    "critic-sft": "critic_sft.json",
}
"""Names of what is written; execution records are one folder a request."""
SHARD_ROWS = 500

OfKind = Annotated[Kind, typer.Argument(help="Which of the formats.", show_default=False)]


@app.callback()
def data() -> None:
    """The authors' released files: write them, read them."""


@app.command("export")
def write_out(
    kind: OfKind,
    folder: Annotated[Path, typer.Argument(help="Where to; pictures go beside the file.")],
) -> None:
    """Write what the stages made as one of the released formats."""
    from interloom.construct import interleaved, released, store

    outputs = find_project() / "outputs"
    shards, path = outputs / "trajectories", folder / FILES.get(kind, "")
    match kind:
        case "execution-records":
            number = released.write_folder_of_records(store.read_trajectories(shards), folder)
        case "interleaved" | "reflections":
            found = (
                interleaved.from_trajectory(one, reflection=kind == "reflections")
                for one in store.read_trajectories(shards)
            )
            whole = (one for one in found if one is not None)
            number = _told(lambda: interleaved.write(whole, path))
        case "critic-rl":
            rows = store.read_rows(outputs / "critic-data" / "rl.parquet")
            number = released.write_critic_rl(rows, path)
        case "planner-sft" | "critic-sft":
            number = _write_chats(kind, outputs, path)
    typer.echo(f"{number} records in {path}")


def _write_chats(kind: Literal["planner-sft", "critic-sft"], outputs: Path, path: Path) -> int:
    from interloom.construct import chats, store
    from interloom.settings.file import load_settings

    agent: chats.Agent = "planner" if kind == "planner-sft" else "critic"
    style = load_settings(outputs.parent / "params.yaml").models.dialogue
    rows = store.read_rows(outputs / f"{agent}-data" / "sft.parquet")
    samples = (chats.chat_sample(row, agent, style) for row in rows)
    return _told(lambda: chats.write_chats(samples, path))


def _told(write: Callable[[], int]) -> int:
    """A text that a format cannot hold is the data's fault, not the code's."""
    try:
        return write()
    except ValueError as error:
        raise InterloomError(f"this cannot be written: {error}") from error


@app.command("import")
def read_in(
    kind: OfKind,
    source: Annotated[Path, typer.Argument(help="The file, or the folder of execution records.")],
    out: Annotated[
        Path | None,
        typer.Argument(help="Parquet as our stages write it. Without it, all is read and checked."),
    ] = None,
) -> None:
    """Read one of the released formats: into our shards or rows, or just to see that it is sound.

    Trajectories and sequences become a folder of shards, critic-rl one Parquet file.
    """
    from interloom.construct import chats, critic_data, interleaved, released, reviewed, store

    if out is not None and out.exists():
        raise InterloomError(f"{out} is there already: name another place, or remove it")
    facts = {"source": kind, "file": source.name}
    match kind:
        case "execution-records" | "interleaved" | "reflections":
            if kind == "execution-records":
                made = _records(source)
            else:
                made = map(interleaved.to_trajectory, interleaved.read(source))
            number = _shards(_each_once(made, source), out, facts | {"format": "trajectories/1"})
        case "critic-rl":
            rows = released.read_critic_rl(source)
            facts |= {"format": reviewed.FORMAT, "split": "rl"}
            schema = critic_data.critic_schema()
            number = store.write_table(out, rows, schema, facts) if out else _counted(rows)
        case "planner-sft" | "critic-sft":
            if out is not None:
                raise InterloomError(
                    f"{kind}: chats are whole texts and no rows of ours; leave {out} out to check "
                    "them, or import the execution records that they were made from"
                )
            number = _counted(
                chats.read_chats(source, "planner" if "planner" in kind else "critic")
            )
    if not number:
        raise InterloomError(f"{source}: no records")
    typer.echo(f"{number} records in {out}" if out else f"{number} records, all sound")


def _counted(records: Iterable[object]) -> int:
    return sum(1 for _ in records)


def _records(source: Path) -> Iterator[Trajectory]:
    from interloom.construct import released

    if not source.exists():
        raise InterloomError(f"{source}: no such folder of execution records")
    if source.is_file():
        return iter([released.read_execution_record(source)])
    return released.read_folder_of_records(source)


def _each_once(made: Iterable[Trajectory], source: Path) -> Iterator[Trajectory]:
    """Ids tell requests apart ever after."""
    seen: set[str] = set()
    for trajectory in made:
        name = trajectory.request.id
        if name in seen:
            raise InterloomError(f"{source}: two records are called {name!r}; rename one")
        seen.add(name)
        yield trajectory


def _shards(made: Iterable[Trajectory], out: Path | None, facts: dict[str, str]) -> int:
    from interloom.construct import store

    if out is None:
        return _counted(made)
    aside = out.with_name(f"{out.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    number = store.write_shards(made, aside, shard_rows=SHARD_ROWS, about=facts)
    if number:
        aside.replace(out)
    else:
        aside.rmdir()
    return number
