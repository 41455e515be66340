"""What both services' web applications have in common."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from interloom.serve.errors import ApiError, ErrorBody
from interloom.serve.guard import NOBODY, Keys
from interloom.serve.metrics import Metrics

LOOK_SECONDS = 0.1
"""Between two looks whether a client that waits is still there."""
CLIENT_GONE = 499
"""What nginx calls an answer that nobody waits for; nobody sees it."""


def answers(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Documentation of refusals."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
    return {code: {"description": "Refused.", "content": content} for code in codes}


async def disconnected(request: Request, work: asyncio.Future[Any]) -> bool:
    """Wait for ``work``; true if the client left before, which cancels it."""
    try:
        while not (await asyncio.wait({work}, timeout=LOOK_SECONDS))[0]:
            if await request.is_disconnected():
                return True
        return False
    finally:
        work.cancel()


def body_of(model: type[BaseModel], kind: str = "application/json") -> dict[str, Any]:
    """Documentation of a body that is read by hand."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema}}}}


def add_errors(app: FastAPI, metrics: Metrics) -> None:
    """All refusals in OpenAI's error format, and no traceback for anyone."""

    def refuse(error: ApiError) -> JSONResponse:
        metrics.refused.labels(error.code or str(error.status)).inc()
        return JSONResponse(error.body(), error.status, error.headers)

    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> JSONResponse:
        return refuse(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return refuse(ApiError(400, f"{where}: {first['msg']}", param=where))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        said = f"{error.detail}: {request.method} {request.url.path}"
        headers = error.headers
        if error.status_code == 405:  # Starlette names the methods of one route of the path alone
            headers = {"Allow": ", ".join(sorted(_methods(app, request.url.path)))}
        return refuse(ApiError(error.status_code, said, headers=headers))


def _methods(app: FastAPI, path: str) -> set[str]:
    """The methods that a path knows."""
    routes = (route for route in app.routes if isinstance(route, APIRoute))
    return {m for route in routes if route.path_regex.match(path) for m in route.methods or ()}


async def json_body(request: Request) -> bytes:
    """The body of a request that says it is JSON.

    Raises:
        ApiError: 415 for another type. A page of another site can send those without asking.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "The content type must be application/json.")
    return await request.body()


def asker(keys: Keys | None, *, spend: bool) -> Any:
    """A dependency that gives the owner of the request's key; ``spend`` counts the request."""
    if keys is None:
        return Depends(lambda: NOBODY)
    scheme = HTTPBearer(auto_error=False, description="An API key.")

    def owner(request: Request, credentials: Any = Depends(scheme)) -> str:  # noqa: B008
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        return keys.owner(key.strip() if kind.lower() == "bearer" else None, spend=spend)

    return Depends(owner)


def add_schemas(app: FastAPI, models: Sequence[type[BaseModel]]) -> None:
    """Put the models of bodies that are read by hand into the OpenAPI document."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            known = document.setdefault("components", {}).setdefault("schemas", {})
            for model in (*models, ErrorBody):
                own = model.model_json_schema(ref_template="#/components/schemas/{model}")
                known |= own.pop("$defs", {})
                known[model.__name__] = own
            app.openapi_schema = json.loads(json.dumps(document))
        return app.openapi_schema or {}

    app.openapi = openapi
