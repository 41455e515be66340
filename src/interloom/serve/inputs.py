"""From what a client sends to an order that the engine carries out: every limit is kept here."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Sequence
from typing import Any

from interloom import images
from interloom.construct.store import content
from interloom.errors import InterloomError
from interloom.records import Request
from interloom.serve.errors import ApiError
from interloom.serve.events import Order, Wishes
from interloom.serve.schema import CreateResponse, GivenPicture, InputImage, Message
from interloom.serve.system import Option, System
from interloom.settings.operation import ServingSettings

MIN_SIDE, MAX_ASPECT = 16, 8
"""Narrower pictures are no use to any generator, and make some of them fail."""


def order_of(asked: CreateResponse, system: System[Any], limits: ServingSettings) -> Order:
    """The engine's order for a request.

    Raises:
        ApiError: 400 for what breaks a limit or cannot be read, 404 for an unknown model.
    """
    known = (system.name, system.source)
    if asked.model is not None and asked.model not in known:
        raise ApiError(
            404,
            f"The model {asked.model!r} is not served here; {system.name} is.",
            code="model_not_found",
            param="model",
        )
    if asked.background:
        raise ApiError(400, "background: answers are not made in it here.", param="background")
    text, pictures, captions = _said(asked)
    request = request_of(text, _decoded(pictures, limits), captions, asked.kind, limits)
    wishes = Wishes(
        generator=asked.generator,
        t_max=asked.t_max,
        image_budget=min(
            (n for n in (asked.image_budget, asked.max_tool_calls) if n is not None), default=None
        ),
        reluctance=asked.reluctance,
        seed=asked.seed,
    )
    return order_for(request, system, limits, wishes)


def order_for(
    request: Request, system: System[Any], limits: ServingSettings, wishes: Wishes
) -> Order:
    """Fill in what a request leaves open.

    Raises:
        ApiError: 400 for what the system cannot do, an unknown generator, or a budget above the
            server's.
    """
    _check_options(system, wishes)
    try:
        system.check(request)
    except InterloomError as error:
        raise ApiError(400, f"{error}.", param="input") from None
    budget = wishes.image_budget
    if budget is not None and budget > limits.image_budget:
        raise ApiError(
            400, f"image_budget: at most {limits.image_budget} here.", param="image_budget"
        )
    usual = system.defaults
    tries = None if usual.t_max is None else min(limits.max_attempts, usual.t_max)
    price = usual.reluctance if wishes.reluctance is None else wishes.reluctance
    return Order(
        request=request,
        seed=secrets.randbelow(2**31) if wishes.seed is None else wishes.seed,
        image_budget=budget or min(limits.image_budget, usual.image_budget or limits.image_budget),
        max_steps=limits.max_steps,
        generator=wishes.generator or usual.generator or "",
        max_attempts=wishes.t_max or tries or 0,
        reluctance=price or 0.0,
    )


def _check_options(system: System[Any], wishes: Wishes) -> None:
    names = list(system.generators)
    given: dict[Option, Any] = {
        "generator": wishes.generator, "t_max": wishes.t_max, "reluctance": wishes.reluctance,
    }  # fmt: skip
    for name, value in given.items():
        if value is not None and name not in system.options:
            raise ApiError(400, f"{name}: {system.name} has no such choice.", param=name)
    if wishes.generator is not None and wishes.generator not in names:
        raise ApiError(400, f"generator: {', '.join(names)} can be chosen.", param="generator")


def request_of(
    text: str,
    pictures: Sequence[bytes],
    captions: Sequence[str],
    kind: str | None,
    limits: ServingSettings,
) -> Request:
    """A record of decoded pictures and a text.

    Its id is its content's digest, so that equal requests with equal seeds draw equal pictures.

    Raises:
        ApiError: 400.
    """
    if kind is None:
        kind = "continuation" if pictures else "create"
    if not text.strip() and kind != "text_response":
        raise ApiError(400, "input: there is no text in it.", param="input")
    if len(text) > limits.max_text:
        raise ApiError(
            400, f"input: {len(text)} characters, at most {limits.max_text}.", param="input"
        )
    if len(pictures) > limits.max_images:
        raise ApiError(
            400, f"input: {len(pictures)} pictures, at most {limits.max_images}.", param="input"
        )
    if bool(pictures) == (kind == "create"):
        wanted = "no picture" if kind == "create" else "pictures"
        raise ApiError(400, f"kind: {kind} wants {wanted}.", param="kind")
    return Request.model_validate(
        {
            "id": content(text, *pictures, *captions, kind)[:16],
            "text": text,
            "images": tuple(pictures),
            "captions": tuple(captions) if any(captions) else (),
            "kind": kind,
        }
    )


def _said(asked: CreateResponse) -> tuple[str, list[str], list[str]]:
    """All that was said: the text, the pictures' base64, and the captions of earlier answers."""
    texts = [asked.instructions] if asked.instructions else []
    if isinstance(asked.input, str):
        return "\n".join([*texts, asked.input]), [], []
    pictures: list[str] = []
    captions: list[str] = []
    caption = ""
    for item in asked.input:
        if isinstance(item, GivenPicture):
            pictures.append(item.result)
            captions.append(caption)
            caption = ""
            continue
        said = _texts(item)
        if item.role == "assistant":
            caption = "\n".join(said)
        else:
            texts += said
        for url in _urls(item):
            pictures.append(url.partition(",")[2])
            captions.append("")
    return "\n".join(texts), pictures, captions


def _texts(message: Message) -> list[str]:
    if isinstance(message.content, str):
        return [message.content]
    return [part.text for part in message.content if not isinstance(part, InputImage)]


def _urls(message: Message) -> list[str]:
    if isinstance(message.content, str):
        return []
    return [part.image_url for part in message.content if isinstance(part, InputImage)]


def _decoded(pictures: Sequence[str], limits: ServingSettings) -> list[bytes]:
    if len(pictures) > limits.max_images:
        raise ApiError(
            400, f"input: {len(pictures)} pictures, at most {limits.max_images}.", param="input"
        )
    return [picture_of(text, f"picture {n}", limits) for n, text in enumerate(pictures, 1)]


def picture_of(encoded: str, name: str, limits: ServingSettings) -> bytes:
    """PNG bytes of a base64 picture, whole and within the limits.

    Raises:
        ApiError: 400.
    """
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f"{name}: not base64 ({error}).", param="input") from None
    return sound_picture(data, name, limits)


def sound_picture(data: bytes, name: str, limits: ServingSettings) -> bytes:
    """PNG bytes of an encoded picture, whole and within the limits.

    Raises:
        ApiError: 400.
    """
    try:
        width, height = images.size(data, name)  # from the header: nothing is unpacked yet
        _check_size(width, height, name, limits)
        return images.to_png(images.from_bytes(data, name))
    except InterloomError as error:
        raise ApiError(400, f"{error}.", param="input", code="invalid_image") from None
    except ApiError:
        raise
    except Exception as error:
        # Pillow's readers meet broken files with whatever Python raises there.
        said = f"{name}: the image is damaged ({type(error).__name__})."
        raise ApiError(400, said, param="input", code="invalid_image") from None


def check_picture(data: bytes, name: str, limits: ServingSettings) -> None:
    """Check a picture that was decoded elsewhere.

    Raises:
        ApiError: 400.
    """
    _check_size(*images.size(data, name), name, limits)


def _check_size(width: int, height: int, name: str, limits: ServingSettings) -> None:
    said = f"{name}: {width}×{height} pixels"
    wrong: dict[str, Any] = {"param": "input", "code": "invalid_image"}
    if width * height > limits.max_pixels:
        raise ApiError(400, f"{said}, at most {limits.max_pixels} altogether.", **wrong)
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        limit = f"at least {MIN_SIDE} a side, and at most {MAX_ASPECT} times as long as wide"
        raise ApiError(400, f"{said}; {limit}.", **wrong)
