"""Section ``cluster`` of the params file: which stages run in pods, and what those pods are like.

It decides where a stage runs and never what it makes, so no stage depends on it: a stage that moves
to the cluster stays as fresh as it was.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from interloom.params import Section

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
"""A name as Kubernetes takes it (RFC 1123 label)."""
NameOrNone = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$")]
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
"""An amount as Kubernetes writes it: ``500m`` of a core, ``64Gi`` of memory."""
Replicas = Annotated[int, Field(ge=1, le=1000)]
Devices = Annotated[int, Field(ge=0, le=64)]


class TolerationSettings(Section):
    """A taint that pods may be placed in spite of."""

    key: str
    operator: Literal["Equal", "Exists"]
    value: str
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class DataSettings(Section):
    """How a stage's files reach its pods, and come back."""

    kind: Literal["volume", "dvc"]
    """``volume``: the project folder is on a volume that the caller has mounted too. ``dvc``: pods
    pull what the stage reads from the DVC remote and push what it wrote."""
    claim: NameOrNone
    """PersistentVolumeClaim, mounted by all pods at once (ReadWriteMany if they are several). With
    ``volume`` it has the project folder, with ``dvc`` only checkpoints; empty keeps no checkpoint
    beyond a pod's life."""
    folder: Annotated[str, Field(pattern=r"^([\w.-]+(/[\w.-]+)*)?$")]
    """Folder in the volume, empty for its root."""
    mount: Annotated[str, Field(pattern=r"^(/[\w.-]+)+$")]
    """Where pods have the project folder."""
    remote: str
    """Name of the DVC remote; empty for the default one."""


class FsdpSettings(Section):
    """Sharding by accelerate's FSDP2, for stages that ask for it."""

    reshard_after_forward: bool
    """Give weights back after the forward pass (ZeRO 3); false keeps them (ZeRO 2)."""
    cpu_offload: bool


class ServiceSettings(Section):
    """A model server that stages need ready before they start."""

    remote: Literal["http", "openai", "rollouts"]
    """Who is told its address: the backend of section ``remote``, or the trainer that lets a vLLM
    server write its rollouts."""
    shared: bool
    """It stands already, under this name, and serves others too; else every run has its own, which
    ends with it."""
    image: str
    """Empty for ``cluster.image``."""
    command: Annotated[tuple[str, ...], Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    keys_secret: NameOrNone
    """Secret with a file ``keys.json`` (`interloom serve-key`), mounted at ``/run/interloom`` in a
    server of the run's own; empty mounts none."""
    health: Annotated[str, Field(pattern=r"^/")]
    """Path that answers 200 when it is ready."""
    replicas: Replicas
    max_replicas: Replicas
    """Where more than ``replicas``, a HorizontalPodAutoscaler goes up to it."""
    busy_percent: Annotated[int, Field(ge=1, le=100)]
    """CPU use above which it does."""
    gpus: Devices
    """Per replica."""
    cpu: Quantity
    memory: Quantity
    disk: Quantity
    """Per replica, as of a stage's pods."""

    @model_validator(mode="after")
    def _consistent(self) -> ServiceSettings:
        if self.max_replicas < self.replicas:
            raise ValueError("max_replicas must be at least replicas")
        if self.remote == "rollouts" and (self.shared or self.max_replicas > 1):
            raise ValueError(
                "a server for rollouts has the weights of one run: shared must be false, and "
                "max_replicas 1"
            )
        return self


class StagePods(Section):
    """Where one stage runs."""

    executor: Literal["local", "kubernetes"]
    pods: Annotated[int, Field(ge=1, le=512)]
    """More than one train together, as one torchrun job."""
    gpus: Devices
    """Per pod; so many processes train in it, one without GPUs."""
    cpu: Quantity
    """Per pod, asked for."""
    memory: Quantity
    """Per pod, asked for and allowed."""
    disk: Quantity
    """Per pod, asked for and allowed: room on the node for ``/tmp`` and, with ``data.kind`` dvc,
    for what is pulled and written."""
    fsdp: bool
    """Shard weights and optimiser over all processes instead of copying them."""
    needs: tuple[str, ...]
    """Names in ``cluster.services``."""

    @property
    def processes(self) -> int:
        """Of all pods together: one a GPU, or one a pod without."""
        return self.pods * max(1, self.gpus)


class ClusterSettings(Section):
    """Kubernetes, for the stages whose ``executor`` it is."""

    context: str
    """Of the kubeconfig; empty for its present one, or in a pod for that pod's account."""
    namespace: Name
    image: Annotated[str, Field(min_length=1)]
    """With a tag or digest of its own: ``latest`` is refused."""
    pull_secret: NameOrNone
    service_account: Name
    """Of the stages' pods; they need no rights."""
    queue: NameOrNone
    """Kueue's LocalQueue; empty without Kueue."""
    priority_class: NameOrNone
    node_selector: dict[str, str]
    tolerations: tuple[TolerationSettings, ...]
    gpu_resource: str
    shared_memory: Quantity
    """Of each pod, for the processes in it (``/dev/shm``)."""
    env: dict[str, str]
    """Of the stages' pods: addresses of MLflow and others, no secrets."""
    secrets: tuple[Name, ...]
    """Secrets whose keys become environment variables of the stages' pods."""
    deadline_minutes: Annotated[float, Field(gt=0)]
    """A stage that takes longer is ended, its waiting for the scheduler included."""
    start_minutes: Annotated[float, Field(gt=0)]
    """How long pods may wait for room, quota, images, volumes and services."""
    grace_seconds: Annotated[int, Field(ge=1, le=3600)]
    """Between the polite signal to a pod that has to go, and the kill."""
    retries: Annotated[int, Field(ge=0, le=100)]
    """Repeats of a stage that crashed. Evictions, preemptions and lost nodes do not count."""
    ttl_minutes: Annotated[float, Field(ge=0)]
    """How long a finished Job stays, to be looked at and, by a restarted flow, read."""
    silence_seconds: Annotated[float, Field(gt=0, le=3600)]
    """A connection to the API server that says nothing for so long is made anew."""
    data: DataSettings
    fsdp: FsdpSettings
    services: dict[Name, ServiceSettings]
    stages: dict[Name, StagePods]
    """Stages that are not named run locally."""

    @model_validator(mode="after")
    def _consistent(self) -> ClusterSettings:
        for name, stage in self.stages.items():
            for service in stage.needs:
                if service not in self.services:
                    raise ValueError(f"stages.{name}.needs: no {service!r} in cluster.services")
            told = [self.services[service].remote for service in stage.needs]
            if len(set(told)) < len(told):
                raise ValueError(f"stages.{name}.needs: two services with the same `remote`")
        if self.data.kind == "volume" and not self.data.claim:
            raise ValueError("data.kind: volume needs data.claim")
        for image in (self.image, *(service.image for service in self.services.values())):
            tag = image.rpartition("/")[2].partition(":")[2]
            if image and "@sha256:" not in image and tag in {"", "latest"}:
                raise ValueError(f"image {image}: a tag of its own or a digest is needed")
        return self

    def runs(self, stage: str) -> bool:
        """Whether ``stage`` runs on the cluster."""
        return stage in self.stages and self.stages[stage].executor == "kubernetes"
