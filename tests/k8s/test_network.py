"""Who can reach whom: the policies as a table, worked out as Kubernetes does."""

from __future__ import annotations

from typing import Any

import pytest
from manifests import rendered

from interloom.cluster.rendered import of_kind, pod_spec

COMPONENT = "app.kubernetes.io/component"
PORTS = {"postgres": 5432, "mlflow": 5000, "prefect-server": 4200, "generator": 8100, "serve": 8000,
         "judge": 8000, "service": 9000, "rollouts": 9000}  # fmt: skip
"""``service`` and ``rollouts`` are model servers of a run's own, which may have any port."""
CLIENTS = ("prefect-worker", "flow", "stage")

LOCAL = {
    ("mlflow", "postgres"), ("prefect-server", "postgres"),
    ("flow", "mlflow"), ("stage", "mlflow"), ("serve", "mlflow"),
    ("flow", "prefect-server"), ("prefect-worker", "prefect-server"),
    ("stage", "generator"), ("stage", "service"), ("stage", "rollouts"),
}  # fmt: skip
FLOWS = {"local": LOCAL, "gpu": LOCAL | {("stage", "judge")}}
"""The named flows: who opens a connection to which server."""


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """A label selector, of the operators that the policies use."""
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for rule in selector.get("matchExpressions", ()):
        assert rule["operator"] == "In"
        if labels.get(rule["key"]) not in rule["values"]:
            return False
    return True


def opens(policies: list[Any], own: str, other: str, port: int, side: str) -> bool:
    """Whether any policy lets pods ``own`` have a connection with pods ``other``, on one side."""
    end = {"ingress": "from", "egress": "to"}[side]
    for policy in policies:
        if not matches(policy["spec"]["podSelector"], {COMPONENT: own}):
            continue
        for rule in policy["spec"].get(side, ()):
            ports = [entry["port"] for entry in rule.get("ports", ())]
            if ports and port not in ports:
                continue
            peers = rule.get(end)
            if peers is None or any(
                "namespaceSelector" not in peer
                and "podSelector" in peer
                and matches(peer["podSelector"], {COMPONENT: other})
                for peer in peers
            ):
                return True
    return False


@pytest.mark.parametrize("overlay", ["local", "gpu"])
def test_exactly_the_named_flows_are_open(overlay: str) -> None:
    manifests = rendered(overlay)
    policies = of_kind(manifests, "NetworkPolicy")
    pods = {
        workload["spec"]["template"]["metadata"]["labels"][COMPONENT]
        for workload in of_kind(manifests, "Deployment", "StatefulSet")
    } | {*CLIENTS, "service", "rollouts"}
    found = {
        (source, target)
        for source in pods
        for target in pods & set(PORTS)
        if opens(policies, source, target, PORTS[target], "egress")
        and opens(policies, target, source, PORTS[target], "ingress")
    }
    assert found == FLOWS[overlay]


@pytest.mark.parametrize("overlay", ["local", "gpu"])
def test_ports_of_the_flows_are_those_of_the_servers(overlay: str) -> None:
    for service in of_kind(rendered(overlay), "Service"):
        (port,) = service["spec"]["ports"]
        assert port["port"] == PORTS[service["metadata"]["name"]]
    for workload in of_kind(rendered(overlay), "Deployment", "StatefulSet"):
        name = workload["metadata"]["name"]
        for container in pod_spec(workload)["containers"]:
            own = [entry["containerPort"] for entry in container.get("ports", ())]
            assert name not in PORTS or own == [PORTS[name]]


@pytest.mark.parametrize("overlay", ["local", "gpu"])
def test_everything_else_is_denied(overlay: str) -> None:
    policies = of_kind(rendered(overlay), "NetworkPolicy")
    deny = [p for p in policies if p["spec"]["podSelector"] == {} and "egress" not in p["spec"]]
    assert [p["spec"]["policyTypes"] for p in deny] == [["Ingress", "Egress"]]


def test_pods_of_one_training_reach_each_other_on_any_port() -> None:
    policies = of_kind(rendered("gpu"), "NetworkPolicy")
    for side in ("ingress", "egress"):
        assert opens(policies, "stage", "stage", 29500, side)
        assert opens(policies, "stage", "stage", 40001, side)
    assert not opens(policies, "stage", "serve", 29500, "egress")


@pytest.mark.parametrize("overlay", ["local", "gpu"])
def test_servers_for_rollouts_alone_may_connect_to_a_stage(overlay: str) -> None:
    """They are given the policy's weights by a group that the trainer leads (TRL, NCCL)."""
    policies = of_kind(rendered(overlay), "NetworkPolicy")
    ways = {
        source
        for source in (*PORTS, *CLIENTS)
        if opens(policies, source, "stage", 51216, "egress")
        and opens(policies, "stage", source, 51216, "ingress")
    }
    assert ways == {"stage", "rollouts"}


def outward(overlay: str) -> dict[str, list[dict[str, Any]]]:
    """Rules that lead out of the cluster, by the component that has them."""
    found: dict[str, list[dict[str, Any]]] = {}
    policies = of_kind(rendered(overlay), "NetworkPolicy")
    for component in (*PORTS, *CLIENTS):
        for policy in policies:
            if matches(policy["spec"]["podSelector"], {COMPONENT: component}):
                for rule in policy["spec"].get("egress", ()):
                    if "to" not in rule or any("ipBlock" in peer for peer in rule["to"]):
                        found.setdefault(component, []).append(rule)
    return found


def test_in_the_local_overlay_only_the_kubernetes_api_is_outside() -> None:
    found = outward("local")
    assert set(found) == {"flow", "prefect-worker"}
    for rules in found.values():
        assert [{entry["port"] for entry in rule["ports"]} for rule in rules] == [{443, 6443}]


def test_the_internet_is_https_and_never_the_metadata_service() -> None:
    found = outward("gpu")
    models = ("stage", "service", "rollouts", "generator", "judge")
    assert set(found) == {*models, "flow", "prefect-worker"}
    for component in models:
        (rule,) = found[component]
        assert [entry["port"] for entry in rule["ports"]] == [443]
        (peer,) = rule["to"]
        assert "169.254.0.0/16" in peer["ipBlock"]["except"]
        assert "10.0.0.0/8" in peer["ipBlock"]["except"]


def test_the_executors_pods_are_known_to_the_policies() -> None:
    from interloom.cluster.names import PART, Origin, labels
    from interloom.cluster.services import PART as SERVICE
    from interloom.cluster.services import ROLLOUTS

    assert PART == COMPONENT
    assert labels("sft-critic", Origin("", ""))[PART] == "stage"
    assert (SERVICE, ROLLOUTS) == ("service", "rollouts")


def test_users_and_scrapers_come_from_labelled_namespaces() -> None:
    ways = {
        policy["metadata"]["name"]: [
            peer["namespaceSelector"]["matchLabels"]
            for rule in policy["spec"].get("ingress", ())
            for peer in rule["from"]
            if "namespaceSelector" in peer
        ]
        for policy in of_kind(rendered("gpu"), "NetworkPolicy")
    }
    assert {name: found for name, found in ways.items() if found} == {
        "serve-from-ingress": [{"interloom/way-in": "true"}],
        "metrics-from-monitoring": [{"interloom/monitoring": "true"}],
    }
