"""Rows of a table to requests: the input that planner and pipeline have in common."""

from __future__ import annotations

from typing import Any, cast, get_args

from interloom.errors import InterloomError
from interloom.records import Request, RequestKind
from interloom.registered.chat import image_list


def requests_of(rows: list[dict[str, Any]]) -> list[Request]:
    """Columns ``text``, and if wanted ``images`` (base64 list) and ``kind``.

    Raises:
        InterloomError: naming the row and the column.
    """
    return [_request(row, number) for number, row in enumerate(rows)]


def _request(row: dict[str, Any], number: int) -> Request:
    where = f"row {number}"
    text = row.get("text")
    if not isinstance(text, str) or not text.strip():
        raise InterloomError(f"{where}: column text must be a text that is not empty")
    pictures = image_list(row.get("images"), f"{where}, images")
    kind = row.get("kind")
    if not isinstance(kind, str) or not kind:
        kind = "continuation" if pictures else "create"
    if kind not in get_args(RequestKind):
        raise InterloomError(
            f"{where}: kind {kind!r}; kinds are {', '.join(get_args(RequestKind))}"
        )
    return Request(id=str(number), text=text, images=pictures, kind=cast(RequestKind, kind))
