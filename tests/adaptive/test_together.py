"""The adaptive system's trainings in two processes (torchrun, gloo) are those of one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from data_project import Project
from training_runs import copy, curve, of_metrics, prepare, run, run_until_killed, script

from interloom.backends.unified import UnifiedModel
from interloom.cluster.manifests import fsdp
from interloom.settings.file import Settings

MEASURED = ("success", "valid", "images", "unjudged")


def changed(project: Project, section: str, **values: Any) -> Settings:
    """Its settings with some values of one section changed."""
    options = getattr(project.settings, section).model_copy(update=values)
    return project.settings.model_copy(update={section: options})


def sharding(settings: Settings, *, gathered: bool) -> dict[str, str]:
    """What the executor sets for a sharded training."""
    options = settings.cluster.fsdp.model_copy(update={"reshard_after_forward": gathered})
    return fsdp(settings.cluster.model_copy(update={"fsdp": options}))


def shapes(root: Path, name: str) -> dict[str, Any]:
    """Of the weights of a trained model, which loads."""
    model = UnifiedModel.from_pretrained(root / "outputs/models" / name).model
    return {key: value.shape for key, value in model.state_dict().items()}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["copied", "sharded", "sharded, weights kept"])
def test_two_processes_learn_stories_as_one(sft_project: Project, how: str) -> None:
    """Same global batch: same losses, gradients and held-out figures."""
    alone, two = copy(sft_project.root, "alone"), copy(sft_project.root, "two")
    base = {"epochs": 1.0, "evaluations": 2}
    prepare(alone, changed(sft_project, "sft_adaptive", **base, micro_batch_size=4))
    run(alone, "sft-adaptive")
    settings = changed(sft_project, "sft_adaptive", **base, micro_batch_size=2)
    prepare(two, settings)
    env = {} if how == "copied" else sharding(settings, gathered=how == "sharded")
    said = run(two, "sft-adaptive", 2, **env)
    assert said.count("sft-adaptive: done in") == 1, "the first process writes"
    one, both = curve(alone, "sft-adaptive"), curve(two, "sft-adaptive")
    values = of_metrics(one, "loss", "grad_norm")
    assert {key: both[key] for key in values} == pytest.approx(values, rel=5e-3)
    values = of_metrics(one, *MEASURED)
    assert {key: both[key] for key in values} == values
    assert shapes(two, "adaptive-sft") == shapes(alone, "adaptive-sft")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["copied", "sharded"])
def test_a_killed_training_of_two_processes_continues(sft_project: Project, how: str) -> None:
    """Weights and optimiser come back from a checkpoint, whole or in parts: with copies in one
    process, sharded in two again."""
    whole, killed = copy(sft_project.root, "whole"), copy(sft_project.root, "killed")
    settings = changed(sft_project, "sft_adaptive", epochs=20 / 3, evaluations=4)
    env = {} if how == "copied" else sharding(settings, gathered=False)
    for root in (whole, killed):
        prepare(root, settings)
    run(whole, "sft-adaptive", 2, **env)
    run_until_killed(killed, "sft-adaptive", 2, "checkpoint-5", **env)
    said = run(killed, "sft-adaptive", 1 if how == "copied" else 2, **env)
    assert "continuing from checkpoint-" in said
    one, both = curve(whole, "sft-adaptive"), curve(killed, "sft-adaptive")
    losses = of_metrics(one, "loss")
    assert {key: both[key] for key in losses} == pytest.approx(losses, rel=5e-3)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["copied", "sharded"])
def test_two_processes_train_on_groups_that_lie_across_them(
    grpo_project: Project, how: str
) -> None:
    """Three requests, two trajectories each: the second group has one on each process. A reference
    model for the KL term is there as well."""
    settings = changed(
        grpo_project, "grpo_adaptive",
        batch_size=3, group_size=2, micro_batch_size=1, kl_coefficient=0.01,
    )  # fmt: skip
    prepare(grpo_project.root, settings)
    env = {} if how == "copied" else sharding(settings, gathered=False)
    said = run(grpo_project.root, "grpo-adaptive", 2, **env)
    assert said.count("grpo-adaptive: done in") == 1
    found = curve(grpo_project.root, "grpo-adaptive")
    values = of_metrics(found, "reward", "kl", "images", "grad_norm")
    assert all(map(math.isfinite, values.values()))
    assert found["2", "held out", "images"] >= 1
    assert shapes(grpo_project.root, "adaptive-rl") == shapes(grpo_project.root, "adaptive-sft")


GROUPS = """
import json
import math
from interloom import ranks
from interloom.adaptive.grpo import gathered_rewards
from interloom.adaptive.rewards import Judged
from interloom.records import Evaluation
from interloom.settings.file import load_settings
from interloom.train import together
together.join()
best = Evaluation(instruction=5, consistency=5, quality=5, knowledge=5)
judged = [Judged(best, True, n, success=True) for n in (1, 2, 4, 2)]
groups = ["a", "b", "a", "b"]
mine = slice(2 * ranks.rank(), 2 * ranks.rank() + 2)
options = load_settings("params.yaml").grpo_adaptive
part = gathered_rewards(judged[mine], groups[mine], options)
everyones = together.spread([0, 1], lambda _: [part])
if not ranks.rank():
    print(json.dumps([one.bonus for one in everyones]))
"""


def test_a_group_is_whole_wherever_its_parts_lie(grpo_project: Project) -> None:
    """Two processes, each with half of a group: who took four pictures is paid a quarter."""
    prepare(grpo_project.root, grpo_project.settings)
    said = script(GROUPS, grpo_project.root)
    assert json.loads(said.splitlines()[-1]) == [[1.0, 1.0], [0.25, 1.0]]


ASKED = """
from interloom import ranks
from interloom.adaptive import sft
from interloom.backends import pocket_analyzer
plain = pocket_analyzer.PocketAnalyzer.evaluate
def counted(self, cases):
    print("asked by process", ranks.rank(), flush=True)
    return plain(self, cases)
pocket_analyzer.PocketAnalyzer.evaluate = counted
from interloom.cli import main
import sys
sys.argv = ["interloom", "run", "sft-adaptive", "--no-track"]
main()
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_analyzer_is_asked_once_about_held_out_stories(sft_project: Project) -> None:
    """By the first process: calls cost money, and two answers would choose two checkpoints."""
    prepare(sft_project.root, changed(sft_project, "sft_adaptive", epochs=1.0, evaluations=1))
    said = script(ASKED, sft_project.root)
    assert "asked by process 0" in said and "asked by process 1" not in said
