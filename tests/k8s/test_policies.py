"""Our own rules for what is applied: security, sizes, updates, secrets."""

from __future__ import annotations

import re
import tomllib
from copy import deepcopy
from typing import Any

import pytest
import yaml
from manifests import ROOT, rendered
from pod_policies import EVERY_POD, probed
from test_docs import wrong_commands

from interloom.cluster.quantities import amount, beyond, most_amounts, pod_amounts
from interloom.cluster.rendered import containers, label, named, of_kind, pod_spec
from interloom.settings.file import load_settings

Manifests = list[dict[str, Any]]
SERVERS = ("Deployment", "StatefulSet")


def test_every_pod_keeps_every_rule(manifests: Manifests) -> None:
    workloads = of_kind(manifests, *SERVERS)
    assert len(workloads) >= 6
    faults = [
        f"{label(workload)}: {complaint}"
        for workload in workloads
        for rule in (*EVERY_POD, probed)
        for complaint in rule(pod_spec(workload))
    ]
    assert faults == []


def test_the_namespace_enforces_restricted(manifests: Manifests) -> None:
    (namespace,) = of_kind(manifests, "Namespace")
    for mode in ("enforce", "audit", "warn"):
        assert namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"
    everything_else = [m for m in manifests if m is not namespace]
    assert {m["metadata"]["namespace"] for m in everything_else} == {"interloom"}


def test_kinds_that_are_not_there(manifests: Manifests) -> None:
    """Secrets are made elsewhere, schedules are Prefect's, and nobody has rights beyond here."""
    forbidden = {"Secret", "CronJob", "ClusterRole", "ClusterRoleBinding", "Pod", "DaemonSet"}
    assert forbidden & {manifest["kind"] for manifest in manifests} == set()
    types = {service["spec"].get("type", "ClusterIP") for service in of_kind(manifests, "Service")}
    assert types == {"ClusterIP"}


def test_the_quota_holds_everything_at_its_largest(manifests: Manifests) -> None:
    (quota,) = of_kind(manifests, "ResourceQuota")
    (limits,) = of_kind(manifests, "LimitRange")
    rules = {rule["type"]: rule for rule in limits["spec"]["limits"]}
    total = most_amounts(manifests, rules["Container"])
    assert beyond(total, quota["spec"]["hard"]) == []
    most = rules["Container"]["max"]
    for workload in of_kind(manifests, *SERVERS):
        for container in containers(pod_spec(workload)):
            asked = container["resources"]["limits"]["memory"]
            assert amount(asked) <= amount(most["memory"]), label(workload)
    for claim in of_kind(manifests, "PersistentVolumeClaim"):
        storage = claim["spec"]["resources"]["requests"]["storage"]
        assert amount(storage) <= amount(rules["PersistentVolumeClaim"]["max"]["storage"])


def test_there_is_room_for_the_papers_training() -> None:
    """Beside all services at their largest: the largest stage of the paper profile."""
    manifests = rendered("gpu")
    (quota,) = of_kind(manifests, "ResourceQuota")
    total = most_amounts(manifests)
    paper = load_settings(ROOT / "profiles/paper.yaml").cluster
    largest = max(paper.stages.values(), key=lambda stage: stage.pods * stage.gpus)
    gpus = total["requests.nvidia.com/gpu"] + largest.pods * largest.gpus
    assert gpus <= amount(quota["spec"]["hard"]["requests.nvidia.com/gpu"])


def test_services_find_their_pods(manifests: Manifests) -> None:
    for service in of_kind(manifests, "Service"):
        wanted = service["spec"]["selector"].items()
        found = [
            workload
            for workload in of_kind(manifests, *SERVERS)
            if wanted <= workload["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert len(found) == 1, label(service)
        ports = {p["name"] for c in pod_spec(found[0])["containers"] for p in c.get("ports", ())}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_what_scales_has_no_fixed_number_and_may_be_disturbed(manifests: Manifests) -> None:
    """A number of replicas in the manifest would undo the autoscaler's at each apply."""
    scalers = of_kind(manifests, "HorizontalPodAutoscaler")
    assert {"serve", "generator"} <= {scaler["metadata"]["name"] for scaler in scalers}
    for scaler in scalers:
        name = scaler["spec"]["scaleTargetRef"]["name"]
        workload = named(manifests, "Deployment", name)
        assert workload is not None and "replicas" not in workload["spec"]
        budget = named(manifests, "PodDisruptionBudget", name)
        assert budget is not None
        assert budget["spec"]["selector"] == workload["spec"]["selector"]
        # A budget that a single replica can never keep would block every drain of a node.
        least = scaler["spec"]["minReplicas"]
        assert "maxUnavailable" in budget["spec"] or budget["spec"]["minAvailable"] < least


def test_serving_is_updated_without_a_lost_request(manifests: Manifests) -> None:
    serve = named(manifests, "Deployment", "serve")
    assert serve is not None
    assert serve["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    (container,) = pod_spec(serve)["containers"]
    first = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    for params in (ROOT / "params.yaml", ROOT / "profiles/paper.yaml"):
        drain = load_settings(params).serving.drain_seconds
        assert first + drain + 5 < pod_spec(serve)["terminationGracePeriodSeconds"]


def test_our_images_are_this_version(manifests: Manifests) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {
        container["image"]
        for workload in of_kind(manifests, *SERVERS)
        for container in containers(pod_spec(workload))
    }
    ours = {image for image in images if re.match(r"interloom\b", image)}
    assert ours and ours <= {f"interloom:{version}-cpu", f"interloom:{version}-cuda"}


def test_the_gpu_overlay_asks_for_cards_where_models_are() -> None:

    cards = {
        workload["metadata"]["name"]: pod_amounts(pod_spec(workload)).get("requests.nvidia.com/gpu")
        for workload in of_kind(rendered("gpu"), "Deployment")
    }
    assert {name for name, number in cards.items() if number} == {"serve", "generator", "judge"}


@pytest.mark.parametrize("overlay", ["local", "gpu"])
def test_commands_are_those_of_the_command_line(overlay: str) -> None:
    lines = [
        " ".join([*container["command"], *container.get("args", ())]).replace("=", " ")
        for workload in of_kind(rendered(overlay), "Deployment")
        for container in pod_spec(workload)["containers"]
        if container.get("command", ("",))[0] == "interloom"
    ]
    assert len(lines) == 2
    assert wrong_commands("".join(f"`{line}`\n" for line in lines)) == []


def test_every_file_of_k8s_is_used() -> None:
    """A manifest that no kustomization names would look applied and not be."""
    for folder in (ROOT / "k8s/base", *sorted((ROOT / "k8s/overlays").iterdir())):
        content = yaml.safe_load((folder / "kustomization.yaml").read_text())
        named_files = {
            *content["resources"],
            *(patch["path"] for patch in content.get("patches", ()) if "path" in patch),
        }
        here = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
        assert here <= named_files, folder


# ------------------------------------------------------------------------- the rules find faults


def good_pod() -> dict[str, Any]:

    workload = named(rendered("local"), "Deployment", "serve")
    assert workload is not None
    return deepcopy(dict(pod_spec(workload)))


def complaints(pod: dict[str, Any]) -> list[str]:
    return [complaint for rule in (*EVERY_POD, probed) for complaint in rule(pod)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pod, one: pod.update(hostNetwork=True), "hostNetwork is set"),
        (lambda pod, one: pod["volumes"].append({"name": "h", "hostPath": {}}), "is a hostPath"),
        (lambda pod, one: one["securityContext"].update(privileged=True), "serve is privileged"),
        (lambda pod, one: one["securityContext"].pop("capabilities"), "keeps capabilities"),
        (lambda pod, one: one["securityContext"].update(runAsNonRoot=False), "may run as root"),
        (lambda pod, one: pod["securityContext"].pop("seccompProfile"), "no seccomp profile"),
        (lambda pod, one: one.update(securityContext={}), "may write to its image"),
        (lambda pod, one: one["resources"]["limits"].pop("memory"), "no limits.memory"),
        (lambda pod, one: one.update(image="interloom"), "may be another image"),
        (lambda pod, one: one.update(image="interloom:latest"), "may be another image"),
        (lambda pod, one: one.update(image="a:5000/interloom"), "may be another image"),
        (lambda pod, one: one.pop("readinessProbe"), "no readinessProbe"),
        (
            lambda pod, one: one["env"].append({"name": "DB_PASSWORD", "value": "x"}),
            "DB_PASSWORD in the open",
        ),
        (lambda pod, one: one["args"].append("--uri=postgresql://a:b@c/d"), "has a password in"),
        (lambda pod, one: one["args"].append("--api-key=abc"), "has a secret in"),
        (lambda pod, one: pod.update(serviceAccountName="default"), "everybody's"),
        (lambda pod, one: pod.pop("enableServiceLinks"), "environment variables"),
        (lambda pod, one: pod["volumes"][-1].update(emptyDir={}), "may fill the node"),
    ],
)
def test_the_rules_find_faults(change: Any, said: str) -> None:
    pod = good_pod()
    assert complaints(pod) == []
    change(pod, pod["containers"][0])
    assert any(said in complaint for complaint in complaints(pod))
