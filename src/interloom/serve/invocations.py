"""MLflow's own way of asking a model, `/invocations`, through the same batches."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from interloom.errors import InterloomError
from interloom.records import Request
from interloom.registered.requests import requests_of
from interloom.serve import inputs
from interloom.serve.errors import ApiError
from interloom.serve.events import Ended, Event, Order
from interloom.serve.service import Service, teller
from interloom.serve.system import System, Ticket

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

Make = Callable[[System[Any]], Order]


def read_table(
    body: bytes, content_type: str, signed: ModelSignature
) -> tuple[list[Request], dict[str, Any]]:
    """Requests and parameters of a body that MLflow's scoring protocol allows.

    Raises:
        ApiError: 400 or 415.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.models.utils import _enforce_params_schema, _enforce_schema
    from mlflow.pyfunc import scoring_server

    kind = content_type.partition(";")[0].strip()
    if kind != scoring_server.CONTENT_TYPE_JSON:
        raise ApiError(415, f"The content type must be {scoring_server.CONTENT_TYPE_JSON}.")
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


def makers_of(
    requests: list[Request], params: dict[str, Any], system: System[Any], service: Service
) -> list[Make]:
    """What makes the engine's orders for the system that answers then; ``system`` is that of now.

    Raises:
        ApiError: 400 for what breaks a limit.
    """
    limits = service.serving
    if not 1 <= len(requests) <= limits.slots:
        raise ApiError(400, f"{len(requests)} rows; 1 to {limits.slots} are answered at a time.")
    seed = params["seed"]
    if not 0 <= seed < 2**31:
        raise ApiError(400, "seed must be 0 to 2³¹ - 1.")
    try:
        wishes = replace(system.wishes(params), seed=seed)
    except InterloomError as error:
        raise ApiError(400, f"{error}.") from None
    makers: list[Make] = []
    for number, request in enumerate(requests):
        for place, picture in enumerate(request.images):
            inputs.check_picture(picture, f"row {number}, images[{place}]", limits)
        checked = inputs.request_of(request.text, request.images, (), request.kind, limits)
        # MLflow's own server numbers the rows, and seeds depend on that.
        numbered = checked.model_copy(update={"id": request.id})

        def make(served: System[Any], asked: Request = numbered) -> Order:
            return inputs.order_for(asked, served, limits, wishes)

        make(system)  # refused before anything is begun
        makers.append(make)
    return makers


async def invoke(makers: list[Make], service: Service) -> str:
    """Carry requests out, and write the answers as MLflow's server does.

    Raises:
        ApiError: 429 if there is no room for all, 500 if a call raised.
    """
    from mlflow.pyfunc.scoring_server import predictions_to_json

    tickets: list[Ticket[Any]] = []
    queues: list[asyncio.Queue[Event]] = []
    systems: list[System[Any]] = []
    try:
        for make in makers:
            queues.append(asyncio.Queue())
            ticket, system = service.submit(make, teller(queues[-1]))
            tickets.append(ticket)
            systems.append(system)
        ends = [await _end(events) for events in queues]
    except BaseException:
        for ticket in tickets:
            ticket.cancel()
        raise
    for end in ends:
        if end.code == "input_too_long":
            raise ApiError(400, f"{end.message}.", code=end.code)
        if end.outcome in ("error", "cancelled"):
            raise ApiError(500 if end.outcome == "error" else 503, f"{end.message}.")
    rows = [system.row(end.trajectory) for system, end in zip(systems, ends, strict=True)]
    text = io.StringIO()
    predictions_to_json(_table(rows), text)
    return text.getvalue()


async def _end(events: asyncio.Queue[Event]) -> Ended:
    while True:
        event = await events.get()
        if isinstance(event, Ended):
            return event


def _table(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows)
