"""A tiny project of which a stage runs on the Kubernetes server of the tests."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

import yaml
from kube_server.server import KubeServer
from tiny_project.project import Project, stage_command, wait_for

SPACE = "interloom"
IMAGE = "tiny:1"


@dataclass
class OnCluster:
    """A tiny project whose stage ``squares`` runs in pods of a test server."""

    project: Project
    kube: KubeServer

    def set(self, stage: str = "squares", *, data: dict[str, Any] | None = None,
            pods: int = 1, memory: str = "2Gi", needs: tuple[str, ...] = (),
            **options: Any) -> None:  # fmt: skip
        """Settings of the section ``cluster``, and of the stage in it."""
        file = self.project.root / "params.yaml"
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
        section = raw["cluster"]
        section |= {"image": IMAGE, "namespace": SPACE, "grace_seconds": 5, "silence_seconds": 20.0,
                    "env": {}, "start_minutes": 0.1, **options}  # fmt: skip
        section["data"] |= {"claim": "project", **(data or {})}
        section["stages"] = {
            stage: {"executor": "kubernetes", "pods": pods, "gpus": 0, "cpu": "100m",
                    "memory": memory, "disk": "1Gi", "fsdp": False, "needs": list(needs)}
        }  # fmt: skip
        file.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")

    def image(self, **env: str) -> None:
        """Environment variables of the image, and so of all pods."""
        self.kube.images[IMAGE] |= env

    def run(self, stage: str = "squares", *, check: bool = True,
            **env: str) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run the stage and wait."""
        return self.project.stage(stage, check=check, **env)

    def start(self, stage: str = "squares", **env: str) -> subprocess.Popen[str]:
        """Begin to run the stage."""
        return self.project.start(*stage_command(stage), **env)

    def pods(self, *phases: str) -> list[dict[str, Any]]:
        """Pods that are not being deleted, of certain phases if any is given."""
        return [
            pod
            for pod in self.kube.store.all("pods", SPACE)
            if "deletionTimestamp" not in pod["metadata"]
            and (not phases or pod["status"]["phase"] in phases)
        ]

    def jobs(self) -> list[dict[str, Any]]:
        return self.kube.store.all("jobs", SPACE)

    def log(self) -> str:
        """What the newest pod's stage has printed."""
        pods = sorted(self.pods(), key=lambda pod: pod["metadata"]["creationTimestamp"])
        return self.kube.log(pods[-1], "stage") if pods else ""

    def hold(self, on: bool = True) -> None:
        """Keep the stage from going on after its next square, or let it go on."""
        file = self.project.root / "hold"
        file.touch() if on else file.unlink()

    def wait_for_squares(self, count: int = 1) -> None:
        """Wait until the running stage has made some checkpoints."""

        def made() -> bool:
            files = list(self.project.root.glob(".interloom/work/squares/*/done.json"))
            return bool(files) and len(json.loads(files[0].read_text())) >= count

        wait_for(made, seconds=60, every=0.05)
