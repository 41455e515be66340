"""Dynamic batching against one request at a time: throughput and latency on this machine.

    python scripts/serving_speed.py [--model rehearsed] [--clients 32] [--seconds 60]

Starts `interloom serve` twice, with the params' slots and with a single one, and lets as many
clients ask it, each one request after the other. Latency is compared with that of a client that is
alone with an idle server, asked before and after. `rehearsed` is a pipeline of chat models at their
full price (`rehearsed_pipeline.py`); `system:oracle` has the exact teacher, which costs nothing.
Targets: throughput ≥ 4 ×, median latency ≤ 1.5 × of the lone client's. The server's processor
seconds per request say the same on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from interloom.benchmarks import pocket_ueval
from interloom.settings.file import change_params, load_settings

ROOT = Path(__file__).parents[1]
PORT = 8911
PATIENCE = 180.0


class Server(NamedTuple):
    """A running one."""

    url: str
    process: psutil.Process

    def processor_seconds(self) -> float:
        """Used so far."""
        times = self.process.cpu_times()
        return times.user + times.system


def rehearsed() -> str:
    """The folder of the pipeline that answers what is laid down."""
    import mlflow

    folder = ROOT / ".interloom" / "rehearsed"
    shutil.rmtree(folder, ignore_errors=True)
    attempts = load_settings(ROOT / "params.yaml").evaluate.max_attempts
    mlflow.pyfunc.save_model(
        folder,
        python_model=str(ROOT / "scripts/rehearsed_pipeline.py"),
        model_config={"max_attempts": attempts, "root": str(ROOT)},
        pip_requirements=[],
    )
    return str(folder)


@contextmanager
def serving(model: str, slots: int, clients: int, threads: int) -> Iterator[Server]:
    """A server of its own process, without traces."""
    params = ROOT / ".interloom" / "serving-speed.yaml"
    params.parent.mkdir(exist_ok=True)
    shutil.copy(ROOT / "params.yaml", params)
    changes = (f"slots={slots}", f"queue={clients + 8}", f"threads={threads}", "traces=off")
    change_params(params, [f"serving.{change}" for change in changes])
    command = [sys.executable, "-m", "interloom.cli", "serve", "--model", model]
    command += ["--port", str(PORT), "--params", str(params)]
    # Into a file: a pipe that nobody reads would stop the server when it is full.
    log = params.with_suffix(".log")
    with log.open("wb") as stderr:
        server = subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=stderr)
    url = f"http://127.0.0.1:{PORT}"
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if httpx.get(f"{url}/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if server.poll() is not None or time.monotonic() > end:
                raise SystemExit(log.read_text()[-2000:])
            time.sleep(0.2)
        yield Server(url, psutil.Process(server.pid))
    finally:
        server.terminate()
        server.wait()


async def load(
    server: Server, texts: list[str], clients: int, seconds: float, to_the_end: bool = True
) -> dict[str, float]:
    """``clients`` that each ask again as soon as they are answered.

    Throughput is that of the time in which all clients were at it: the first fifth, in which
    batches fill up, is left out, and so is what ends after ``seconds``.
    """
    done: list[tuple[float, float, int]] = []  # when it ended, how long it took, its images
    used, began = server.processor_seconds(), time.monotonic()
    first, last = began + seconds / 5, began + seconds

    async def client(number: int, http: httpx.AsyncClient) -> None:
        turn = number
        while (start := time.monotonic()) < last:
            body = {"input": texts[turn % len(texts)], "seed": turn}
            answer = await http.post("/v1/responses", json=body)
            end = time.monotonic()
            answer.raise_for_status()
            done.append((end, end - start, answer.json()["interloom"]["images"]))
            turn += clients

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=server.url, timeout=600, limits=limits) as http:
        asking = asyncio.gather(*(client(number, http) for number in range(clients)))
        # What is called off here waits in a queue for many times as long.
        with suppress(TimeoutError):
            await asyncio.wait_for(asking, None if to_the_end else seconds)
    counted = [images for end, _, images in done if first < end <= last]
    took = [one for _, one, _ in done]
    return {
        "requests": len(done),
        "processor_seconds_per_request": (server.processor_seconds() - used) / len(done),
        "requests_per_second": len(counted) / (last - first),
        "images_per_second": sum(counted) / (last - first),
        "p50_seconds": statistics.median(took),
        "p95_seconds": statistics.quantiles(took, n=20)[-1] if len(took) > 1 else took[0],
    }


def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """All loads, in turn."""
    clients, seconds = options.clients, options.seconds
    # The same few texts for everybody, so that the mix is the same for few requests and many.
    texts = [r.text for r in pocket_ueval.requests(64, 7) if not r.images][: options.texts]
    model = rehearsed() if options.model == "rehearsed" else options.model
    found: dict[str, dict[str, float]] = {}

    def under(
        name: str, server: Server, clients: int, seconds: float, to_the_end: bool = True
    ) -> None:
        found[name] = asyncio.run(load(server, texts, clients, seconds, to_the_end))
        told = ", ".join(f"{key} {value:.3g}" for key, value in found[name].items())
        print(f"{name:<14} {told}", flush=True)

    with serving(model, options.slots, clients, options.threads) as server:
        asyncio.run(load(server, texts, 1, 1))  # warm
        under("alone", server, 1, seconds / 2)
        under("batched", server, clients, seconds)
        under("alone again", server, 1, seconds / 2)
    with serving(model, 1, clients, options.threads) as server:
        asyncio.run(load(server, texts, 1, 1))
        under("one at a time", server, clients, seconds, to_the_end=False)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Dynamic batching against one request at a time.")
    parser.add_argument("--model", default="rehearsed", help="what `interloom serve` takes, too")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60, help="of each measurement")
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its own choice")
    parser.add_argument("--texts", type=int, default=8, help="different requests")
    options = parser.parse_args()
    found = measure(options)
    alone, batched, single = found["alone"], found["batched"], found["one at a time"]
    again = found["alone again"]
    lone_p50 = (alone["p50_seconds"] + again["p50_seconds"]) / 2
    price = "processor_seconds_per_request"
    ratios = {
        "throughput, batched / one at a time (target ≥ 4)": (
            batched["images_per_second"] / single["images_per_second"]
        ),
        "p50, batched / a lone client's (target ≤ 1.5)": batched["p50_seconds"] / lone_p50,
        "a lone client's p50, after / before": again["p50_seconds"] / alone["p50_seconds"],
        "processor seconds per request, one at a time / batched": single[price] / batched[price],
    }
    for name, value in ratios.items():
        print(f"{name}: {value:.2f}")
    print(json.dumps({**vars(options), **found}))


if __name__ == "__main__":
    main()
