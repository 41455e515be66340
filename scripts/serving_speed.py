"""Dynamic batching against one request at a time: throughput and latency on this machine.

    python scripts/serving_speed.py [--model system:oracle] [--clients 32] [--seconds 60]

Starts `interloom serve` twice, with the params' slots and with a single one, and lets as many
clients ask it, each one request after the other. Latency is compared with that of a client that is
alone with an idle server. Targets: throughput ≥ 4 ×, median latency ≤ 1.5 × of the lone client's.
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
from contextlib import contextmanager
from pathlib import Path

import httpx

from interloom.benchmarks import pocket_ueval
from interloom.settings import change_params

ROOT = Path(__file__).parents[1]
PORT = 8911
PATIENCE = 180.0


@contextmanager
def serving(model: str, slots: int, clients: int) -> Iterator[str]:
    """A server of its own process, without traces."""
    params = ROOT / ".interloom" / "serving-speed.yaml"
    params.parent.mkdir(exist_ok=True)
    shutil.copy(ROOT / "params.yaml", params)
    changes = (f"slots={slots}", f"queue={clients + 8}", "traces=off")
    change_params(params, [f"serving.{change}" for change in changes])
    command = [sys.executable, "-m", "interloom.cli", "serve", "--model", model]
    command += ["--port", str(PORT), "--params", str(params)]
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=subprocess.PIPE)
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
                assert server.stderr is not None
                raise SystemExit(server.stderr.read().decode()[-2000:])
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait()


async def load(url: str, texts: list[str], clients: int, seconds: float) -> dict[str, float]:
    """``clients`` that each ask again as soon as they are answered.

    Throughput is that of the time in which all clients were at it: the first fifth, in which
    batches fill up, is left out, and so is what ends after ``seconds``.
    """
    done: list[tuple[float, float, int]] = []  # when it ended, how long it took, its images
    began = time.monotonic()
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
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as http:
        await asyncio.gather(*(client(number, http) for number in range(clients)))
    counted = [images for end, _, images in done if first < end <= last]
    took = [one for _, one, _ in done]
    return {
        "requests": len(done),
        "requests_per_second": len(counted) / (last - first),
        "images_per_second": sum(counted) / (last - first),
        "p50_seconds": statistics.median(took),
        "p95_seconds": statistics.quantiles(took, n=20)[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="system:oracle")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60, help="of each measurement")
    parser.add_argument("--slots", type=int, default=32)
    options = parser.parse_args()
    clients, seconds = options.clients, options.seconds
    texts = [r.text for r in pocket_ueval.requests(64, 7) if not r.images]
    found: dict[str, dict[str, float]] = {}
    with serving(options.model, options.slots, clients) as url:
        asyncio.run(load(url, texts, 1, 5))  # warm
        found["alone"] = asyncio.run(load(url, texts, 1, seconds / 2))
        found["batched"] = asyncio.run(load(url, texts, clients, seconds))
    with serving(options.model, 1, clients) as url:
        asyncio.run(load(url, texts, 1, 5))
        found["one at a time"] = asyncio.run(load(url, texts, clients, seconds))
    for name, figures in found.items():
        told = ", ".join(f"{key} {value:.3g}" for key, value in figures.items())
        print(f"{name:<14} {told}")
    batched, single = found["batched"], found["one at a time"]
    ratios = {
        "throughput, batched / one at a time (target ≥ 4)": (
            batched["images_per_second"] / single["images_per_second"]
        ),
        "p50, batched / a lone client's (target ≤ 1.5)": (
            batched["p50_seconds"] / found["alone"]["p50_seconds"]
        ),
        "p50, batched / one at a time, same load": batched["p50_seconds"] / single["p50_seconds"],
    }
    for name, value in ratios.items():
        print(f"{name}: {value:.2f}")
    print(json.dumps({"clients": clients, "slots": options.slots, **found}))


if __name__ == "__main__":
    main()
