"""Lockstep batches against one sample at a time, as the released demo works: images per second.

    python scripts/evaluation_speed.py [--slots 32] [--planner teacher] [--critic vlm]

The same requests (UEval's pocket edition), models and machine; models are loaded once. Each run has
its own seed, so that nothing kept of the first one's pictures helps the second. Target: ≥ 4 × at 32
concurrent requests. On a machine that is busy with other work the ratio of processor time tells
more than that of the clock; both are given (with one thread they agree on an idle one). Planner and
critic are named as in `evaluate.more_systems`: vlm, planner-sft, critic-sft, critic-rl, teacher,
none.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from interloom import cast, loop
from interloom.backends.ledger import LEDGER
from interloom.backends.remote import Remotes
from interloom.benchmarks import pocket_ueval
from interloom.benchmarks.parts import MODELS
from interloom.benchmarks.systems import loader
from interloom.records import Request, Trajectory
from interloom.settings.evaluation import AgentsSettings
from interloom.settings.file import Settings, load_settings
from interloom.settings.models import GeneratorSettings
from interloom.stages import find_stage

ROOT = Path(__file__).parents[1]
NAME = "measured"


def with_system(settings: Settings, planner: str, critic: str) -> Settings:
    """The settings with one system more."""
    options = settings.evaluate
    parts = AgentsSettings(
        planner=planner,
        critic=critic,
        generator=options.generator,
        max_attempts=options.max_attempts,
    )
    return settings.model_copy(
        update={"evaluate": options.model_copy(update={"more_systems": {NAME: parts}})}
    )


def images_in(trajectories: list[Trajectory]) -> int:
    """Pictures that were drawn, accepted or not."""
    attempts = [a for t in trajectories for trace in t.steps for a in trace.attempts]
    return sum(attempt.image is not None for attempt in attempts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--slots", type=int, default=32, help="requests in flight at a time")
    parser.add_argument("--planner", default="teacher")
    parser.add_argument("--critic", default="vlm")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--alone", type=int, default=0, help="requests of the run one at a time; 0 is all"
    )
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    settings = with_system(load_settings(ROOT / "params.yaml"), chosen.planner, chosen.critic)
    deps = find_stage("generate").deps
    folders = {name: ROOT / deps[name] for name in MODELS}
    remotes = Remotes(settings.remote, ROOT / LEDGER, purpose="speed")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    make = loader(
        settings.models, settings.teacher, settings.evaluate, folders, device, remotes, None
    )
    system = make(NAME)
    assert isinstance(system.generator, GeneratorSettings)
    generator = cast.generator(system.generator, remotes)

    def answer(requests: list[Request], seed: int) -> list[Trajectory]:
        return loop.run(
            requests,
            system.planner,
            generator,
            system.critic,
            max_attempts=system.max_attempts,
            seed=seed,
            slots=chosen.slots,
            retries=0,
        )

    requests = pocket_ueval.requests(max(8, chosen.requests), settings.seed)[: chosen.requests]
    answer(requests[:1], 0)  # what is done once
    figures: dict[str, dict[str, float]] = {}
    for seed, name, groups in (
        (1, "lockstep", [requests]),
        (2, "one at a time", [[request] for request in requests[: chosen.alone or None]]),
    ):
        began, worked = time.monotonic(), time.process_time()
        images = sum(images_in(answer(group, seed)) for group in groups)
        seconds, cpu = time.monotonic() - began, time.process_time() - worked
        figures[name] = {"images": images, "seconds": seconds, "cpu_seconds": cpu}
        print(
            f"{name:<14} {images} images in {seconds:.1f} s ({cpu:.1f} s of processor time): "
            f"{images / seconds:.2f} a second, {images / cpu:.2f} a second of processor time"
        )
    lockstep, alone = figures.values()
    for what in ("seconds", "cpu_seconds"):
        ratio = lockstep["images"] / lockstep[what] / (alone["images"] / alone[what])
        print(f"lockstep / one at a time by {what} (target ≥ 4): {ratio:.2f}")
    print(json.dumps({"requests": len(requests), "slots": chosen.slots, **figures}))


if __name__ == "__main__":
    main()
