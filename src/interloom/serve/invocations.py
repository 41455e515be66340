"""MLflow's own way of asking a model, `/invocations`, through the same batches."""

from __future__ import annotations

import asyncio
import io
from typing import Any

from interloom.errors import InterloomError
from interloom.records import Request
from interloom.registered.answers import answer_row
from interloom.registered.requests import requests_of
from interloom.serve import inputs
from interloom.serve.engine import Ticket
from interloom.serve.errors import ApiError
from interloom.serve.events import Ended, Event, Order
from interloom.serve.pipeline import Pipeline
from interloom.serve.service import Service, teller

MAX_ATTEMPTS = 20


def read_table(body: bytes, content_type: str) -> tuple[list[Request], dict[str, Any]]:
    """Requests and parameters of a body that MLflow's scoring protocol allows.

    Raises:
        ApiError: 400 or 415.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.models.utils import _enforce_params_schema, _enforce_schema
    from mlflow.pyfunc import scoring_server

    from interloom.registry import signature

    kind = content_type.partition(";")[0].strip()
    if kind != scoring_server.CONTENT_TYPE_JSON:
        raise ApiError(415, f"The content type must be {scoring_server.CONTENT_TYPE_JSON}.")
    signed = signature("pipeline")
    try:
        parsed = scoring_server._parse_json_data(body.decode(), None, signed.inputs)
        table: Any = _enforce_schema(parsed.data, signed.inputs)
        params = _enforce_params_schema(parsed.params, signed.params) or {}
        rows = table.to_dict("records")
    except MlflowException as error:
        raise ApiError(400, str(error.message).splitlines()[0]) from None
    except Exception as error:
        # Pandas and numpy meet tables of any shape with whatever they raise there.
        raise ApiError(400, f"The body is no table ({type(error).__name__}: {error}).") from None
    try:
        return requests_of(rows), params
    except InterloomError as error:
        raise ApiError(400, f"{error}.") from None


def orders_of(
    requests: list[Request], params: dict[str, Any], pipeline: Pipeline, service: Service
) -> list[Order]:
    """The engine's orders.

    Raises:
        ApiError: 400 for what breaks a limit.
    """
    limits = service.serving
    if not 1 <= len(requests) <= limits.slots:
        raise ApiError(400, f"{len(requests)} rows; 1 to {limits.slots} are answered at a time.")
    attempts, seed = params["max_attempts"], params["seed"]
    if not 1 <= attempts <= MAX_ATTEMPTS or not 0 <= seed < 2**31:
        raise ApiError(400, f"max_attempts must be 1 to {MAX_ATTEMPTS}, seed 0 to 2³¹ - 1.")
    orders = []
    for number, request in enumerate(requests):
        for place, picture in enumerate(request.images):
            inputs.check_picture(picture, f"row {number}, images[{place}]", limits)
        checked = inputs.request_of(request.text, request.images, (), request.kind, limits)
        orders.append(
            # MLflow's own server numbers the rows, and seeds depend on that.
            inputs.order_for(
                checked.model_copy(update={"id": request.id}),
                pipeline,
                limits,
                t_max=attempts,
                seed=seed,
            )
        )
    return orders


async def invoke(orders: list[Order], service: Service) -> str:
    """Carry orders out, and write the answers as MLflow's server does.

    Raises:
        ApiError: 429 if there is no room for all, 500 if a call raised.
    """
    from mlflow.pyfunc.scoring_server import predictions_to_json

    tickets: list[Ticket] = []
    queues: list[asyncio.Queue[Event]] = []
    try:
        for order in orders:
            queues.append(asyncio.Queue())
            ticket, _ = service.submit(lambda _, order=order: order, teller(queues[-1]))
            tickets.append(ticket)
        ends = [await _end(events) for events in queues]
    except BaseException:
        for ticket in tickets:
            ticket.cancel()
        raise
    for end in ends:
        if end.outcome in ("error", "cancelled"):
            raise ApiError(500 if end.outcome == "error" else 503, f"{end.message}.")
    text = io.StringIO()
    predictions_to_json(_table([answer_row(end.trajectory) for end in ends]), text)
    return text.getvalue()


async def _end(events: asyncio.Queue[Event]) -> Ended:
    while True:
        event = await events.get()
        if isinstance(event, Ended):
            return event


def _table(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows)
