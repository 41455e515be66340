from __future__ import annotations

from typing import Any

import pytest
from kubernetes import client

from interloom.cluster import manifests, names
from interloom.cluster.manifests import Work
from interloom.cluster.settings import ClusterSettings, StagePods
from interloom.errors import InterloomError
from interloom.settings import load_settings, settings_from

WORK = Work("sft-critic", "sft-critic-0123", ("interloom", "run", "sft-critic"), {"A": "b"},
            {"interloom/stage": "sft-critic"})  # fmt: skip


def options(**changes: Any) -> ClusterSettings:
    raw = load_settings("params.yaml").model_dump(mode="json")
    raw["cluster"] |= changes
    return settings_from(raw, "test").cluster


def pods(**changes: Any) -> StagePods:
    return options().stages["sft-critic"].model_copy(update=changes)


def stage_job(chosen: ClusterSettings, wanted: StagePods) -> dict[str, Any]:
    made = manifests.job(WORK, chosen, wanted, {}, 3600)
    # The official client's own model of a Job takes it, and drops nothing of it.
    known = client.ApiClient().sanitize_for_serialization(client.V1Job.from_dict(made))
    assert known == made
    return made


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["template"]["spec"]


@pytest.mark.parametrize("kind", ["volume", "dvc"])
def test_pods_meet_the_restricted_standard(kind: str) -> None:
    data = options().data.model_dump(mode="json") | {"kind": kind}
    pod = pod_of(stage_job(options(data=data), pods(gpus=2)))
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"] == "4Gi"
    assert len(pod.get("initContainers", [])) == (kind == "dvc")
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"


def test_one_process_needs_no_launcher() -> None:
    command = pod_of(stage_job(options(), pods()))["containers"][0]["command"]
    assert command[command.index("--") + 1 :] == ["interloom", "run", "sft-critic"]
    command = pod_of(stage_job(options(), pods(gpus=8)))["containers"][0]["command"]
    after = command[command.index("--") + 1 :]
    assert after[:3] == ["torchrun", "--standalone", "--nproc-per-node=8"]


def test_many_pods_meet_at_the_first() -> None:
    job = stage_job(options(), pods(pods=4, gpus=8))
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (4, 4)
    assert job["spec"]["completionMode"] == "Indexed"
    pod = pod_of(job)
    command = pod["containers"][0]["command"]
    assert "--rdzv-endpoint=sft-critic-0123-0.sft-critic-0123:29500" in command
    assert "--node-rank=$(JOB_COMPLETION_INDEX)" in command
    service = manifests.headless_service(WORK)
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["publishNotReadyAddresses"], "they meet before they are ready"
    rules = job["spec"]["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} == {"FailJob"}, "no pod is replaced alone"


def test_one_pod_is_replaced_when_it_is_evicted() -> None:
    spec = stage_job(options(retries=3), pods())["spec"]
    rules = spec["podFailurePolicy"]["rules"]
    assert rules[0]["action"] == "Ignore"
    assert rules[0]["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert spec["backoffLimit"] == 3


def test_settings_reach_the_pods() -> None:
    toleration = {"key": "gpu", "operator": "Exists", "value": "", "effect": "NoSchedule"}
    chosen = options(
        priority_class="urgent", pull_secret="registry", node_selector={"gpu": "h100"},
        tolerations=[toleration], shared_memory="8Gi", ttl_minutes=2, grace_seconds=77,
        gpu_resource="amd.com/gpu", env={"X": "1"}, secrets=["keys"],
    )  # fmt: skip
    job = stage_job(chosen, pods(gpus=1, fsdp=True))
    pod = pod_of(job)
    assert job["spec"]["ttlSecondsAfterFinished"] == 120
    assert pod["priorityClassName"] == "urgent"
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["nodeSelector"] == {"gpu": "h100"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["terminationGracePeriodSeconds"] == 77
    shared = next(v for v in pod["volumes"] if v["name"] == "shared-memory")
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    container = pod["containers"][0]
    assert container["resources"]["limits"]["amd.com/gpu"] == "1"
    assert container["envFrom"] == [{"secretRef": {"name": "keys"}}]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert env["X"] == "1"
    assert env["ACCELERATE_USE_FSDP"] == "true"


def test_kueue_gets_the_job_when_all_is_there() -> None:
    job = stage_job(options(queue="gpus"), pods())
    assert job["spec"]["suspend"], "held until it is released"
    assert names.QUEUE not in job["metadata"]["labels"]
    released = manifests.release(options(queue="gpus"))
    assert released["metadata"]["labels"] == {names.QUEUE: "gpus"}
    assert "spec" not in released, "Kueue lets it start"
    assert manifests.release(options())["spec"] == {"suspend": False}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"image": "interloom:latest"}, "interloom:latest: a tag of its own or a digest"),
        ({"image": "interloom"}, "a tag of its own or a digest is needed"),
        ({"namespace": "Inter_loom"}, "cluster.namespace = 'Inter_loom'"),
        ({"shared_memory": "1 GB"}, "cluster.shared_memory = '1 GB'"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InterloomError, match="cluster") as refused:
        options(**changes)
    assert text in str(refused.value)


def test_an_image_with_a_digest_or_a_port_is_fine() -> None:
    options(image="host:5000/interloom@sha256:" + 64 * "a")
    options(image="host:5000/interloom:1.2")


def test_names_tell_inputs_apart_and_fit() -> None:
    long = "a-stage-with-a-name-that-is-much-too-long-for-any-kubernetes-object"
    assert len(names.job_name(long, 16 * "f")) <= names.JOB_LENGTH
    assert names.job_name("x", 16 * "f") != names.job_name("x", 16 * "e")
