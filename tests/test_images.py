from __future__ import annotations

import struct
import zlib

import pytest
from PIL import Image

from interloom import images
from interloom.errors import InterloomError


def picture(width: int = 5, height: int = 3) -> Image.Image:
    image = Image.new("RGB", (width, height), (10, 200, 30))
    image.putpixel((1, 1), (255, 0, 0))
    return image


def test_round_trip_keeps_pixels_and_bytes():
    data = images.to_png(picture())
    assert data == images.to_png(picture())
    again = images.from_bytes(data)
    assert again.mode == "RGB" and again.tobytes() == picture().tobytes()
    assert images.size(data) == (5, 3)
    assert images.digest(data) == images.digest(images.to_png(again))


def test_other_modes_come_back_as_rgb():
    assert images.from_bytes(images.to_png(Image.new("L", (2, 2), 7))).getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize("data", [b"", b"no image", b"GIF89a" + bytes(20)])
def test_other_bytes_are_refused_by_name(data: bytes):
    with pytest.raises(InterloomError, match=r"row 3: .* no PNG, JPEG or WebP"):
        images.from_bytes(data, "row 3")
    with pytest.raises(InterloomError, match="row 3"):
        images.size(data, "row 3")


def test_truncated_image_is_refused():
    data = images.to_png(picture(60, 60))
    with pytest.raises(InterloomError, match="damaged"):
        images.from_bytes(data[: len(data) - 30])


def test_flipped_byte_is_refused():
    data = bytearray(images.to_png(picture(60, 60)))
    data[60] ^= 0xFF
    with pytest.raises(InterloomError):
        images.from_bytes(bytes(data))


def test_huge_image_is_refused_before_it_is_decoded():
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = images.to_png(picture())
    bomb = png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]
    with pytest.raises(InterloomError):
        images.from_bytes(bomb)


def test_white_is_white():
    assert set(images.from_bytes(images.white(4, 2)).getdata()) == {(255, 255, 255)}
