"""Model servers that a stage needs: a generator pool, a judge, a vLLM server for rollouts.

A shared one stands already, under its own name, and is waited for. One of the run's own is made
before the Job, and deleted after it; a restarted flow finds it by the same name.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from interloom.cluster import failures, manifests, names
from interloom.cluster.api import (
    AUTOSCALERS,
    DEPLOYMENTS,
    EVENTS,
    PODS,
    SERVICES,
    Api,
    Resource,
)
from interloom.cluster.manifests import Object, Work
from interloom.cluster.settings import ClusterSettings, ServiceSettings, StagePods
from interloom.errors import InterloomError

LOOK_SECONDS = 1.0
PART, ROLLOUTS = "service", "rollouts"
"""Components of servers of a run's own. Those that write rollouts are a part of the training: they
connect to its pods to be given the policy's weights, which network policies let no other do."""
KEYS = "/run/interloom"
INSTANCE = "app.kubernetes.io/instance"
IMAGE_PROJECT = "/app"
"""The project folder of the image (Dockerfile)."""
Labels = dict[str, str]


class Services:
    """The servers of one stage."""

    def __init__(
        self,
        api: Api,
        options: ClusterSettings,
        pods: StagePods,
        job: str,
        say: Callable[[str], None],
    ) -> None:
        self._api, self._options, self._job, self._say = api, options, job, say
        self._needed = {name: options.services[name] for name in pods.needs}
        self.addresses: dict[str, str] = {}
        """URL by the backend (or trainer) that is told it; those of servers to come too."""
        for name, service in self._needed.items():
            suffix = "/v1" if service.remote == "openai" else ""
            url = f"http://{self._object(name)}:{service.port}{suffix}"
            self.addresses[service.remote] = url

    def make_ready(self, work: Work, job: Object) -> None:
        """Make the run's own servers, and wait until all have the replicas that they should.

        Raises:
            InterloomError: one is missing, or not ready within ``cluster.start_minutes``.
        """
        for name, service in self._needed.items():
            if not service.shared:
                self._make(work, job, name, service)
        end = time.monotonic() + 60 * self._options.start_minutes
        for name in self._needed:
            self._wait(self._object(name), end)

    def end(self) -> None:
        """Delete the run's own servers, which need not wait for the Job to expire."""
        for name, service in self._needed.items():
            if not service.shared:
                self._api.delete(DEPLOYMENTS, self._object(name))

    def _object(self, name: str) -> str:
        """What the server is called on the cluster."""
        return name if self._needed[name].shared else f"{self._job}-{name}"[:63].rstrip("-")

    def _make(self, work: Work, job: Object, name: str, service: ServiceSettings) -> None:
        """Make one of the run's own; it goes with the Job, whatever becomes of this process."""
        called = self._object(name)
        for resource, body in objects(work, called, service, self._options):
            self._api.ensure(resource, manifests.owned(body, job))
        self._say(f"the run has its own server {called} ({service.replicas} replica(s))")

    def _wait(self, called: str, end: float) -> None:
        told = False
        while True:
            found = self._api.get(DEPLOYMENTS, called)
            if found is None:
                raise InterloomError(
                    f"the stage needs the server {called}, and namespace {self._options.namespace} "
                    "has no such Deployment: apply k8s/, or set shared: false in cluster.services"
                )
            status = found.get("status") or {}
            ready, wanted = status.get("readyReplicas") or 0, found["spec"].get("replicas", 1)
            if ready >= min(1, wanted) and ready >= wanted:
                self._say(f"the server {called} is ready ({ready} replica(s))")
                return
            if time.monotonic() > end:
                raise InterloomError(
                    f"the server {called} has {ready} of {wanted} replicas ready after "
                    f"cluster.start_minutes = {self._options.start_minutes:g}{self._why(found)}"
                )
            if not told:
                self._say(f"waiting for the server {called}: {ready} of {wanted} replicas ready")
                told = True
            time.sleep(LOOK_SECONDS)

    def _why(self, deployment: Object) -> str:
        """What keeps a Deployment's pods from being there, or from running."""
        refused = failures.condition(deployment, "ReplicaFailure")
        if refused is not None:
            return f": {refused.get('message', '')}"
        chosen = deployment["spec"]["selector"].get("matchLabels", {})
        labels = ",".join(f"{name}={value}" for name, value in chosen.items())
        pods, _ = self._api.list(PODS, labels=labels)
        events, _ = self._api.list(EVENTS)
        for pod in pods:
            problem = failures.pod_waiting(pod, events)
            if problem is not None:
                return f": {problem.text}"
        return ""


def objects(
    work: Work, called: str, service: ServiceSettings, options: ClusterSettings
) -> list[tuple[Resource, Object]]:
    """A server of the run's own: its Deployment, its Service, and what scales it."""
    part = ROLLOUTS if service.remote == "rollouts" else PART
    labels = {**work.labels, names.PART: part, INSTANCE: called}
    made = [
        (DEPLOYMENTS, _deployment(labels, called, service, options)),
        (SERVICES, _service(labels, called, service)),
    ]
    if service.max_replicas > service.replicas:
        made.append((AUTOSCALERS, _autoscaler(labels, called, service)))
    return made


def _deployment(
    labels: Labels, called: str, service: ServiceSettings, options: ClusterSettings
) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": called, "labels": labels},
        "spec": {
            "replicas": service.replicas,
            "selector": {"matchLabels": {INSTANCE: called}},
            "template": {"metadata": {"labels": labels}, "spec": _pod(service, options)},
        },
    }


def _pod(service: ServiceSettings, options: ClusterSettings) -> Object:
    """A replica: as the stage's pods, with the project's files to read if they are on a volume,
    and else with those of the image."""
    shared = options.data.kind == "volume"
    project = options.data.mount if shared else IMAGE_PROJECT
    volumes: list[Object] = [
        {"name": "scratch", "emptyDir": {"sizeLimit": service.disk}},
        {
            "name": "shared-memory",
            "emptyDir": {"medium": "Memory", "sizeLimit": options.shared_memory},
        },
    ]
    mounts: list[Object] = [
        {"name": "scratch", "mountPath": "/tmp"},
        {"name": "scratch", "mountPath": f"{project}/.interloom", "subPath": "interloom"},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
    ]
    if shared:
        volumes.append(
            {"name": "files", "persistentVolumeClaim": {"claimName": options.data.claim}}
        )
        mount: Object = {"name": "files", "mountPath": project, "readOnly": True}
        mounts.append(mount | ({"subPath": options.data.folder} if options.data.folder else {}))
    if service.keys_secret:
        volumes.append({"name": "keys", "secret": {"secretName": service.keys_secret}})
        mounts.append({"name": "keys", "mountPath": KEYS, "readOnly": True})
    probe = {"httpGet": {"path": service.health, "port": service.port}}
    container = manifests.container(
        "server",
        service.image or options.image,
        service.command,
        manifests.resources(service, options, gpus=service.gpus),
    )
    return {
        "serviceAccountName": options.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": manifests.POD_SECURITY,
        "containers": [
            container
            | {
                "ports": [{"containerPort": service.port}],
                "env": manifests.environment({"HOME": "/tmp", **options.env}),
                "envFrom": manifests.secrets(options),
                **({"workingDir": project} if shared else {}),
                "startupProbe": probe | {"periodSeconds": 10, "failureThreshold": 360},
                "readinessProbe": probe | {"periodSeconds": 5},
                "livenessProbe": probe | {"periodSeconds": 30, "failureThreshold": 10},
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
        **manifests.placement(options),
    }


def _service(labels: Labels, called: str, service: ServiceSettings) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": called, "labels": labels},
        "spec": {
            "selector": {INSTANCE: called},
            "ports": [{"port": service.port, "targetPort": service.port}],
        },
    }


def _autoscaler(labels: Labels, called: str, service: ServiceSettings) -> Object:
    target = {"type": "Utilization", "averageUtilization": service.busy_percent}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": called, "labels": labels},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": called},
            "minReplicas": service.replicas,
            "maxReplicas": service.max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    }
