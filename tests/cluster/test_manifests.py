from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from kubernetes import client
from manifests import MINORS, ROOT, schema_problems
from pod_policies import EVERY_POD, probed

from interloom.cluster import manifests, names, services
from interloom.cluster.manifests import Work
from interloom.cluster.rendered import WORKLOADS, label, pod_spec
from interloom.cluster.settings import ClusterSettings, StagePods
from interloom.errors import InterloomError
from interloom.settings.file import load_settings, settings_from
from interloom.stages import STAGES, find_stage

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


@pytest.mark.parametrize("kind", ["volume", "dvc"])
@pytest.mark.parametrize("name", ["params.yaml", "profiles/paper.yaml"])
def test_all_that_the_executor_makes_is_valid_and_keeps_every_rule(name: str, kind: str) -> None:
    """Jobs, servers of a run's own and what goes with them, for four Kubernetes minors."""
    raw = load_settings(ROOT / name).model_dump(mode="json")
    raw["cluster"]["data"]["kind"] = kind
    raw["cluster"] |= {"priority_class": "urgent", "pull_secret": "registry", "secrets": ["keys"]}
    for service in raw["cluster"]["services"].values():
        service |= {"shared": False}
    raw["cluster"]["services"]["generator"] |= {"max_replicas": 8}
    settings = settings_from(raw, "test").cluster
    made = [
        manifests.config_map(WORK, raw, {}),
        manifests.headless_service(WORK),
        *(manifests.job(WORK, settings, pods, {}, 3600) for pods in settings.stages.values()),
    ]
    for called, service in settings.services.items():
        made += [body for _, body in services.objects(WORK, called, service, settings)]
    kinds = {item["kind"] for item in made}
    assert kinds >= {"Job", "Deployment", "Service", "ConfigMap", "HorizontalPodAutoscaler"}
    for minor in MINORS:
        faults = {label(item): found for item in made if (found := schema_problems(item, minor))}
        assert faults == {}
    for item in made:
        if item["kind"] in WORKLOADS:
            rules = EVERY_POD if item["kind"] == "Job" else (*EVERY_POD, probed)
            spec = pod_spec(item)
            assert [fault for rule in rules for fault in rule(spec)] == [], label(item)


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


def test_a_stage_that_runs_as_one_gets_one_process() -> None:
    manifests.check_processes(find_stage("sft-critic"), pods(pods=2, gpus=8))
    manifests.check_processes(find_stage("trajectories"), pods(gpus=1))
    with pytest.raises(InterloomError, match=r"cluster\.stages\.generate: 1 pod\(s\) with 2 GPUs"):
        manifests.check_processes(find_stage("generate@wise"), pods(gpus=2))


@pytest.mark.parametrize("name", ["params.yaml", "profiles/paper.yaml"])
def test_every_training_can_be_sent_to_the_cluster(name: str) -> None:
    """Both systems' trainings are in the section, and batches divide over their processes."""
    settings = load_settings(ROOT / name)
    trainings = {spec.name for spec in STAGES if spec.together}
    assert trainings == set(settings.cluster.stages)
    for stage, options in (
        ("sft-planner", settings.sft_planner),
        ("sft-critic", settings.sft_critic),
        ("sft-adaptive", settings.sft_adaptive),
    ):
        share = options.micro_batch_size * settings.cluster.stages[stage].processes
        assert options.batch_size % share == 0, stage
    for stage, options in (
        ("grpo-critic", settings.grpo_critic),
        ("grpo-adaptive", settings.grpo_adaptive),
    ):
        share = options.micro_batch_size * settings.cluster.stages[stage].processes
        assert options.batch_size * options.group_size % share == 0, stage


def test_services_that_cannot_be() -> None:
    paper = load_settings(ROOT / "profiles/paper.yaml").model_dump(mode="json")
    for changes, text in (
        ({"services": {"rollouts": {"shared": True}}}, "has the weights of one run"),
        ({"services": {"rollouts": {"max_replicas": 2}}}, "has the weights of one run"),
        ({"services": {"generator": {"remote": "openai"}},
          "stages": {"grpo-critic": {"needs": ["generator", "judge"]}}}, "with the same `remote`"),
        ({"stages": {"grpo-critic": {"needs": ["jugde"]}}}, "no 'jugde' in cluster.services"),
    ):  # fmt: skip
        raw = deepcopy(paper)
        for section, entries in changes.items():
            for name, values in entries.items():
                raw["cluster"][section][name] |= values
        with pytest.raises(InterloomError, match=text):
            settings_from(raw, "test")


def test_names_tell_inputs_apart_and_fit() -> None:
    long = "a-stage-with-a-name-that-is-much-too-long-for-any-kubernetes-object"
    assert len(names.job_name(long, 16 * "f")) <= names.JOB_LENGTH
    assert names.job_name("x", 16 * "f") != names.job_name("x", 16 * "e")
