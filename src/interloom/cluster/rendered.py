"""The manifests in ``k8s/`` as objects: rendered by Kustomize, and what they refer to."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from interloom.errors import InterloomError

OVERLAYS = Path("k8s/overlays")
Manifest = Mapping[str, Any]
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")
"""Kinds with a pod template."""


@dataclass(frozen=True, order=True)
class SecretKey:
    """A key of a Secret that some pod reads; an empty ``key`` means the whole Secret."""

    secret: str
    key: str
    reader: str
    """What needs it."""


def render(overlay: Path) -> list[dict[str, Any]]:
    """All objects of an overlay, in Kustomize's order.

    Raises:
        InterloomError: neither kubectl nor kustomize is here, or Kustomize refuses the overlay.
    """
    if not (overlay / "kustomization.yaml").is_file():
        known = sorted(path.parent.name for path in overlay.parent.glob("*/kustomization.yaml"))
        raise InterloomError(f"no overlay {overlay}; there are: {', '.join(known) or 'none'}")
    done = subprocess.run(
        [*_command(), str(overlay)], capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise InterloomError(f"{overlay}: Kustomize says: {reason}")
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def _command() -> list[str]:
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    raise InterloomError("kubectl is not in the PATH: it renders the manifests in k8s/")


def label(manifest: Manifest) -> str:
    """``kind/name``, for messages."""
    metadata = manifest["metadata"]
    return f"{manifest['kind']}/{metadata.get('name') or metadata['generateName']}"


def of_kind(manifests: Iterable[Manifest], *kinds: str) -> list[Manifest]:
    """Those of some kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def named(manifests: Iterable[Manifest], kind: str, name: str) -> Manifest | None:
    """The one called so."""
    for manifest in of_kind(manifests, kind):
        if manifest["metadata"]["name"] == name:
            return manifest
    return None


def pod_spec(workload: Manifest) -> Manifest:
    """Of a workload's pods."""
    return workload["spec"]["template"]["spec"]


def containers(pod: Manifest) -> list[Manifest]:
    """Those that prepare and those that work."""
    return [*pod.get("initContainers", ()), *pod["containers"]]


def secret_keys(workload: Manifest) -> Iterator[SecretKey]:
    """Every key that the pods of a workload cannot start without."""
    reader, pod = label(workload), pod_spec(workload)
    for container in containers(pod):
        for variable in container.get("env", ()):
            wanted = variable.get("valueFrom", {}).get("secretKeyRef")
            if wanted and not wanted.get("optional"):
                yield SecretKey(wanted["name"], wanted["key"], reader)
        for source in container.get("envFrom", ()):
            wanted = source.get("secretRef")
            if wanted and not wanted.get("optional"):
                yield SecretKey(wanted["name"], "", reader)
    for volume in pod.get("volumes", ()):
        wanted = volume.get("secret")
        if wanted and not wanted.get("optional"):
            keys = [item["key"] for item in wanted.get("items", ())] or [""]
            yield from (SecretKey(wanted["secretName"], key, reader) for key in keys)
    for wanted in pod.get("imagePullSecrets", ()):
        yield SecretKey(wanted["name"], ".dockerconfigjson", reader)


def claims(workload: Manifest) -> list[str]:
    """Names of the PersistentVolumeClaims that the pods of a workload mount."""
    volumes = pod_spec(workload).get("volumes", ())
    return [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in volumes
        if "persistentVolumeClaim" in volume
    ]


def most_replicas(workload: Manifest, manifests: Iterable[Manifest]) -> int:
    """How many pods a workload has at its largest: its autoscaler's limit, else its own number."""
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        if (target["kind"], target["name"]) == (workload["kind"], workload["metadata"]["name"]):
            return scaler["spec"]["maxReplicas"]
    if workload["kind"] == "Job":
        return workload["spec"].get("parallelism", 1)
    return workload["spec"].get("replicas", 1)
