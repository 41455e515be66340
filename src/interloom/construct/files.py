"""Files of other people's formats: every complaint names file, record and field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interloom import images
from interloom.errors import InterloomError

WHITE = "white.png"
"""Stands for "no image" in the released files."""


class Place:
    """Where in a file a value stands, for complaints, and how fields are taken from it."""

    def __init__(self, path: Path, record: str, value: Any) -> None:
        self.path, self.record, self.value = path, record, value

    def wrong(self, field: str, detail: str) -> InterloomError:
        where = f"{self.record}, field {field!r}" if field else self.record
        return InterloomError(f"{self.path}: {where}: {detail}")

    def has(self, field: str) -> bool:
        return isinstance(self.value, dict) and field in self.value

    def get(self, field: str, *kinds: type) -> Any:
        """The field's value, which must be exactly of one of these types."""
        if not isinstance(self.value, dict):
            raise self.wrong("", f"expected an object, found {type(self.value).__name__}")
        if field not in self.value:
            raise self.wrong(field, "missing")
        value = self.value[field]
        if type(value) not in kinds:
            names = " or ".join(kind.__name__ for kind in kinds)
            raise self.wrong(field, f"expected {names}, found {type(value).__name__}")
        return value

    def image(self, field: str) -> bytes | None:
        """The image that the field names, whole; ``None`` for null and for ``white.png``."""
        name = self.get(field, str, type(None))
        return None if name is None or Path(name).name == WHITE else self.read_image(field, name)

    def read_image(self, field: str, name: str) -> bytes:
        try:
            data = (self.path.parent / name).read_bytes()
        except OSError as error:
            raise self.wrong(field, f"no image {name!r} beside the file") from error
        images.from_bytes(data, f"{self.path}: {self.record}, field {field!r}, image {name!r}")
        return data


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InterloomError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InterloomError(f"{path}: not JSON ({error})") from error


def read_lines(path: Path) -> Iterator[Any]:
    """The values of a file with one JSON value a line, blank lines left out."""
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(filter(str.strip, lines)):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise InterloomError(f"{path}: record {number}: not JSON ({error})") from error
    except OSError as error:
        raise InterloomError(f"{path}: cannot be read ({error.strerror})") from error


def write_text(path: Path, text: str) -> None:
    _write_aside(path, text.encode())


def save_image(folder: Path, data: bytes | None) -> str:
    """Write an image under its digest, once and whole, and give its relative path."""
    if data is None:
        if not (folder / WHITE).exists():
            _write_aside(folder / WHITE, images.white(96, 96))
        return WHITE
    suffix = images.mime_type(data).removeprefix("image/")
    name = f"images/{images.digest(data)[:24]}.{suffix}"
    if not (folder / name).exists():
        _write_aside(folder / name, data)
    return name


def _write_aside(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    part.write_bytes(data)
    part.replace(target)
