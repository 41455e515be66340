"""How the data stages scale, model calls apart: python scripts/data_speed.py [STEPS] [FOLDER].

1. *Trajectories.* The closed loop with roles that answer at once: everything but model calls, from
   the requests to the shards on disk. Wanted: 2,000 steps a second.
2. *Critic data.* The stage's own code over STEPS synthetic steps (112,000 if not given) with small
   pictures: read, taken apart, filtered, split, balanced, written. Wanted: 90 s and 1.5 GB.

Prints what came in and went out, the seconds on the clock and those of the processor, which other
work on the machine does not change, and the most memory that this process ever held.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from interloom import images, loop
from interloom.construct import critic_data, parts, store
from interloom.records import Critique, Failure, Plan, Request, Score, Step, Trajectory
from interloom.roles import CritiqueCase, GenerationJob, JudgeCase
from interloom.seeding import derive_seed
from interloom.settings.file import load_settings

ROOT = Path(__file__).resolve().parent.parent
STEPS_PER_PLAN = 4
SIDE = 28
PICTURES = 4096
WANTED_RATE, WANTED_SECONDS, WANTED_GB = 2000, 90, 1.5


class Roles:
    """All roles, answering at once by hashes of what they are asked."""

    name = "at-once"

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 255, (PICTURES, SIDE, SIDE, 3), dtype=np.uint8)
        self.pictures = [images.to_png(Image.fromarray(one)) for one in noise]

    def plan(self, requests: Sequence[Request]) -> list[Plan | Failure]:
        return [
            Plan(
                reasoning="part by part",
                steps=tuple(
                    Step(
                        step_number=number,
                        step_name=f"part {number}",
                        instruction=f"put part {number} in",
                        prompt=f"add part {number} of {request.id}",
                        auxiliary_text=f"about {number}",
                    )
                    for number in range(1, STEPS_PER_PLAN + 1)
                ),
            )
            for request in requests
        ]

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        # Followed by the seed, as no two attempts give the same picture.
        return [self.pictures[j.seed % PICTURES] + j.seed.to_bytes(8, "big") for j in jobs]

    def critique(self, cases: Sequence[CritiqueCase]) -> list[Critique | Failure]:
        return [
            Critique(
                success=derive_seed("critic", case.after) % 10 < 6,
                refine_prompt=f"{case.used_prompt}, better",
                reasoning="the part is there and nothing else has changed, as far as can be seen",
            )
            for case in cases
        ]

    def score(self, cases: Sequence[JudgeCase]) -> list[Score | Failure]:
        answers: list[Score | Failure] = []
        for case in cases:
            good = derive_seed("critic", case.after) % 10 < 6
            high = 7 + derive_seed("score", case.after) % 4 if good else 1
            answers.append(Score(semantic=high, quality=high))
        return answers


class Watch:
    """Seconds of a piece of work, on the clock and of the processor."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> tuple[float, float]:
        return time.perf_counter() - self._began[0], time.process_time() - self._began[1]


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def carry_out(roles: Roles, steps: int, folder: Path) -> None:
    """Make and store trajectories; says how fast."""
    requests = [
        Request(id=f"p{n:06d}", text=f"draw number {n}", category=f"category-{n % 8}")
        for n in range(steps // STEPS_PER_PLAN)
    ]
    counts: Counter[str] = Counter()

    def made() -> Iterator[Trajectory]:
        stream = loop.stream(
            requests, roles, roles, roles, max_attempts=5, seed=7, slots=256, retries=1
        )
        for trajectory in parts.in_order(stream):
            parts.count(trajectory, counts)
            yield trajectory

    watch = Watch()
    store.write_shards(made(), folder, shard_rows=500, about={})
    clock, processor = watch.stop()
    size = sum(path.stat().st_size for path in folder.iterdir())
    steps = counts["steps"]
    print(f"trajectories: {counts['requests']} requests, {counts['steps']} steps, ", end="")
    print(f"{counts['attempts']} pictures, {size / 1e6:.0f} MB of Parquet")
    print(f"  {clock:.1f} s on the clock, {processor:.1f} s of processor time: ", end="")
    print(f"{steps / clock:.0f} and {steps / processor:.0f} steps/s (wanted: {WANTED_RATE})")


def choose(roles: Roles, source: Path, folder: Path) -> None:
    """Filter, split and balance; says how fast and with how much memory."""
    options = load_settings(ROOT / "params.yaml").critic_data
    watch = Watch()
    rows = critic_data.rows_of(source)
    judged = critic_data.score_rows(rows, roles)
    scored = critic_data.score_all(judged, lambda prompt, before: False)
    steps = critic_data.scored_steps(scored.rows)
    chosen, yields, numbers = critic_data.select(steps, options, 7, scored.excluded)
    critic_data.write(source, folder, chosen, scored.scores, {})
    clock, processor = watch.stop()
    for entry in yields:
        print(f"  {entry.step}: {entry.came} in, {entry.kept} out, lost {dict(entry.lost)}")
    print(f"  rows: {numbers['sft_rows']} SFT, {numbers['rl_rows']} RL")
    print(f"  {clock:.1f} s on the clock, {processor:.1f} s of processor time ", end="")
    print(f"(wanted: {WANTED_SECONDS}); {peak_gb():.2f} GB at most (wanted: {WANTED_GB})")


def main(steps: int, folder: Path) -> None:
    roles = Roles()
    carry_out(roles, steps, folder / "trajectories")
    print(f"critic data of {steps} steps, {peak_gb():.2f} GB held so far:")
    choose(roles, folder / "trajectories", folder / "critic-data")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 112_000
    if len(sys.argv) > 2:
        main(count, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(count, Path(name))
