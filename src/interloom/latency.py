"""How long the finished pipeline takes for one request: loaded as anyone loads it, asked alone."""

from __future__ import annotations

import base64
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from interloom.benchmarks.evidence import Latency
from interloom.progress import Bar
from interloom.records import Request


def measure(folder: Path, requests: Sequence[Request], seed: int, bar: Bar) -> Latency:
    """Seconds of each request through the model folder; a first one, not counted, warms up."""
    import mlflow
    import pandas as pd
    import torch

    model = mlflow.pyfunc.load_model(str(folder))
    seconds = []
    with bar:
        for number, request in enumerate([requests[0], *requests]):
            row = {"text": [request.text], "kind": [request.kind]}
            images = [base64.b64encode(data).decode() for data in request.images]
            table = pd.DataFrame(row | ({"images": [images]} if images else {}))
            began = time.perf_counter()
            model.predict(table, params={"seed": seed})
            if number:
                seconds.append(time.perf_counter() - began)
                bar.advance()
    on_gpu = torch.cuda.is_available()
    where = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} CPU threads"
    return Latency(seconds=tuple(seconds), machine=f"{platform.node()}, {where}")
