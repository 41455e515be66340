"""What batched and overlapped rewards bring: python scripts/grpo_speed.py [STEPS [SECONDS [LANES]]]

The same GRPO steps (shipped VLM, N = 8) three times in turn, with a generator that answers after
SECONDS and takes LANES calls at a time, as a server does: rewards asked for one after the other,
rewards of a step in one batch, and rewards begun while the policy still writes. Prints steps per
minute and the share of the time spent waiting for rewards. The critic is that of the project
folder (stage ``sft-critic``). Three seconds are what a picture of a large generator and the answer
of a remote judge take together.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from interloom import images
from interloom.backends.pocket import PocketJudge, scene_of
from interloom.construct import critic_data, store
from interloom.pocket.language import MeaningError, describe_edit, parse
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, apply, random_edit, random_scene
from interloom.records import Failure
from interloom.roles import GenerationJob
from interloom.runner import StageRun
from interloom.settings.file import load_settings
from interloom.settings.training import GrpoSettings
from interloom.stages import find_stage
from interloom.train import grpo, sft
from interloom.train.data import load_rows
from interloom.train.refinement import Refiner

PROMPTS, GROUP = 4, 8


class Server:
    """Draws by the world's rules, after a while, so many at a time."""

    name = "server"

    def __init__(self, seconds: float, lanes: int, one_by_one: bool) -> None:
        self.seconds, self.lanes, self.one_by_one = seconds, lanes, one_by_one

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        if self.one_by_one:
            return [self._draw(job) for job in jobs]
        with ThreadPoolExecutor(self.lanes) as pool:
            return list(pool.map(self._draw, jobs))

    def _draw(self, job: GenerationJob) -> bytes | Failure:
        time.sleep(self.seconds)
        before = scene_of(job.source)
        try:
            goal = parse(job.prompt, before)
        except MeaningError:
            return job.source or images.to_png(render(Scene()))
        return images.to_png(render(goal.nearest(before or Scene()), jitter_seed=job.seed))


def rows(count: int):
    """Failed steps: nothing was changed."""
    rng = random.Random(0)
    for number in range(count):
        scene = random_scene(rng, 4)
        edit = random_edit(rng, scene, "remove")
        assert edit is not None
        picture, prompt = images.to_png(render(scene)), describe_edit(edit, scene)
        assert apply(scene, edit) != scene
        yield {
            "id": f"r{number}/1/0", "step_id": f"r{number}/1", "attempt": 0, "before": picture,
            "after": picture, "prompt": prompt, "used_prompt": prompt, "refine_prompt": prompt,
            "reasoning": "it is still there", "category": "edit", "generator": "server",
            "success": False, "semantic": 0.0, "quality": 10.0, "split": "rl",
        }  # fmt: skip


def measure(root: Path, name: str, options: GrpoSettings, server: Server) -> None:
    """One run; prints its speed."""
    work = root / name
    (work / "aside").mkdir(parents=True)
    stage = StageRun(find_stage("grpo-critic"), root, work, work / "aside", None)
    data = load_rows(root / "outputs/critic-data/rl.parquet", work / "rows")
    count, seconds, waits = options.max_steps, [], []
    original = sft.train

    def timed(trainer, watch, run) -> None:
        started = time.perf_counter()
        original(trainer, watch, run)
        seconds.append(time.perf_counter() - started)
        waits.extend(entry["reward/wait_seconds"] for entry in watch.training
                     if "reward/wait_seconds" in entry)  # fmt: skip

    sft.train = timed
    settings = load_settings()
    places = list(range(len(data)))
    refiner = Refiner(server, PocketJudge(), cache_size=0)
    try:
        grpo.fit(options, settings.models, stage, rows=data, train=places[1:], held=places[:1],
                 refiner=refiner, seed=0)  # fmt: skip
    finally:
        sft.train = original
    print(f"{name:11} {60 * count / seconds[0]:6.2f} steps/min, "
          f"{sum(waits) / seconds[0]:.0%} of the time spent waiting", flush=True)  # fmt: skip


def main(steps: str = "4", seconds: str = "3", lanes: str = "16") -> None:
    options = load_settings().grpo_critic.model_copy(
        update={
            "max_steps": int(steps), "batch_size": PROMPTS, "group_size": GROUP,
            "micro_batch_size": PROMPTS * GROUP, "evaluations": 1, "temperature": 1.0,
        }
    )  # fmt: skip
    readiness = options.readiness.model_copy(update={"act": "off"})
    options = options.model_copy(update={"readiness": readiness})
    base = Path("outputs/models/critic-sft")
    if not base.is_dir():
        sys.exit("there is no outputs/models/critic-sft here: run `dvc repro sft-critic`")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        path = root / "outputs/critic-data/rl.parquet"
        store.write_table(path, rows(PROMPTS * int(steps) + 1), critic_data.critic_schema(), {})
        (root / "outputs/models").mkdir(parents=True)
        (root / "outputs/models/critic-sft").symlink_to(base.resolve())
        wait = float(seconds)
        print(f"{PROMPTS} prompts x {GROUP} rollouts, {wait:g} s an image, {lanes} at a time")
        measure(root, "one by one", options, Server(wait, int(lanes), one_by_one=True))
        measure(root, "batched", options, Server(wait, int(lanes), one_by_one=False))
        measure(root, "overlapped", options.model_copy(update={"parts": 2}),
                Server(wait, int(lanes), one_by_one=False))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
