"""Pictures that requests of the full taxonomy come with: a folder of anybody's.

Every PNG, JPEG or WebP file in the folder (not in folders below) is one picture. A text file of the
same name (``cat.jpg``, ``cat.txt``) is its caption.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from interloom import images
from interloom.errors import InterloomError

SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".webp"])


class Given(NamedTuple):
    """A picture in its file; ``caption`` may be empty."""

    path: Path
    digest: str
    caption: str

    def read(self) -> bytes:
        """The encoded picture, as it stands in the file."""
        return self.path.read_bytes()


def find(folder: Path) -> list[Given]:
    """All different pictures of a folder, by name; equal files count once.

    Raises:
        InterloomError: no such folder, no picture in it, or a file that is none; names it.
    """
    if not folder.is_dir():
        raise InterloomError(f"prompts.pictures = {folder}: no such folder; an empty name for none")
    found: dict[str, Given] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        data = path.read_bytes()
        width, height = images.size(data, str(path))
        if width * height > images.MAX_PIXELS:
            raise InterloomError(f"{path}: {width}×{height} pixels are too many; scale it down")
        digest = images.digest(data)
        found.setdefault(digest, Given(path, digest, _caption(path.with_suffix(".txt"))))
    if not found:
        names = ", ".join(sorted(SUFFIXES))
        raise InterloomError(f"prompts.pictures = {folder}: no pictures in it ({names})")
    return list(found.values())


def _caption(path: Path) -> str:
    try:
        return " ".join(path.read_text(encoding="utf-8").split())
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise InterloomError(f"{path}: not UTF-8 text ({error.reason})") from None
