"""The web application: routes, and what they answer."""

from __future__ import annotations

import asyncio
import logging
from importlib import resources
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from interloom.serve import invocations, results
from interloom.serve.answers import ResponseBody
from interloom.serve.errors import ApiError
from interloom.serve.guard import Envelope
from interloom.serve.metrics import CONTENT_TYPE
from interloom.serve.schema import EXAMPLE, CreateResponse, Feedback, read
from interloom.serve.service import Service
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

log = logging.getLogger(__name__)
FEEDBACK_PATIENCE = 60.0
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = {"page.css": "text/css", "page.js": "text/javascript", "stream.js": "text/javascript"}
ResultId = Annotated[str, Path(max_length=64, description="A response's `id`.")]


class Ready(BaseModel):
    """What is served."""

    status: str
    model: str
    version: str


class ModelEntry(BaseModel):
    """A model of `/v1/models`; `interloom` is our extension."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "interloom"
    interloom: dict[str, Any]


class ModelList(BaseModel):
    object: str = "list"
    data: list[ModelEntry]


class Deleted(BaseModel):
    id: str
    object: str = "response"
    deleted: bool = True


class ResultList(BaseModel):
    data: list[dict[str, Any]]


class Stored(BaseModel):
    stored: bool


class Table(BaseModel):
    """MLflow's request: rows of the registered model's signature, in one of its formats."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={"examples": [{"dataframe_records": [{"text": EXAMPLE}]}]},
    )


class Invocations(BaseModel):
    """MLflow's answer: one row per request."""

    predictions: list[dict[str, Any]]


def make_app(service: Service, *, hosts: tuple[str, ...] = ()) -> FastAPI:
    """The application. ``hosts``: see ``guard.Envelope``."""
    app = FastAPI(
        title="interloom",
        version="1",
        description="Interleaved text and pictures: every step planned, checked and corrected. "
        "`/v1/responses` is OpenAI's Responses API with the extensions of `CreateResponse`.",
        # Whoever wants a rendering of /openapi.json has it; the usual page loads foreign scripts.
        docs_url=None,
        redoc_url=None,
    )
    limits = service.serving
    app.add_middleware(
        Envelope, max_body=limits.max_body_bytes, large_bodies=limits.slots, hosts=hosts
    )
    add_errors(app, service.metrics)
    _add_responses(app, service)
    _add_results(app, service)
    _add_mlflow(app, service)
    _add_state(app, service)
    _add_page(app)
    add_schemas(app, (CreateResponse, Feedback, Table))
    return app


def _add_responses(app: FastAPI, service: Service) -> None:
    creator, reader = asker(service.keys, spend=True), asker(service.keys, spend=False)
    event = {"type": "object", "properties": {"event": {"type": "string"}}}
    stream = {"text/event-stream": {"schema": event}}

    @app.post(
        "/v1/responses",
        response_model=ResponseBody,
        responses={200: {"content": stream}, **answers(400, 401, 404, 413, 415, 429, 500, 503)},
        openapi_extra=body_of(CreateResponse),
    )
    async def create_response(request: Request, owner: str = creator) -> Response:
        """Make a sequence, every picture checked; with `stream` as it comes about."""
        service.check_room()
        asked = read(CreateResponse, await json_body(request))
        run = await service.start(asked, owner)
        if asked.stream:
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            return StreamingResponse(run.stream(), media_type="text/event-stream", headers=headers)
        body = await run.finish(request)
        if body is None:
            return Response(status_code=CLIENT_GONE)
        return Response(body.model_dump_json(), media_type="application/json")

    @app.get("/v1/responses/{response_id}", responses=answers(400, 401, 404))
    async def get_response(response_id: ResultId, owner: str = reader) -> ResponseBody:
        """A result that is still kept."""
        return _kept(service, response_id, owner).body

    @app.delete("/v1/responses/{response_id}", responses=answers(400, 401, 404))
    async def delete_response(response_id: ResultId, owner: str = reader) -> Deleted:
        """Forget a result; its trace, if any, stays in MLflow."""
        if not service.results.drop(response_id, owner):
            raise _unknown(response_id)
        return Deleted(id=response_id)

    @app.get("/v1/models", responses=answers(401, 503))
    async def list_models(owner: str = reader) -> ModelList:
        """The served model and what can be chosen."""
        served = service.system()
        about = {
            "version": served.version,
            "generators": list(served.generators),
            "options": sorted(served.options),
        }
        return ModelList(data=[ModelEntry(id=served.name, interloom=about)])


def _unknown(name: str) -> ApiError:
    return ApiError(404, f"No result {name} is kept here.", code="not_found")


def _kept(service: Service, name: str, owner: str) -> results.Result:
    found = service.results.get(name, owner)
    if found is None:
        raise _unknown(name)
    return found


def _add_results(app: FastAPI, service: Service) -> None:
    creator, reader = asker(service.keys, spend=True), asker(service.keys, spend=False)

    @app.get("/interloom/results", responses=answers(400, 401))
    async def list_results(
        limit: Annotated[int, Query(ge=1, le=100)] = 20, owner: str = reader
    ) -> ResultList:
        """Recent results, the latest first."""
        return ResultList(data=[r.summary() for r in service.results.recent(owner, limit)])

    @app.get(
        "/interloom/results/{response_id}/sequence.html",
        response_class=HTMLResponse,
        responses=answers(400, 401, 404),
    )
    async def sequence_html(response_id: ResultId, owner: str = reader) -> HTMLResponse:
        """The sequence as one page."""
        found = _kept(service, response_id, owner)
        return HTMLResponse(results.page(found), headers=_download(f"{response_id}.html"))

    @app.get(
        "/interloom/results/{response_id}/sequence.zip",
        response_class=Response,
        responses={200: {"content": {"application/zip": {}}}, **answers(400, 401, 404)},
    )
    async def sequence_zip(response_id: ResultId, owner: str = reader) -> Response:
        """The sequence as a ZIP of pictures and texts."""
        data = results.archive(_kept(service, response_id, owner))
        headers = _download(f"{response_id}.zip")
        return Response(data, media_type="application/zip", headers=headers)

    @app.post(
        "/interloom/results/{response_id}/feedback",
        response_model=Stored,
        responses=answers(400, 401, 404, 409, 413, 415, 429, 503),
        openapi_extra=body_of(Feedback),
    )
    async def give_feedback(
        request: Request, response_id: ResultId, owner: str = creator
    ) -> Stored:
        """Accept, reject or correct a step; it is stored on the request's MLflow trace."""
        given = read(Feedback, await json_body(request))
        found = _kept(service, response_id, owner)
        if service.traces is None:
            raise ApiError(409, "Traces are off (serving.traces): feedback has no place.")
        attempt = _attempt(found, given)
        stored = service.traces.feedback(response_id, owner, given, attempt)
        try:
            found_trace = await asyncio.wait_for(asyncio.wrap_future(stored), FEEDBACK_PATIENCE)
        except Exception as error:
            # Whatever the tracking server says: the feedback is not stored.
            log.error("feedback is lost: %s", type(error).__name__)
            raise ApiError(503, "MLflow does not take the feedback; try again later.") from None
        if not found_trace:
            raise ApiError(409, "The request has no trace to put feedback on.")
        return Stored(stored=True)


def _download(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


def _attempt(found: results.Result, given: Feedback) -> int:
    """The attempt that feedback is about."""
    for trace in found.trajectory.steps:
        if trace.step.step_number == given.step and trace.attempts:
            shown = trace.accepted
            wanted = given.attempt
            if wanted is None and shown is not None:
                wanted = trace.attempts.index(shown)
            if wanted is not None and wanted < len(trace.attempts):
                return wanted
            raise ApiError(400, f"attempt: step {given.step} has no such one.", param="attempt")
    raise ApiError(400, f"step: no step {given.step} with a picture.", param="step")


def _add_mlflow(app: FastAPI, service: Service) -> None:
    creator = asker(service.keys, spend=True)

    @app.post(
        "/invocations",
        response_model=Invocations,
        responses=answers(400, 401, 413, 415, 429, 500, 503),
        openapi_extra=body_of(Table),
    )
    async def invoke(request: Request, owner: str = creator) -> Response:
        """MLflow's scoring protocol, for the registered model's signature."""
        service.check_room()
        data = await json_body(request)
        served = service.system()
        asked, params = await asyncio.to_thread(
            invocations.read_table, data, "application/json", served.signature
        )
        makers = invocations.makers_of(asked, params, served, service)
        work = asyncio.create_task(invocations.invoke(makers, service))
        if await disconnected(request, work):
            return Response(status_code=CLIENT_GONE)
        return Response(work.result(), media_type="application/json")


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    @app.get("/ping", include_in_schema=False)
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/ready", responses=answers(503))
    async def ready() -> Ready:
        """The model is loaded and takes requests."""
        served = service.system()
        return Ready(status="ready", model=served.name, version=served.version)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


def _add_page(app: FastAPI) -> None:
    folder = resources.files("interloom") / "serve" / "page"

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        text = (folder / "page.html").read_text("utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in PAGE:
            raise HTTPException(404)
        return Response((folder / name).read_bytes(), media_type=PAGE[name])
