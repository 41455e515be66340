"""The running server: loads, serves, follows, and drains when it is told to end."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from interloom.errors import InterloomError
from interloom.roles import GenerationJob
from interloom.serve import loading
from interloom.serve.api import make_app
from interloom.serve.guard import LOOPBACK, Keys
from interloom.serve.host import Host
from interloom.serve.metrics import Metrics
from interloom.serve.pipeline import WARM_UP
from interloom.serve.service import Service
from interloom.serve.system import System
from interloom.serve.traces import Traces, experiment_name
from interloom.settings.fields import GeneratorName
from interloom.settings.file import Settings
from interloom.settings.models import GeneratorSettings
from interloom.settings.operation import ServingSettings
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
    """Serve ``source`` (see ``loading.load``) until SIGTERM or Ctrl-C.

    The server listens at once; `/ready` says when the model is loaded.

    Raises:
        InterloomError: the model cannot be loaded, or other machines are to be let in without keys.
    """
    start_logging()
    serving = settings.serving
    check_host(host, serving)
    use_threads(serving.threads)
    metrics = Metrics()
    uri = tracking_uri(settings.tracking, root)
    _use_tracking(uri, source, serving.traces != "off")
    traces = None
    if serving.traces != "off":
        name = experiment_name(settings)
        traces = Traces(uri, name, metrics, content=serving.traces == "full")
    keys = Keys(root / serving.keys) if serving.keys else None
    service = Service(serving, metrics, keys=keys, traces=traces, log_texts=log_texts)
    hosts = () if keys is not None else LOOPBACK

    def load() -> System[Any]:
        return loading.load(source, settings, root, generators)

    def resolve() -> str:
        return loading.resolve(source, settings, root)

    def opening() -> str:
        first = load()
        first.warm_up()
        follow = resolve if loading.follows(source) else None
        service.host = Host(first, serving, metrics, resolve=follow, load=load)
        return f"{first.name} version {first.version}"

    def closing() -> None:
        service.draining = True
        if service.host is not None:
            service.host.close(serving.drain_seconds)

    def ended() -> None:
        if traces is not None:
            traces.close()

    app = make_app(service, hosts=hosts)
    run(app, host, port, serving.drain_seconds, opening=opening, closing=closing, ended=ended)


def serve_generator(
    settings: Settings, root: Path, chosen: GeneratorSettings, *, host: str, port: int
) -> None:
    """Serve a diffusers pipeline behind OpenAI's Images API until SIGTERM or Ctrl-C.

    Raises:
        InterloomError: it is no local pipeline, it cannot be loaded, or other machines are to be
            let in without keys.
    """
    from interloom import cast
    from interloom.backends.diffusers import DiffusersGenerator
    from interloom.serve import generator_service

    start_logging()
    serving = settings.serving
    check_host(host, serving)
    use_threads(serving.threads)
    keys = Keys(root / serving.keys) if serving.keys else None
    service = generator_service.Service(serving, Metrics(), keys)
    app = generator_service.make_app(service, hosts=() if keys is not None else LOOPBACK)

    def opening() -> str:
        generator = cast.generator(chosen)
        assert isinstance(generator, DiffusersGenerator)
        generator.generate([GenerationJob(prompt=WARM_UP, seed=0)])
        service.open(generator)
        return generator.name

    run(app, host, port, serving.drain_seconds, opening=opening, closing=service.close)


def check_host(host: str, serving: ServingSettings) -> None:
    """Refuse to let other machines in without keys.

    Raises:
        InterloomError: naming the setting.
    """
    if host not in LOOPBACK and not serving.keys:
        raise InterloomError(
            f"--host {host} lets other machines in, so that serving.keys must name a file of keys "
            "(`interloom serve-key NAME` makes it)"
        )


def run(
    app: FastAPI,
    host: str,
    port: int,
    patience: float,
    *,
    opening: Callable[[], str],
    closing: Callable[[], None],
    ended: Callable[[], None] = lambda: None,
) -> None:
    """Run an application until SIGTERM or Ctrl-C.

    Args:
        patience: seconds that requests in flight have to end.
        opening: loads what is served, in a thread, and says what that is.
        closing: called in a thread when the end begins, to end what is in flight.
        ended: called when nothing is in flight any more.

    Raises:
        InterloomError: ``opening`` raised it, or the port is taken.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        # Requests are ended by `closing`; this is for what hangs even then.
        timeout_graceful_shutdown=int(patience) + 5,
    )
    server = _Server(config, closing)
    problems: list[BaseException] = []

    def open_it() -> None:
        try:
            log.info("serving %s at http://%s:%d", opening(), host, port)
        except BaseException as error:
            problems.append(error)
            server.should_exit = True

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=open_it, name="opening", daemon=True).start()
        yield
        ended()

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
    """uvicorn, which says when the end begins."""

    def __init__(self, config: uvicorn.Config, closing: Callable[[], None]) -> None:
        super().__init__(config)
        self._closing = closing

    async def shutdown(self, sockets: Any = None) -> None:
        """Accept nothing more, and wait for what is in flight."""
        threading.Thread(target=self._closing, name="closing", daemon=True).start()
        await super().shutdown(sockets)


def use_threads(threads: int) -> None:
    """Torch's CPU threads; 0 leaves them."""
    if threads:
        import torch

        torch.set_num_threads(threads)


def _use_tracking(uri: str, source: str, traces: bool) -> None:
    if traces or not source.startswith(loading.SYSTEM):
        import mlflow

        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)


def start_logging() -> None:
    """Our lines to stderr, others' only if they warn."""
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("interloom").setLevel(logging.INFO)
