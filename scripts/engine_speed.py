"""What the serving engine makes of calls of given lengths, on any machine, however busy.

    python scripts/engine_speed.py --measure
    python scripts/engine_speed.py [--clients 32] [--planner 1.1+0.125 …] [--scale 0.3]

Planner, generator and critic sleep instead of working: a call for n requests takes ``a + b·n``
seconds, and those of the two threads overlap, as on devices of their own. `--measure` first finds
a and b for the shipped miniatures, in processor seconds of calls for 1 and for 16, so that other
work on the machine does not count. The engine is the real one, and so are the requests' ways
through it: plans of three to six steps, 30 % of the pictures sent back.
"""

from __future__ import annotations

import argparse
import queue
import random
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving_speed import ROOT, rehearsed

from interloom.images import white
from interloom.records import Critique, Plan, Request, Step
from interloom.roles import CritiqueCase, GenerationJob
from interloom.serve.engine import Engine
from interloom.serve.events import Ended, Event, Order
from interloom.serve.metrics import Metrics
from interloom.serve.pipeline import Pipeline

PICTURE = white(16, 16)
SENT_BACK = 0.3
MANY = 16


@dataclass(frozen=True)
class Cost:
    """Seconds of a call: of any, and more per item."""

    call: float
    item: float

    @classmethod
    def read(cls, text: str) -> Cost:
        """``1.1+0.125``"""
        call, _, item = text.partition("+")
        return cls(float(call), float(item or 0))

    def sleep(self, items: int, scale: float) -> None:
        """Take as long as a call for so many items."""
        time.sleep(scale * (self.call + self.item * items))


def measured() -> dict[str, Cost]:
    """What calls of `rehearsed_pipeline.py` cost here, with one thread."""
    import torch

    from interloom.benchmarks import pocket_ueval
    from interloom.serve.loading import load
    from interloom.serve.pipeline import WARM_UP
    from interloom.settings.file import load_settings

    torch.set_num_threads(1)
    pipeline = load(rehearsed(), load_settings(ROOT / "params.yaml"), ROOT)
    assert isinstance(pipeline, Pipeline)
    (generator,) = pipeline.generators.values()
    assert pipeline.critic is not None
    texts = [r for r in pocket_ueval.requests(64, 7) if not r.images]
    first = texts[1]

    def jobs(count: int) -> list[GenerationJob]:
        return [GenerationJob(prompt=WARM_UP, seed=seed) for seed in range(count)]

    def cases(count: int) -> list[CritiqueCase]:
        pictures = [picture for picture in drawn[:count] if isinstance(picture, bytes)]
        return [
            CritiqueCase(before=None, after=picture, prompt=WARM_UP, used_prompt=WARM_UP)
            for picture in pictures
        ]

    drawn = generator.generate(jobs(MANY))
    calls: dict[str, Callable[[int], object]] = {
        # One request many times: the length of the plan stays the same.
        "planner": lambda count: pipeline.planner.plan([first] * count),
        "generator": lambda count: generator.generate(jobs(count)),
        "critic": lambda count: pipeline.critic.critique(cases(count)),  # type: ignore[union-attr]
    }
    found = {}
    for role, call in calls.items():
        call(1)  # warm
        one, many = (_processor_seconds(call, count) for count in (1, MANY))
        item = max(0.0, (many - one) / (MANY - 1))
        found[role] = Cost(max(0.0, one - item), item)
        print(f"{role}: a call for 1 {one:.3f} s, for {MANY} {many:.3f} s", flush=True)
    return found


def _processor_seconds(call: Callable[[int], object], count: int) -> float:
    took = []
    for _ in range(2):
        began = time.process_time()
        call(count)
        took.append(time.process_time() - began)
    return min(took)


@dataclass
class Sleeper:
    """All three roles."""

    costs: dict[str, Cost]
    scale: float
    name: str = "sleeper"

    def __post_init__(self) -> None:
        self._chance = random.Random(7)

    def plan(self, requests: Sequence[Request]) -> list[Plan]:
        self.costs["planner"].sleep(len(requests), self.scale)
        return [
            Plan(
                steps=tuple(
                    Step(step_number=n, instruction="x", prompt="x")
                    for n in range(1, 4 + int(request.id) % 4)
                )
            )
            for request in requests
        ]

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes]:
        self.costs["generator"].sleep(len(jobs), self.scale)
        return [PICTURE] * len(jobs)

    def critique(self, cases: Sequence[CritiqueCase]) -> list[Critique]:
        self.costs["critic"].sleep(len(cases), self.scale)
        sent_back = [self._chance.random() < SENT_BACK for _ in cases]
        return [Critique(success=not back, refine_prompt="x", reasoning="x") for back in sent_back]


def measure(
    costs: dict[str, Cost], scale: float, clients: int, slots: int, requests: int
) -> tuple[float, float]:
    """Median seconds of a request, and requests per second, in the model's time."""
    sleeper = Sleeper(costs, scale)
    parts = Pipeline("model", "1", "script", sleeper, sleeper, {"g": sleeper}, max_attempts=5)  # type: ignore[arg-type]
    engine = Engine(parts, Metrics(), slots=slots, queue=clients, gather=0.005)
    took: list[float] = []
    numbers = iter(range(requests))
    lock = threading.Lock()

    def client() -> None:
        heard: queue.Queue[Event] = queue.Queue()
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            asked = Request(id=str(number), text="x")
            order = Order(asked, number, 40, 10, generator="g", max_attempts=5)
            began = time.monotonic()
            engine.submit(order, heard.put)
            while not isinstance(heard.get(), Ended):
                pass
            took.append((time.monotonic() - began) / scale)

    began = time.monotonic()
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = (time.monotonic() - began) / scale
    engine.close()
    return statistics.median(took), requests / seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description="What the serving engine makes of calls of given lengths."
    )
    parser.add_argument("--measure", action="store_true", help="find the costs here, first")
    parser.add_argument("--planner", type=Cost.read, default="1.1+0.125")
    parser.add_argument("--generator", type=Cost.read, default="0.04+0.021")
    parser.add_argument("--critic", type=Cost.read, default="0.43+0.024")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--scale", type=float, default=0.3, help="seconds slept per second told")
    options = parser.parse_args()
    costs = {name: getattr(options, name) for name in ("planner", "generator", "critic")}
    if options.measure:
        costs = measured()
    alone, lone_rate = measure(costs, options.scale, 1, 1, 16)
    p50, rate = measure(costs, options.scale, options.clients, options.slots, options.requests)
    print(f"a lone client: p50 {alone:.2f} s, {lone_rate:.2f} requests/s")
    print(f"{options.clients} clients: p50 {p50:.2f} s, {rate:.2f} requests/s")
    print(f"throughput x {rate / lone_rate:.1f}, p50 x {p50 / alone:.2f}")


if __name__ == "__main__":
    main()
