"""What the registered models share: their settings, their images, their chat models.

These modules are what MLflow stores and loads ("models from code"): no pickle, weights in
safetensors.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from interloom.backends.transformers import ChatModel
from interloom.errors import InterloomError
from interloom.images import from_bytes, to_png

Config = Mapping[str, Any]


def device() -> str:
    """Where a registered model runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_chat(folder: str | Path, config: Config, role: Literal["planner", "critic"]) -> ChatModel:
    """The chat model in a registered model's artifacts."""
    return ChatModel.from_pretrained(
        folder,
        device=device(),
        dtype=config["dtype"],
        batch_size=config["batch_size"],
        max_new_tokens=config[f"{role}_max_new_tokens"],
        max_image_pixels=config["max_image_pixels"],
    )


def read_image(text: str, where: str) -> bytes:
    """PNG bytes of a base64 image, decoded and checked.

    Raises:
        InterloomError: not base64, or no sound picture; names ``where``.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise InterloomError(f"{where}: not base64 ({error})") from error
    return to_png(from_bytes(data, where))


def optional_image(value: Any, where: str) -> bytes | None:
    """Like ``read_image``; missing values and empty texts are no image."""
    return read_image(value, where) if isinstance(value, str) and value else None


def image_list(value: Any, where: str) -> tuple[bytes, ...]:
    """A cell with several base64 images; a missing value is none of them."""
    if value is None or isinstance(value, float):
        return ()
    return tuple(read_image(text, f"{where}[{n}]") for n, text in enumerate(value))
