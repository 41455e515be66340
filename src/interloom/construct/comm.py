"""Open interleaved data sets in the form of CoMM (arXiv 2406.10462), for the planner's data.

A file (``.json``, ``.jsonl`` or CoMM's own ``.pth``) of documents ``{"data_id", "title",
"dataset_type", "step_info": [[{"type": "text", "content"}, {"type": "image", "image_path"}…]…]}``
with the pictures in a folder ``images`` beside it. The documents' words are taken as they are: a
step's text is its instruction and its prompt.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interloom import images
from interloom.construct.files import Place, read_json, read_lines
from interloom.construct.interleaved import Interleaved, Part, Picture
from interloom.errors import InterloomError

FEWEST = 2
"""Pictures that a sequence needs at least."""
MOST = 40
"""Steps at most; longer documents are collections."""
OWN_NUMBER = re.compile(r"^(step\s*\d+\s*[:.)-]|\(\d+\))\s*", re.IGNORECASE)
ASK = "Show step by step: {title}"


def read(path: Path, lost: Counter[str]) -> Iterator[Interleaved]:
    """The documents as sequences; ``lost`` counts those that give none, by reason.

    A step without a picture goes to the step after it; of several pictures in a step the last one,
    which shows what was done, is taken.

    Raises:
        InterloomError: not such a file; names the file, the record and the field.
    """
    for number, value in enumerate(_documents(path)):
        document = Place(path, f"record {number}", value)
        sequence = _sequence(document, path.parent / "images")
        if isinstance(sequence, str):
            lost[sequence] += 1
        else:
            yield sequence


def _documents(path: Path) -> Iterator[Any]:
    if path.suffix == ".jsonl":
        yield from read_lines(path)
        return
    found = _unpickled(path) if path.suffix == ".pth" else read_json(path)
    if not isinstance(found, list):
        raise InterloomError(f"{path}: expected a list of records, found {type(found).__name__}")
    yield from found


def _unpickled(path: Path) -> Any:
    """A ``torch.save`` of plain values; anything else in it is refused, not run."""
    import pickle

    import torch

    try:
        return torch.load(path, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise InterloomError(f"{path}: not a file of plain values ({reason})") from error


def _sequence(document: Place, folder: Path) -> Interleaved | str:
    """The document, or why it gives no sequence."""
    title = document.get("title", str, type(None)) or ""
    parts: list[Part] = []
    words: list[str] = []
    for number, contents in enumerate(document.get("step_info", list)):
        step = Place(document.path, f"{document.record}, step_info[{number}]", contents)
        if not isinstance(contents, list):
            raise step.wrong("", f"expected a list, found {type(contents).__name__}")
        picture = None
        for entry in contents:
            content = Place(step.path, step.record, entry)
            match content.get("type", str):
                case "text":
                    words.append(" ".join(content.get("content", str).split()))
                case "image":
                    picture = folder / content.get("image_path", str)
                case kind:
                    raise content.wrong("type", f"{kind!r} is neither text nor image")
        if picture is None:
            continue
        text = OWN_NUMBER.sub("", " ".join(filter(None, words)))
        data = _picture(picture)
        if data is None:
            return "picture-missing"
        if not text:
            return "step-without-text"
        parts.append(Part(plan=text, pictures=(Picture(image=data),)))
        words = []
    if not FEWEST <= len(parts) <= MOST:
        return "too-short" if len(parts) < FEWEST else "too-long"
    if not title:
        return "no-title"
    return Interleaved(
        id=f"imported/{document.get('data_id', str)}",
        text=ASK.format(title=title),
        category=document.get("dataset_type", str) if document.has("dataset_type") else "",
        parts=tuple(parts),
    )


def _picture(path: Path) -> bytes | None:
    """The picture; ``None`` if it is not there or damaged, as links of such sets break."""
    try:
        data = path.read_bytes()
        images.from_bytes(data, str(path))
    except (OSError, InterloomError):
        return None
    return data
