"""Two processes (torchrun, gloo) train as one does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from training_runs import (
    copy,
    curve,
    of_metrics,
    prepare,
    run,
    run_until_killed,
    script,
)

from interloom.cluster.manifests import fsdp
from interloom.errors import InterloomError
from interloom.settings.file import Settings
from interloom.train import preflight, together

Make = Callable[..., Settings]


def stage(root: Path, name: str, settings: Settings, processes: int) -> str:
    """Run a stage in a project folder; what it printed."""
    prepare(root, settings)
    return run(root, name, processes)


@pytest.mark.slow
def test_two_processes_train_as_one(project: Path, settings: Make) -> None:
    """Same global batch: same losses, gradients and weights."""
    base: dict[str, Any] = {"batch_size": 4, "epochs": 1, "learning_rate": 1e-3, "evaluations": 2}
    alone, two = copy(project, "alone"), copy(project, "two")
    stage(alone, "sft-critic", settings("sft_critic", **base), 1)
    said = stage(two, "sft-critic", settings("sft_critic", **base | {"micro_batch_size": 2}), 2)
    assert said.count("sft-critic: done in") == 1, "the first process writes"
    one, both = curve(alone, "sft-critic"), curve(two, "sft-critic")
    assert one.keys() == both.keys()
    values = of_metrics(one, "loss", "grad_norm")
    assert {key: both[key] for key in values} == pytest.approx(values, rel=5e-3)
    start, ours, theirs = (
        load_file(folder / "model.safetensors")
        for folder in (
            project / "data/vlm",
            alone / "outputs/models/critic-sft",
            two / "outputs/models/critic-sft",
        )
    )
    # Adam turns rounding of a gradient near zero into a step of full size, so weights are compared
    # by how far training has moved them.
    moved = sum(float((ours[name] - start[name]).pow(2).sum()) for name in ours)
    apart = sum(float((ours[name] - theirs[name]).pow(2).sum()) for name in ours)
    assert apart < 1e-2 * moved
    assert not list(two.glob(".interloom/work/sft-critic/*"))


@pytest.mark.slow
def test_processes_that_share_one_model_train_as_one(
    project: Path, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FSDP 2: each process holds a part; preflight, held-out answers and saving go through it."""
    base: dict[str, Any] = {"batch_size": 4, "epochs": 1, "evaluations": 2}
    alone, two = copy(project, "alone"), copy(project, "two")
    stage(alone, "sft-critic", settings("sft_critic", **base), 1)
    for name, value in fsdp(settings("sft_critic").cluster).items():
        monkeypatch.setenv(name, value)
    stage(two, "sft-critic", settings("sft_critic", **base | {"micro_batch_size": 2}), 2)
    one, both = curve(alone, "sft-critic"), curve(two, "sft-critic")
    values = of_metrics(one, "loss", "grad_norm")
    assert {key: both[key] for key in values} == pytest.approx(values, rel=5e-3)
    ours, theirs = (
        load_file(folder / "outputs/models/critic-sft/model.safetensors") for folder in (alone, two)
    )
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_resumes_in_one(project: Path, settings: Make) -> None:
    # Twenty steps with a checkpoint after every fifth, as losses are logged in means of five.
    base: dict[str, Any] = {"batch_size": 4, "epochs": 20 / 7, "evaluations": 4}
    chosen = settings("sft_critic", **base | {"micro_batch_size": 2})
    whole = copy(project, "whole")
    stage(whole, "sft-critic", chosen, 1)
    prepare(project, chosen)
    run_until_killed(project, "sft-critic", 2, "checkpoint-5")
    resumed = stage(project, "sft-critic", chosen, 1)
    assert "continuing from checkpoint-" in resumed
    one, both = curve(whole, "sft-critic"), curve(project, "sft-critic")
    losses = of_metrics(one, "loss")
    assert {key: both[key] for key in losses} == pytest.approx(losses, rel=5e-3)


def test_groups_are_whole_on_each_device() -> None:
    preflight.check_group(8, 4, 16, devices=2)
    with pytest.raises(InterloomError, match="batch_size = 3 prompts do not spread over 2"):
        preflight.check_group(8, 3, 8, devices=2)


def test_alone_nothing_is_shared() -> None:
    assert together.spread([1, 2, 3], lambda part: [2 * item for item in part]) == [2, 4, 6]
    assert together.on_first(lambda: 5) == 5
    with together.first_alone():
        together.wait_for_all()


SCRIPT = """
import sys
from interloom import ranks
from interloom.train import together
from interloom.errors import InterloomError
together.join()
items = list(range(int(sys.argv[1])))
seen = []
def work(part):
    seen.append(len(part))
    return [item * item for item in part]
assert together.spread(items, work) == [item * item for item in items], "order"
assert seen == [-(-len(items) // 2)], seen
assert together.on_first(lambda: ranks.rank()) == 0
def fails():
    raise InterloomError("no judge")
try:
    together.on_first(fails)
except InterloomError as error:
    sys.stdout.write(f"rank {ranks.rank()} {error}\\n")  # in one piece: both write to one pipe
"""


def test_work_is_spread_and_errors_of_the_first_reach_all(tmp_path: Path) -> None:
    said = script(SCRIPT, tmp_path, "5")
    assert sorted(said.split("\n"))[1:] == ["rank 0 no judge", "rank 1 no judge"]


IN_STEP = """
import tiny_umm
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from interloom import ranks
from interloom.backends.stream import Limits
from interloom.train import together
together.join()
unified = tiny_umm.new()
prompts = [unified.prompt(["a red sun"]), unified.prompt(["a blue cup and a green tree"])]
limits = [Limits(tokens=6 + 25 * ranks.rank())] * 2
before = unified.complete(prompts, limits)
unified.keep_pictures_whole()
mesh = init_device_mesh("cpu", (2,))
for layer in unified.model.model.text_model.layers:  # each forward pass gathers them anew
    fully_shard(layer, mesh=mesh)
fully_shard(unified.model, mesh=mesh)
assert unified.complete(prompts, limits) == before
if ranks.rank():  # pictures take no help from the others
    drawn = unified.decode_pictures([unified.stream.picture(torch.zeros(3, 3, dtype=torch.int))])
    assert len(unified.encode_pictures(drawn)) == 1
print("in step")
"""


def test_processes_that_share_a_model_write_answers_of_different_lengths(tmp_path: Path) -> None:
    """One process writes five times as much as the other, which goes on for it."""
    assert script(IN_STEP, tmp_path).count("in step") == 2
