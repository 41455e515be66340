"""A generator behind OpenAI's Images API, so that training and serving share it.

Extensions are the names that vLLM-Omni and SGLang know too: ``seed``, ``num_inference_steps``,
``guidance_scale``, and any argument that the generator's own ``call`` in the params sets.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from interloom.backends.diffusers import DiffusersGenerator
from interloom.records import Failure
from interloom.roles import GenerationJob
from interloom.seeding import derive_seed
from interloom.serve.drawing import Call, Drawing
from interloom.serve.engine import Busy, Closed
from interloom.serve.errors import ApiError, overloaded
from interloom.serve.guard import Envelope, Keys
from interloom.serve.inputs import sound_picture
from interloom.serve.metrics import CONTENT_TYPE, Metrics
from interloom.serve.schema import EXAMPLE, read
from interloom.serve.web import (
    CLIENT_GONE,
    add_errors,
    add_schemas,
    answers,
    asker,
    body_of,
    disconnected,
    json_body,
)
from interloom.settings.operation import ServingSettings

MAX_N, MAX_STEPS, MAX_SIDE = 8, 100, 2048
REFUSALS = (400, 401, 404, 413, 415, 429, 500, 503)


class Generate(BaseModel):
    """`POST /v1/images/generations`, and the fields of `/v1/images/edits`."""

    model_config = ConfigDict(
        strict=True,
        extra="allow",
        json_schema_extra={"examples": [{"prompt": EXAMPLE, "seed": 7}]},
    )

    prompt: Annotated[str, Field(min_length=1)]
    model: str | None = None
    n: Annotated[int | None, Field(ge=1, le=MAX_N)] = 1
    size: Annotated[
        str | None,
        Field(pattern=r"^(auto|\d{2,4}x\d{2,4})$", description="WIDTHxHEIGHT, multiples of 16."),
    ] = None
    response_format: Annotated[
        str | None, Field(pattern="^b64_json$", description="Addresses are not given out.")
    ] = None
    seed: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    num_inference_steps: Annotated[int | None, Field(ge=1, le=MAX_STEPS)] = None
    guidance_scale: Annotated[float | None, Field(ge=0, le=30)] = None

    background: Any = None
    moderation: Any = None
    output_compression: Any = None
    output_format: Annotated[str | None, Field(pattern="^png$")] = None
    quality: Any = None
    style: Any = None
    user: Any = None


class Edit(Generate):
    """`POST /v1/images/edits`: the picture to edit comes first, references follow."""

    image: Annotated[list[Any], Field(json_schema_extra={"items": {"format": "binary"}})]


class Picture(BaseModel):
    b64_json: str


class TokenCounts(BaseModel):
    """Always zero: diffusion counts no tokens."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0


class Pictures(BaseModel):
    """PNG pictures; ``seed`` is our extension."""

    created: int
    data: list[Picture]
    output_format: str = "png"
    usage: TokenCounts = TokenCounts()
    seed: int


class Service:
    """What the routes share; ``open`` it when the generator is loaded."""

    def __init__(self, serving: ServingSettings, metrics: Metrics, keys: Keys | None) -> None:
        self.serving, self.metrics, self.keys = serving, metrics, keys
        self.generator: DiffusersGenerator | None = None
        self.drawing: Drawing | None = None
        self.draining = False

    def open(self, generator: DiffusersGenerator) -> None:
        """Serve a generator."""
        self.generator = generator
        self.drawing = Drawing(
            lambda call: generator.with_call(**dict(call)),
            self.metrics,
            batch=generator.batch_size,
            queue=self.serving.queue,
        )
        self.metrics.serves(generator.name, "")

    def parts(self) -> tuple[DiffusersGenerator, Drawing]:
        """Generator and batches. Raises ``ApiError`` 503 if there are none."""
        if self.generator is None or self.drawing is None or self.draining:
            said = "shutting down" if self.draining else "still loading its model"
            raise ApiError(503, f"The server is {said}.", headers={"Retry-After": "5"})
        return self.generator, self.drawing

    def close(self) -> None:
        """Draw what waits."""
        self.draining = True
        if self.drawing is not None:
            self.drawing.close(self.serving.drain_seconds)


def make_app(service: Service, *, hosts: tuple[str, ...] = ()) -> FastAPI:
    """The application. ``hosts``: see ``guard.Envelope``."""
    app = FastAPI(title="interloom generator", version="1", docs_url=None, redoc_url=None)
    limits = service.serving
    app.add_middleware(
        Envelope, max_body=limits.max_body_bytes, large_bodies=limits.slots, hosts=hosts
    )
    add_errors(app, service.metrics)
    creator = asker(service.keys, spend=True)

    @app.post(
        "/v1/images/generations",
        response_model=Pictures,
        responses=answers(*REFUSALS),
        openapi_extra=body_of(Generate),
    )
    async def generate(request: Request, owner: str = creator) -> Response:
        """Draw pictures from a text."""
        service.parts()
        asked = read(Generate, await json_body(request))
        return await _drawn(service, request, asked, [])

    @app.post(
        "/v1/images/edits",
        response_model=Pictures,
        responses=answers(*REFUSALS),
        openapi_extra=body_of(Edit, "multipart/form-data"),
    )
    async def edit(request: Request, owner: str = creator) -> Response:
        """Draw pictures from a text and pictures."""
        generator, _ = service.parts()
        if not generator.edits:
            raise ApiError(400, f"{generator.name} draws from text alone.", param="image")
        asked, files = await _form(request, service.serving)
        pictures = [
            await run_in_threadpool(sound_picture, data, f"image {n}", service.serving)
            for n, data in enumerate(files, 1)
        ]
        if not pictures:
            raise ApiError(400, "image: there is no picture to edit.", param="image")
        return await _drawn(service, request, asked, pictures)

    @app.get("/health", responses=answers(503))
    async def health() -> dict[str, str]:
        """Whether the generator is loaded: backends ask before they send anything."""
        generator, _ = service.parts()
        return {"status": "ok", "model": generator.name}

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    add_schemas(app, (Generate, Edit))
    return app


async def _drawn(
    service: Service, request: Request, asked: Generate, pictures: list[bytes]
) -> Response:
    """Have it drawn, unless the client leaves before its turn."""
    generator, drawing = service.parts()
    if asked.model not in (None, generator.name):
        raise ApiError(404, f"The model here is {generator.name}.", code="model_not_found")
    if len(asked.prompt) > service.serving.max_text:
        raise ApiError(400, f"prompt: at most {service.serving.max_text} characters.")
    seed = secrets.randbelow(2**31) if asked.seed is None else asked.seed
    jobs = [
        GenerationJob(
            prompt=asked.prompt,
            seed=seed if number == 0 else derive_seed(seed, number),
            source=pictures[0] if pictures else None,
            references=tuple(pictures[1:]),
        )
        for number in range(asked.n or 1)
    ]
    call = call_of(asked, generator, service.serving)
    try:
        futures = drawing.submit(jobs, call)
    except Busy as error:
        raise overloaded(error.retry_after) from None
    except Closed:
        raise ApiError(503, "The server is shutting down.", headers={"Retry-After": "5"}) from None
    work = asyncio.gather(*(asyncio.wrap_future(future) for future in futures))
    if not await disconnected(request, work):
        made = [_picture(picture) for picture in work.result()]
        body = Pictures(created=int(time.time()), data=made, seed=seed)
        return Response(body.model_dump_json(), media_type="application/json")
    return Response(status_code=CLIENT_GONE)


def _picture(made: bytes | Failure) -> Picture:
    if isinstance(made, Failure):
        raise ApiError(500, f"The generator failed: {made.reason}")
    return Picture(b64_json=base64.b64encode(made).decode())


def call_of(asked: Generate, generator: DiffusersGenerator, limits: ServingSettings) -> Call:
    """What a request changes of the pipeline's call.

    Raises:
        ApiError: 400 for an argument that the service does not give out, or of a wrong type.
    """
    changes: dict[str, Any] = {
        "num_inference_steps": asked.num_inference_steps,
        "guidance_scale": asked.guidance_scale,
    }
    if asked.size not in (None, "auto"):
        width, height = (int(side) for side in asked.size.split("x"))
        right = all(32 <= side <= MAX_SIDE and side % 16 == 0 for side in (width, height))
        if not right or width * height > limits.max_pixels:
            limit = f"sides 32 to {MAX_SIDE} in steps of 16, at most {limits.max_pixels} pixels"
            raise ApiError(400, f"size: {limit}.", param="size")
        changes |= {"width": width, "height": height}
    for name, value in (asked.model_extra or {}).items():
        if name not in generator.call:
            raise ApiError(400, f"Parameter unknown: {name}.", param=name, code="unknown_parameter")
        own = generator.call[name]
        kind: Any = tuple[int, ...] if isinstance(own, tuple) else type(own)
        try:
            changes[name] = TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            said = error.errors()[0]["msg"]
            raise ApiError(400, f"{name}: {said}", param=name) from None
        if isinstance(own, int) and not isinstance(own, bool) and changes[name] > 4 * max(own, 1):
            raise ApiError(400, f"{name}: at most {4 * max(own, 1)}.", param=name)
    known = generator.call.items()
    return tuple(
        sorted((n, v) for n, v in changes.items() if v is not None and (n, v) not in known)
    )


async def _form(request: Request, limits: ServingSettings) -> tuple[Generate, list[bytes]]:
    """Fields and pictures of a multipart body.

    Raises:
        ApiError: 400 or 415.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise ApiError(415, "The content type must be multipart/form-data.")
    fields: dict[str, list[str]] = {}
    files: list[bytes] = []
    try:
        async with request.form(max_files=limits.max_images, max_fields=64) as form:
            for name, value in form.multi_items():
                if isinstance(value, str):
                    fields.setdefault(name, []).append(value)
                elif name in ("image", "image[]"):
                    files.append(await value.read())
                else:
                    raise ApiError(400, f"{name}: no such picture is used here.", param=name)
    except (UnicodeDecodeError, LookupError):
        raise ApiError(400, "The form is not UTF-8.") from None
    # A form knows texts alone; what a field means is said by its type.
    plain = {name: _value(name, texts) for name, texts in fields.items()}
    return read(Generate, json.dumps(plain).encode("utf-8", "replace")), files


def _value(name: str, texts: list[str]) -> Any:
    """A form's field as the JSON value that it stands for."""
    if name in ("prompt", "model", "size", "user"):
        return texts[-1]
    values = []
    for text in texts:
        try:
            values.append(json.loads(text))
        except (ValueError, RecursionError):
            values.append(text)
    return values if len(values) > 1 else values[0]
