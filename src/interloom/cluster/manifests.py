"""The objects that a stage has on the cluster, as Kubernetes takes them.

One pod, or an Indexed Job with a headless Service in which torchrun finds its first process; a
ConfigMap with the params and with the digests of what is read. All pods meet the Pod Security
Standard *restricted*: no root, no capabilities, a read-only root file system.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from interloom.cluster import names
from interloom.cluster.settings import ClusterSettings, ServiceSettings, StagePods
from interloom.errors import InterloomError
from interloom.stages import StageSpec

Object = dict[str, Any]
CONFIG = "/etc/interloom"
PARAMS, INPUTS = f"{CONFIG}/params.yaml", f"{CONFIG}/inputs.json"
MESSAGE = "/dev/termination-log"
RENDEZVOUS_PORT = 29500
STAGE_CONTAINER, DATA_CONTAINER = "stage", "data"
REFUSED, OUT_OF_MEMORY = 2, 137
"""Exit codes: of a stage that its user has to mend, and of one killed for memory."""
USER = 10001
"""Of the image (Dockerfile)."""
POD_SECURITY: Object = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
FSDP_WRAP = "TRANSFORMER_BASED_WRAP"


@dataclass(frozen=True)
class Work:
    """What a Job is to do."""

    stage: str
    name: str
    """Of the Job, and of what goes with it."""
    command: tuple[str, ...]
    """Of every process: ``interloom run STAGE …``."""
    env: Mapping[str, str]
    """What the pods are told about the caller."""
    labels: Mapping[str, str]


def check_processes(spec: StageSpec, pods: StagePods) -> None:
    """Refuse several processes for a stage that runs as one.

    Raises:
        InterloomError: naming the setting.
    """
    if pods.processes > 1 and not spec.together:
        raise InterloomError(
            f"cluster.stages.{spec.family}: {pods.pods} pod(s) with {pods.gpus} GPUs are "
            f"{pods.processes} processes, and {spec.family} runs as one: set pods to 1, and gpus "
            "to 0 or 1"
        )


def job(
    work: Work, options: ClusterSettings, pods: StagePods, annotations: Mapping[str, str],
    deadline_seconds: int,
) -> Object:  # fmt: skip
    """The Job. Several pods make one torchrun job: if one is lost, all of them begin again."""
    many = pods.pods > 1
    spec: Object = {
        "completionMode": "Indexed",
        "completions": pods.pods,
        "parallelism": pods.pods,
        "backoffLimit": 0 if many else options.retries,
        "podFailurePolicy": {"rules": _failure_rules(many)},
        "podReplacementPolicy": "Failed",
        "activeDeadlineSeconds": deadline_seconds,
        "ttlSecondsAfterFinished": round(60 * options.ttl_minutes),
        "suspend": True,  # until it is released
        "template": {
            "metadata": {"labels": dict(work.labels)},
            "spec": _pod(work, options, pods),
        },
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": work.name,
            "labels": dict(work.labels),
            "annotations": dict(annotations),
        },
        "spec": spec,
    }


def release(options: ClusterSettings) -> Object:
    """The change by which a Job may start: at once, or when Kueue says so.

    Kueue looks after Jobs from the moment they name a queue, so this one does not before.
    """
    about: Object = {"annotations": {names.HELD: None}}
    if options.queue:
        return {"metadata": about | {"labels": {names.QUEUE: options.queue}}}
    return {"metadata": about, "spec": {"suspend": False}}


def _failure_rules(many: bool) -> list[Object]:
    """What a pod's failure means for the Job; the first rule that fits decides.

    A pod that has to go (evicted, preempted, node lost) is replaced without being counted. With
    several pods nothing is replaced: the Job ends, and the executor makes it anew as a whole.
    """
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    if many:
        return [
            {"action": "FailJob", "onPodConditions": disrupted},
            {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [0]}},
        ]
    final = {"operator": "In", "values": [REFUSED, OUT_OF_MEMORY]}
    return [
        {"action": "Ignore", "onPodConditions": disrupted},
        {"action": "FailJob", "onExitCodes": final},
    ]


def _pod(work: Work, options: ClusterSettings, pods: StagePods) -> Object:
    data = options.data
    claim = {"name": "files", "persistentVolumeClaim": {"claimName": data.claim}}
    scratch: Object = {"emptyDir": {"sizeLimit": pods.disk}}
    project = {"name": "project" if data.kind == "dvc" else "files", "mountPath": data.mount}
    kept = {"name": "files", "mountPath": f"{data.mount}/.interloom"}
    for mount in (project, kept):
        if data.folder and mount["name"] == "files":
            mount["subPath"] = data.folder
    mounts = [project, *([kept] if data.kind == "dvc" else [])]
    mounts += [
        {"name": "config", "mountPath": CONFIG, "readOnly": True},
        {"name": "scratch", "mountPath": "/tmp"},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
    ]
    spec = {
        "restartPolicy": "Never",
        "serviceAccountName": options.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": options.grace_seconds,
        "securityContext": POD_SECURITY,
        "containers": [_stage_container(work, options, pods, mounts)],
        "volumes": [
            claim if data.claim else {"name": "files", **scratch},
            *([{"name": "project", **scratch}] if data.kind == "dvc" else []),
            {"name": "config", "configMap": {"name": work.name}},
            {"name": "scratch", **scratch},
            {
                "name": "shared-memory",
                "emptyDir": {"medium": "Memory", "sizeLimit": options.shared_memory},
            },
        ],
    }
    if data.kind == "dvc":
        spec["initContainers"] = [_data_container(work, options, pods, mounts)]
    if pods.pods > 1:
        spec["subdomain"] = work.name
    return spec | placement(options)


def placement(options: ClusterSettings) -> Object:
    """Where pods may go, and how urgent they are."""
    spec: Object = {
        "nodeSelector": dict(options.node_selector),
        "tolerations": [
            {name: value for name, value in toleration.model_dump().items() if value}
            for toleration in options.tolerations
        ],
    }
    if options.priority_class:
        spec["priorityClassName"] = options.priority_class
    if options.pull_secret:
        spec["imagePullSecrets"] = [{"name": options.pull_secret}]
    return spec


def container(name: str, image: str, command: Sequence[str], resources: Object) -> Object:
    """A container as every pod of ours has it."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "resources": resources,
        "terminationMessagePath": MESSAGE,
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def resources(
    wanted: StagePods | ServiceSettings, options: ClusterSettings, *, gpus: int
) -> Object:
    """What a container asks for; all but CPU are limits too, as more of it cannot be borrowed."""
    bounded = {"memory": wanted.memory, "ephemeral-storage": wanted.disk}
    if gpus:
        bounded[options.gpu_resource] = str(gpus)
    return {"requests": {"cpu": wanted.cpu, **bounded}, "limits": bounded}


def _stage_container(
    work: Work, options: ClusterSettings, pods: StagePods, mounts: list[Object]
) -> Object:
    inside = ["python", "-m", "interloom.cluster.inside", "run", "--inputs", INPUTS,
              "--message", MESSAGE, "--"]  # fmt: skip
    made = container(
        STAGE_CONTAINER,
        options.image,
        [*inside, *_launcher(work, pods), *work.command],
        resources(pods, options, gpus=pods.gpus),
    )
    env = {"HOME": "/tmp", "PYTHONUNBUFFERED": "1", **options.env, **work.env}
    if pods.fsdp:
        env |= fsdp(options)
    return made | {
        "workingDir": options.data.mount,
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            *environment(env),
        ],
        "envFrom": secrets(options),
        "volumeMounts": mounts,
    }


def _data_container(
    work: Work, options: ClusterSettings, pods: StagePods, mounts: list[Object]
) -> Object:
    """Pulls what the stage reads, by digest, before the stage begins."""
    command = ["python", "-m", "interloom.cluster.inside", "fetch", "--inputs", INPUTS,
               "--message", MESSAGE, "--params", PARAMS]  # fmt: skip
    made = container(DATA_CONTAINER, options.image, command, resources(pods, options, gpus=0))
    return made | {
        "workingDir": options.data.mount,
        "env": environment({"HOME": "/tmp", "PYTHONUNBUFFERED": "1", **options.env}),
        "envFrom": secrets(options),
        "volumeMounts": mounts,
    }


def environment(said: Mapping[str, str]) -> list[Object]:
    """Variables as a container has them."""
    return [{"name": name, "value": value} for name, value in said.items()]


def secrets(options: ClusterSettings) -> list[Object]:
    """Secrets whose keys become variables."""
    return [{"secretRef": {"name": name}} for name in options.secrets]


def _launcher(work: Work, pods: StagePods) -> list[str]:
    """torchrun, where a stage has several processes; the first is always in the first pod."""
    if pods.processes == 1:
        return []
    each = pods.processes // pods.pods
    if pods.pods == 1:
        return ["torchrun", "--standalone", f"--nproc-per-node={each}", "--no-python"]
    return [
        "torchrun",
        f"--nnodes={pods.pods}",
        "--node-rank=$(JOB_COMPLETION_INDEX)",
        f"--nproc-per-node={each}",
        "--rdzv-backend=static",
        f"--rdzv-endpoint={work.name}-0.{work.name}:{RENDEZVOUS_PORT}",
        "--local-addr=$(POD_IP)",
        "--no-python",
    ]


def fsdp(options: ClusterSettings) -> dict[str, str]:
    """accelerate's own variables for FSDP2, as ``accelerate launch`` would set them."""
    return {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": FSDP_WRAP,
        "FSDP_RESHARD_AFTER_FORWARD": str(options.fsdp.reshard_after_forward).lower(),
        "FSDP_OFFLOAD_PARAMS": str(options.fsdp.cpu_offload).lower(),
        "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    }


def owned(item: Object, owner: Object) -> Object:
    """``item``, to be deleted with its ``owner``."""
    about = owner["metadata"]
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": about["name"],
        "uid": about["uid"],
        "blockOwnerDeletion": False,
    }
    return item | {"metadata": {**item["metadata"], "ownerReferences": [reference]}}


def config_map(work: Work, params: Mapping[str, Any], inputs: Mapping[str, Any]) -> Object:
    """The params that the stage is run with, and what the caller says about its inputs."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": work.name, "labels": dict(work.labels)},
        "data": {
            "params.yaml": yaml.safe_dump(dict(params), sort_keys=False),
            "inputs.json": json.dumps(dict(inputs)),
        },
    }


def headless_service(work: Work) -> Object:
    """Gives the pods of a Job names by which they find each other, ready or not."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": work.name, "labels": dict(work.labels)},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.JOB_NAME: work.name},
            "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT}],
        },
    }
