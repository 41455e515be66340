"""A server in a thread of the tests' own process, with the exact teacher and a simple generator."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import uvicorn
from served import pipeline, settings
from tiny_project.project import free_port

from interloom.adaptive.reasoner import AdaptiveReasoner
from interloom.backends.unified import UnifiedModel
from interloom.serve.api import make_app
from interloom.serve.guard import LOOPBACK, Keys
from interloom.serve.host import Host
from interloom.serve.metrics import Metrics
from interloom.serve.reasoner import Reasoner
from interloom.serve.service import Service
from interloom.serve.system import System
from interloom.serve.traces import Traces


class Running:
    """A server, and what is inside it."""

    def __init__(self, url: str, service: Service) -> None:
        self.url, self.service = url, service
        self.http = httpx.Client(base_url=url, timeout=60)


@contextmanager
def running(
    served: System[Any] | None = None,
    *,
    keys: Path | None = None,
    traces: str | None = None,
    experiment: str = "serving",
    **serving: object,
) -> Iterator[Running]:
    chosen, metrics = settings(**serving).serving, Metrics()
    writer = Traces(traces, experiment, metrics, content=True) if traces else None
    service = Service(chosen, metrics, keys=Keys(keys) if keys else None, traces=writer)
    service.host = Host(served or pipeline(), chosen, metrics)
    port = free_port()
    config = uvicorn.Config(make_app(service, hosts=LOOPBACK), port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    at = Running(f"http://127.0.0.1:{port}", service)
    try:
        yield at
    finally:
        at.http.close()
        server.should_exit = True
        thread.join(20)
        service.host.close(5)
        if writer is not None:
            writer.close()


@pytest.fixture(autouse=True)
def _tracking_as_before() -> Iterator[None]:
    """MLFLOW_TRACKING_URI as before the test: MLflow sets it in its process."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers that end with the test."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda *given, **named: stack.enter_context(running(*given, **named))


@pytest.fixture(scope="module")
def reasoner(taught_umm: Path) -> Reasoner:
    """The unified model, as it is served."""
    torch.set_num_threads(1)
    unified = UnifiedModel.from_pretrained(taught_umm, image_pixels=96)
    return Reasoner("story", "1", "test", AdaptiveReasoner(unified, max_tokens=320))


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """One server for a module's tests; its generator errs now and then."""
    with running(pipeline(faults=0.3)) as at:
        yield at
