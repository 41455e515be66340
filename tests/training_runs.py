"""Real training stages as commands: in one process, in two by torchrun, in pods of a cluster."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import yaml
from kube_server.server import KubeServer, interloom_image
from tiny_project.project import wait_for

from interloom.settings.file import Settings

TESTS = Path(__file__).parent
REPOSITORY = TESTS.parent
BIN = Path(sys.executable).parent
SPACE, IMAGE = "interloom", "real:1"
VERDICTS = ("outputs/validation/result.json", "outputs/adaptive-validation/result.json")


def prepare(root: Path, settings: Settings, **cluster: Any) -> None:
    """What ``interloom run`` wants of a project folder; ``cluster`` changes that section."""
    raw = settings.model_dump(mode="json")
    raw["cluster"] |= {"image": IMAGE, "env": {}, "grace_seconds": 5, "start_minutes": 5.0}
    for name, value in cluster.items():
        raw["cluster"][name] = raw["cluster"][name] | value if isinstance(value, dict) else value
    raw["cluster"]["data"]["claim"] = "project"
    (root / "params.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    (root / "dvc.yaml").write_text("stages: {}\n")
    for verdict in VERDICTS:
        (root / verdict).parent.mkdir(exist_ok=True)
        (root / verdict).write_text('{"success": true}')


def command(name: str, processes: int) -> list[str]:
    """``interloom run NAME`` in so many processes."""
    alone = [str(BIN / "interloom"), "run", name, "--no-track"]
    launcher = [str(BIN / "torchrun"), "--standalone", f"--nproc-per-node={processes}"]
    return alone if processes == 1 else [*launcher, "--no-python", *alone]


def environment() -> dict[str, str]:
    """Of such a command."""
    path = os.pathsep.join(map(str, [TESTS, REPOSITORY / "src", REPOSITORY]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def run(root: Path, name: str, processes: int = 1, **env: str) -> str:
    """Run a stage in a prepared project folder; what it printed."""
    done = subprocess.run(
        command(name, processes), cwd=root, env=environment() | env,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def run_until_killed(root: Path, name: str, processes: int, checkpoint: str, **env: str) -> None:
    """Run a stage in a prepared project folder, and kill it when a checkpoint is whole."""
    running = subprocess.Popen(
        command(name, processes), cwd=root, env=environment() | env, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    marker = f".interloom/work/{name}/*/checkpoints/{checkpoint}/complete"
    try:
        wait_for(lambda: list(root.glob(marker)), seconds=120, every=0.02)
    finally:
        # torchrun's processes are in sessions of their own, and would train on for a while.
        for process in psutil.Process(running.pid).children(recursive=True):
            process.kill()
        running.kill()
        running.wait()


def script(text: str, folder: Path, *words: str, processes: int = 2) -> str:
    """Run a script in several processes that meet by gloo; what it printed."""
    (folder / "script.py").write_text(text)
    launcher = [str(BIN / "torchrun"), "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*launcher, "script.py", *words], cwd=folder, env=environment(),
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def curve(root: Path, name: str) -> dict[tuple[str, str, str], float]:
    """A stage's curve by step, split and metric."""
    with (root / "plots" / f"{name}.csv").open() as file:
        return {
            (row["step"], row["split"], row["metric"]): float(row["value"])
            for row in csv.DictReader(file)
        }


def of_metrics(
    values: dict[tuple[str, str, str], float], *metrics: str
) -> dict[tuple[str, str, str], float]:
    """Only some metrics of a curve, of which there is at least one value each."""
    found = {key: value for key, value in values.items() if key[2] in metrics}
    assert {key[2] for key in found} == set(metrics)
    return found


def copy(project: Path, name: str) -> Path:
    """The project folder again, beside it."""
    return Path(shutil.copytree(project, project.with_name(f"{project.name}-{name}")))


def pods_of(
    stage: str, pods: int, needs: tuple[str, ...] = (), *, fsdp: bool = False
) -> dict[str, Any]:
    """The section ``cluster.stages`` for a stage that runs in pods."""
    wanted = {"executor": "kubernetes", "pods": pods, "gpus": 0, "cpu": "1", "memory": "3Gi"}
    return {stage: {**wanted, "disk": "2Gi", "fsdp": fsdp, "needs": list(needs)}}


def on(kube: KubeServer) -> dict[str, str]:
    """The environment of a caller whose cluster this is."""
    return {**interloom_image(TESTS), "KUBECONFIG": str(kube.kubeconfig())}


def cluster_with(kube: KubeServer, root: Path) -> None:
    """The image, and a claim that has the project folder."""
    kube.images[IMAGE] = interloom_image(TESTS)
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    kube.create("persistentvolumeclaims", SPACE, {"metadata": {"name": "project"}, "spec": claim})
    kube.claims["project"] = root
