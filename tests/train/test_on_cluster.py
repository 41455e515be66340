"""The real training stages in pods of the test server: the files of a local run."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kube_server.server import KubeServer
from tiny_project.project import wait_for
from training_runs import SPACE, cluster_with, copy, curve, of_metrics, on, pods_of, prepare, run

from interloom.digests import digest
from interloom.serve import guard
from interloom.settings.file import Settings, settings_from

Make = Callable[..., Settings]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sft_critic_in_two_pods(project: Path, settings: Make, kube: KubeServer) -> None:
    here = copy(project, "here")
    base: dict[str, Any] = {"batch_size": 4, "epochs": 1, "evaluations": 1}
    prepare(here, settings("sft_critic", **base))
    run(here, "sft-critic")
    cluster_with(kube, project)
    chosen = settings("sft_critic", **base | {"micro_batch_size": 2})
    prepare(project, chosen, stages=pods_of("sft-critic", 2))
    said = run(project, "sft-critic", **on(kube))
    assert "[sft-critic pod 1] sft-critic, process 1: critic: 28 samples" in said
    ours, theirs = curve(here, "sft-critic"), curve(project, "sft-critic")
    losses = of_metrics(ours, "loss", "grad_norm")
    assert {key: theirs[key] for key in losses} == pytest.approx(losses, rel=5e-3)
    assert (project / "outputs/models/critic-sft/model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_grpo_critic_with_a_generator_of_its_own(
    project: Path, settings: Make, kube: KubeServer, tiny_generator: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The generator draws in a Deployment that the run makes; outputs are those of a local run
    with the generator in its own process."""
    for name in ("data/generator", "data/generator-weak"):
        shutil.copytree(tiny_generator, project / name)
    here = copy(project, "here")
    base: dict[str, Any] = {"batch_size": 2, "group_size": 2, "max_steps": 2, "evaluations": 1}
    chosen = settings("grpo_critic", **base)
    prepare(here, chosen)
    run(here, "grpo-critic")

    cluster_with(kube, project)
    key = guard.add_key(project / "keys.json", "stage", 0)
    for name, file, text in (
        ("generator-keys", "keys.json", (project / "keys.json").read_text()),
        ("stage-keys", "GENERATOR_KEY", key),
    ):
        data = {file: base64.b64encode(text.encode()).decode()}
        kube.create("secrets", SPACE, {"metadata": {"name": name}, "data": data})
    raw = chosen.model_dump(mode="json")
    raw["models"]["generator_weak"] |= {"backend": "http", "model": "generator"}
    raw["remote"]["http"] |= {"api_key_env": ["GENERATOR_KEY"]}
    services = raw["cluster"]["services"]
    services["generator"] |= {"shared": False, "replicas": 1, "max_replicas": 2}
    prepare(
        project,
        settings_from(raw, "test"),
        stages=pods_of("grpo-critic", 1, ("generator",)),
        secrets=["stage-keys"],
        services=services,
    )
    said = run(project, "grpo-critic", **on(kube))
    assert "the run has its own server grpo-critic-" in said
    assert "-generator is ready (1 replica(s))" in said
    name = "outputs/models/critic-rl"
    assert digest(project / name) == digest(here / name)
    assert [item["spec"]["maxReplicas"] for item in
            kube.store.all("horizontalpodautoscalers", SPACE)] == [2]  # fmt: skip
    wait_for(lambda: not kube.store.all("deployments", SPACE))
