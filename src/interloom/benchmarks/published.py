"""Reading benchmarks as they are published: JSON, JSON lines or Parquet, a local copy or a hub's.

A loader refuses what it does not know, and names the file and the record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from interloom import images
from interloom.construct import store
from interloom.errors import InterloomError
from interloom.records import Trajectory

KINDS = (".json", ".jsonl", ".parquet")
HUB = "hub:"


def located(source: str) -> Path:
    """The file or folder that ``source`` names; ``hub:OWNER/NAME`` is fetched into the hub's cache.

    Raises:
        InterloomError: nothing is there, or the hub does not give it.
    """
    if not source.startswith(HUB):
        if not Path(source).exists():
            raise InterloomError(
                f"{source}: no such file or folder; benchmarks are a user's own copy in the "
                f"published layout, or {HUB}OWNER/NAME"
            )
        return Path(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    name = source.removeprefix(HUB)
    try:
        return Path(snapshot_download(name, repo_type="dataset"))
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InterloomError(f"{source}: the hub does not give it ({reason})") from error


def records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records with the place where each stands, of a file or of all such files of a folder.

    Raises:
        InterloomError: no file of records, or one that cannot be read.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in KINDS)
        files = files or sorted(file for file in path.rglob("*.parquet"))
        if not files:
            raise InterloomError(f"{path}: no file of records ({', '.join(KINDS)}) in it")
    for file in files:
        rows = store.read_rows(file) if file.suffix == ".parquet" else _json(file)
        for number, row in enumerate(rows, 1):
            where = f"{file}, record {number}"
            if not isinstance(row, dict):
                raise InterloomError(f"{where}: {type(row).__name__} instead of an object")
            yield where, row


def _json(file: Path) -> list[Any]:
    """One value (a list of records, or a record alone), or a record a line."""
    try:
        text = file.read_text(encoding="utf-8")
        try:
            whole = json.loads(text)
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":  # JSON lines are values, one after the other
                raise
            return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InterloomError(f"{file}: not JSON ({error})") from error
    return whole if isinstance(whole, list) else [whole]


def field(record: Mapping[str, Any], name: str, where: str, kind: type | tuple[type, ...]) -> Any:
    """A field that has to be there.

    Raises:
        InterloomError: it is missing or of another type.
    """
    if record.get(name) is None:
        raise InterloomError(f"{where}: field {name!r} is missing")
    value = record[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InterloomError(f"{where}: field {name!r} is {type(value).__name__}")
    return value


def several(value: Any) -> tuple[Any, ...]:
    """One or many, as published records mix them: ``None``, a value, or a list of values."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def picture(value: Any, folder: Path, where: str) -> bytes:
    """A record's picture: a path relative to the records' folder, or bytes as Parquet keeps them.

    Raises:
        InterloomError: there is no such file, or it is no picture.
    """
    if isinstance(value, Mapping) and value.get("bytes"):
        value = value["bytes"]
    if isinstance(value, bytes):
        images.size(value, where)
        return value
    name = value.get("path") if isinstance(value, Mapping) else value
    file = folder / str(name)
    if not file.is_file():
        raise InterloomError(f"{where}: the picture {file} is not there")
    data = file.read_bytes()
    images.size(data, str(file))
    return data


def folder_of(path: Path) -> Path:
    """The folder that a records file's pictures are relative to."""
    return path if path.is_dir() else path.parent


def last_image(trajectory: Trajectory) -> bytes | None:
    """The picture that a sequence ends with."""
    shown = [t.accepted.image for t in trajectory.steps if t.accepted is not None]
    return shown[-1] if shown else None
