"""The real training stages in pods of the test server: the files of a local run."""

from __future__ import annotations

import base64
import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_server.server import KubeServer, interloom_image

from interloom.digests import digest
from interloom.serve import guard
from interloom.settings import Settings

Make = Callable[..., Settings]
SPACE = "interloom"
TESTS = Path(__file__).parent.parent


def prepare(root: Path, settings: Settings, **cluster: Any) -> None:
    """Params and the rest of a project folder; ``cluster`` changes that section."""
    raw = settings.model_dump(mode="json")
    raw["cluster"] |= {"image": "real:1", "env": {}, "grace_seconds": 5, "start_minutes": 5.0}
    for name, value in cluster.items():
        raw["cluster"][name] = raw["cluster"][name] | value if isinstance(value, dict) else value
    raw["cluster"]["data"]["claim"] = "project"
    (root / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "outputs/validation").mkdir(exist_ok=True)
    (root / "outputs/validation/result.json").write_text("{}")


def pods_of(stage: str, pods: int, needs: tuple[str, ...] = ()) -> dict[str, Any]:
    return {stage: {"executor": "kubernetes", "pods": pods, "gpus": 0, "cpu": "1",
                    "memory": "3Gi", "disk": "2Gi", "fsdp": False,
                    "needs": list(needs)}}  # fmt: skip


def run(root: Path, stage: str, kube: KubeServer) -> str:
    """``interloom run STAGE``; what it printed."""
    env = {**os.environ, **interloom_image(TESTS), "KUBECONFIG": str(kube.kubeconfig())}
    command = [str(Path(sys.executable).parent / "interloom"), "run", stage, "--no-track"]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cluster_with(kube: KubeServer, root: Path) -> None:
    """The image, and a claim that has the project folder."""
    kube.images["real:1"] = interloom_image(TESTS)
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    kube.create("persistentvolumeclaims", SPACE, {"metadata": {"name": "project"}, "spec": claim})
    kube.claims["project"] = root


def curve(root: Path, name: str) -> dict[tuple[str, str, str], float]:
    with (root / "plots" / f"{name}.csv").open() as file:
        return {
            (row["step"], row["split"], row["metric"]): float(row["value"])
            for row in csv.DictReader(file)
        }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sft_critic_in_two_pods(project: Path, settings: Make, kube: KubeServer) -> None:
    here = Path(shutil.copytree(project, project.with_name("here")))
    base: dict[str, Any] = {"batch_size": 4, "epochs": 1, "evaluations": 1}
    prepare(here, settings("sft_critic", **base))
    run(here, "sft-critic", kube)
    cluster_with(kube, project)
    chosen = settings("sft_critic", **base | {"micro_batch_size": 2})
    prepare(project, chosen, stages=pods_of("sft-critic", 2))
    said = run(project, "sft-critic", kube)
    assert "[sft-critic pod 1] sft-critic, process 1: critic: 28 samples" in said
    ours, theirs = curve(here, "sft-critic"), curve(project, "sft-critic")
    losses = {key: value for key, value in ours.items() if key[2] in ("loss", "grad_norm")}
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
    here = Path(shutil.copytree(project, project.with_name("here")))
    base: dict[str, Any] = {"batch_size": 2, "group_size": 2, "max_steps": 2, "evaluations": 1}
    chosen = settings("grpo_critic", **base)
    prepare(here, chosen)
    run(here, "grpo-critic", kube)

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
    from interloom.settings import settings_from

    services = raw["cluster"]["services"]
    services["generator"] |= {"shared": False, "replicas": 1, "max_replicas": 2}
    prepare(
        project,
        settings_from(raw, "test"),
        stages=pods_of("grpo-critic", 1, ("generator",)),
        secrets=["stage-keys"],
        services=services,
    )
    said = run(project, "grpo-critic", kube)
    assert "the run has its own server grpo-critic-" in said
    assert "-generator is ready (1 replica(s))" in said
    name = "outputs/models/critic-rl"
    assert digest(project / name) == digest(here / name)
    assert [item["spec"]["maxReplicas"] for item in
            kube.store.all("horizontalpodautoscalers", SPACE)] == [2]  # fmt: skip
    from tiny_project.project import wait_for

    wait_for(lambda: not kube.store.all("deployments", SPACE))
