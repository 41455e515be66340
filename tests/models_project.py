"""A project folder with tiny models in every place, in which the last three stages run for real."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from executor import Executor

from interloom import loop
from interloom.backends.pocket import PocketTeacher
from interloom.benchmarks import pocket_ueval
from interloom.construct import store

CURVE = "step,split,metric,value\n1,train,loss,2.5\n1,held out,reward,0.4\n2,held out,reward,0.6\n"


def make(root: Path, tiny_vlm: Path, tiny_generator: Path) -> Path:
    """Models, a verdict, training curves and one trajectory, as earlier stages leave them."""
    for name in (
        "data/vlm",
        *(f"outputs/models/{m}" for m in ("planner-sft", "critic-sft", "critic-rl")),
    ):
        shutil.copytree(tiny_vlm, root / name)
    for name in ("data/generator", "data/generator-weak"):
        shutil.copytree(tiny_generator, root / name)
    for stage in ("sft-planner", "sft-critic", "grpo-critic"):
        path = root / "plots" / f"{stage}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(CURVE)
    verdict = {"success": True, "suites": {"prompts": {"rows": 4, "expectations": 3}}}
    (root / "outputs/validation").mkdir(parents=True)
    (root / "outputs/validation/result.json").write_text(json.dumps(verdict))
    oracle = PocketTeacher()
    requests = pocket_ueval.requests(8, 1)[:1]
    made = loop.run(requests, oracle, Executor(), oracle, max_attempts=1, seed=1)
    store.write_shards(made, root / "outputs/trajectories", shard_rows=10, about={})
    for name in ("critic-data", "planner-data"):
        (root / "outputs" / name).mkdir()
        (root / "outputs" / name / "sft.parquet").write_text("data")
    return root
