"""Encoded images: PNG in, PNG out, and a refusal for bytes that are no sound picture."""

from __future__ import annotations

import base64
import hashlib
import io
from functools import lru_cache
from typing import TYPE_CHECKING

from interloom.errors import InterloomError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 4096 * 4096
"""Above this an image is refused before it is decoded (a small file can unpack to gigabytes)."""
FORMATS = ("PNG", "JPEG", "WEBP")


def to_png(image: Image) -> bytes:
    """The image as PNG bytes; equal pixels give equal bytes.

    Level 1 because pocket images are tiny and written by the thousand.
    """
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def to_jpeg(image: Image) -> bytes:
    """The image as JPEG bytes, as well as JPEG can."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=100, subsampling=0)
    return buffer.getvalue()


def from_bytes(data: bytes, name: str = "image") -> Image:
    """Decode to RGB, whole: a truncated file is found here and not where it is first used.

    Raises:
        InterloomError: not PNG, JPEG or WebP, damaged, or above ``MAX_PIXELS``; names ``name``.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise InterloomError(
                    f"{name}: {image.width}×{image.height} pixels are more than {MAX_PIXELS};"
                    " scale it down first"
                )
            return image.convert("RGB")
    except UnidentifiedImageError as error:
        raise InterloomError(f"{name}: {len(data)} bytes that are no PNG, JPEG or WebP") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow reports broken PNG chunks as SyntaxError and broken headers as ValueError.
        raise InterloomError(f"{name}: the image is damaged ({error})") from error


def size(data: bytes, name: str = "image") -> tuple[int, int]:
    """Width and height in pixels, from the header alone."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size
    except Image.DecompressionBombError as error:
        raise InterloomError(f"{name}: {error}; scale it down first") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InterloomError(f"{name}: {len(data)} bytes that are no PNG, JPEG or WebP") from error


def mime_type(data: bytes, name: str = "image") -> str:
    """``image/png``, ``image/jpeg`` or ``image/webp``, from the first bytes."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return Image.MIME[image.format or ""]
    except UnidentifiedImageError as error:
        raise InterloomError(f"{name}: {len(data)} bytes that are no PNG, JPEG or WebP") from error


def thumbnail(data: bytes, side: int) -> bytes:
    """The image as it is if it fits into a square, else a smaller WebP."""
    if max(size(data)) <= side:
        return data
    image = from_bytes(data)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85)
    return buffer.getvalue()


def data_url(data: bytes) -> str:
    """The encoded image as a ``data:`` URL."""
    return f"data:{mime_type(data)};base64,{base64.b64encode(data).decode()}"


def digest(data: bytes) -> str:
    """sha256 of the encoded bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


@lru_cache(maxsize=8)
def white(width: int, height: int) -> bytes:
    """A blank white image: what the critic sees as "before" of a first step."""
    from PIL import Image

    return to_png(Image.new("RGB", (width, height), "white"))
