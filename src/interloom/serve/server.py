"""The running server: loads, serves, follows, and drains when it is told to end."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from interloom.errors import InterloomError
from interloom.serve import pipeline
from interloom.serve.api import make_app
from interloom.serve.guard import LOOPBACK, Keys
from interloom.serve.host import Host
from interloom.serve.metrics import Metrics
from interloom.serve.service import Service
from interloom.serve.traces import Traces
from interloom.settings import GeneratorName, Settings
from interloom.tracking import tracking_uri

log = logging.getLogger(__name__)


def serve(
    settings: Settings,
    root: Path,
    source: str,
    *,
    host: str,
    port: int,
    generators: Sequence[GeneratorName] = (),
    log_texts: bool = False,
) -> None:
    """Serve ``source`` (see ``pipeline.load``) until SIGTERM or Ctrl-C.

    The server listens at once; `/ready` says when the model is loaded.

    Raises:
        InterloomError: the model cannot be loaded, or other machines are to be let in without keys.
    """
    _start_logging()
    serving = settings.serving
    if host not in LOOPBACK and not serving.keys:
        raise InterloomError(
            f"--host {host} lets other machines in, so that serving.keys must name a file of keys "
            "(`interloom serve-key NAME` makes it)"
        )
    _use_threads(serving.threads)
    metrics = Metrics()
    uri = tracking_uri(settings.tracking, root)
    _use_tracking(uri, source, serving.traces != "off")
    traces = None
    if serving.traces != "off":
        name = f"{settings.tracking.experiment}-serving"
        traces = Traces(uri, name, metrics, content=serving.traces == "full")
    keys = Keys(root / serving.keys) if serving.keys else None
    service = Service(serving, metrics, keys=keys, traces=traces, log_texts=log_texts)
    hosts = () if keys is not None else LOOPBACK

    def load() -> pipeline.Pipeline:
        return pipeline.load(source, settings, root, generators)

    def resolve() -> str:
        return pipeline.resolve(source, settings, root)

    def open_service() -> Host:
        first = load()
        first.warm_up()
        follow = resolve if pipeline.follows(source) else None
        return Host(first, serving, metrics, resolve=follow, load=load)

    run(make_app(service, hosts=hosts), service, open_service, host, port)


def run(app: FastAPI, service: Service, open_service: Any, host: str, port: int) -> None:
    """Run the application; ``open_service`` makes its host, in a thread.

    After SIGTERM no connection is accepted any more, and requests in flight have
    ``serving.drain_seconds`` to end.

    Raises:
        InterloomError: ``open_service`` raised it, or the port is taken.
    """
    patience = service.serving.drain_seconds
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        # Requests are ended by the engine; this is for what hangs even then.
        timeout_graceful_shutdown=int(patience) + 5,
    )
    server = _Server(config, service)
    problems: list[BaseException] = []

    def opening() -> None:
        try:
            service.host = open_service()
        except BaseException as error:
            problems.append(error)
            server.should_exit = True
            return
        served = service.host.engine.pipeline
        log.info("serving %s version %s at http://%s:%d", served.name, served.version, host, port)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=opening, name="opening", daemon=True).start()
        yield
        if service.traces is not None:
            service.traces.close()

    app.router.lifespan_context = lifespan
    # uvicorn sends the signal to us again when it has drained: then there is nothing left to do.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        server.run()
    except SystemExit as error:
        raise InterloomError(f"{host}:{port} cannot be listened at; see the line above") from error
    if problems:
        raise problems[0]


class _Server(uvicorn.Server):
    """uvicorn, which tells the engine when the end begins."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def shutdown(self, sockets: Any = None) -> None:
        """Drain: the engine calls off what takes too long, and answers say so."""
        service = self._service
        service.draining = True
        if service.host is not None:
            closing = threading.Thread(
                target=service.host.close, args=(service.serving.drain_seconds,), daemon=True
            )
            closing.start()
        await super().shutdown(sockets)


def _use_threads(threads: int) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)


def _use_tracking(uri: str, source: str, traces: bool) -> None:
    if traces or not source.startswith(pipeline.SYSTEM):
        import mlflow

        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)


def _start_logging() -> None:
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("interloom").setLevel(logging.INFO)
