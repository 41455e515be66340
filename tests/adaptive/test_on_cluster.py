"""The adaptive system's trainings in pods of the test server: the files of a local run."""

from __future__ import annotations

import pytest
from data_project import Project
from kube_server.server import KubeServer
from training_runs import cluster_with, copy, curve, of_metrics, on, pods_of, prepare, run

from interloom.digests import digest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sft_adaptive_sharded_over_two_pods(sft_project: Project, kube: KubeServer) -> None:
    root, here = sft_project.root, copy(sft_project.root, "here")
    prepare(here, sft_project.settings)
    run(here, "sft-adaptive")
    cluster_with(kube, root)
    prepare(root, sft_project.settings, stages=pods_of("sft-adaptive", 2, fsdp=True))
    said = run(root, "sft-adaptive", **on(kube))
    assert "[sft-adaptive pod 1] sft-adaptive, process 1: " in said
    ours, theirs = curve(here, "sft-adaptive"), curve(root, "sft-adaptive")
    losses = of_metrics(ours, "loss", "grad_norm", "valid")
    assert {key: theirs[key] for key in losses} == pytest.approx(losses, rel=5e-3)
    assert (root / "outputs/models/adaptive-sft/model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_grpo_adaptive_in_a_pod(grpo_project: Project, kube: KubeServer) -> None:
    root, here = grpo_project.root, copy(grpo_project.root, "here")
    prepare(here, grpo_project.settings)
    run(here, "grpo-adaptive")
    cluster_with(kube, root)
    prepare(root, grpo_project.settings, stages=pods_of("grpo-adaptive", 1))
    said = run(root, "grpo-adaptive", **on(kube))
    assert "grpo-adaptive: done in" in said and "on the cluster" in said
    for name in ("outputs/models/adaptive-rl", "metrics/grpo-adaptive.json"):
        assert digest(root / name) == digest(here / name)
