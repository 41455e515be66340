"""What is known of one registered pipeline, kept with it: its score on every item, its latency.

With it two versions are compared years later without running either again. It also holds a digest
of every question, because items of one name can be other questions under another seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from interloom.benchmarks.graded import Graded
from interloom.construct import store
from interloom.records import Record, Request, Trajectory

FILE = "evidence.json"
PIPELINE = "full-rl"
"""The evaluated system that is the registered pipeline: SFT planner, critic after GRPO."""


class Latency(Record):
    """Seconds of single requests, one after the other, and where they were measured."""

    seconds: tuple[float, ...]
    machine: str

    @property
    def median(self) -> float:
        """Half of the requests are quicker."""
        return float(np.median(self.seconds))

    @property
    def p95(self) -> float:
        """95 % of the requests are quicker (interpolated)."""
        return float(np.quantile(self.seconds, 0.95))


class BenchmarkEvidence(Record):
    """One benchmark: the graded items, and a digest of each question (text, kind, pictures)."""

    graded: Graded
    questions: dict[str, str]


class Evidence(Record):
    """All benchmarks that the pipeline was evaluated on, and its latency."""

    benchmarks: dict[str, BenchmarkEvidence]
    latency: Latency

    @property
    def images_per_request(self) -> float:
        """Mean over all requests of all benchmarks; 0 without any."""
        runs = [benchmark.graded.run for benchmark in self.benchmarks.values()]
        requests = sum(run["requests"] for run in runs)
        images = sum(run["images_per_request"] * run["requests"] for run in runs)
        return images / requests if requests else 0.0


def question(request: Request) -> str:
    """Digest of what is asked, whatever it is called."""
    return store.content(request.text, request.kind, *request.images, *request.captions)


def of_evaluation(evaluation: Path, latency: Latency, system: str = PIPELINE) -> Evidence:
    """The evidence about a system in the output of stage ``evaluate``; benchmarks without it are
    left out."""
    found: dict[str, BenchmarkEvidence] = {}
    for path in sorted(evaluation.glob(f"*/{system}/graded.json")):
        asked = requests_in(path.parent.parent)
        found[path.parent.parent.name] = BenchmarkEvidence(
            graded=Graded.read(path),
            questions={request.id: question(request) for request in asked},
        )
    return Evidence(benchmarks=found, latency=latency)


QUESTIONS = "questions"


def write_requests(requests: Sequence[Request], benchmark: Path) -> None:
    """Keep what all systems were asked on a benchmark, with its pictures."""
    asked = [Trajectory(request=request, plan=None) for request in requests]
    store.write_shards(asked, benchmark / QUESTIONS, shard_rows=500, about={})


def requests_in(benchmark: Path) -> list[Request]:
    """The requests that every system was given on a benchmark, in the benchmark's order."""
    return [one.request for one in store.read_trajectories(benchmark / QUESTIONS)]


def sample(evaluation: Path, count: int) -> list[Request]:
    """``count`` requests at most, evenly spread over all benchmarks' items."""
    folders = sorted(path.parent for path in evaluation.glob(f"*/{QUESTIONS}"))
    everything = [request for folder in folders for request in requests_in(folder)]
    places = np.linspace(0, len(everything) - 1, min(count, len(everything))).round().astype(int)
    return [everything[place] for place in places]
