"""The roles: what is granted is what the code asks for, no more and no less."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from kube_project import SPACE, OnCluster
from kube_server.kinds import kind_named
from manifests import ROOT, give_account, grants, rendered, used
from tiny_project.project import wait_for

from interloom.cluster.rendered import named, of_kind, pod_spec
from interloom.settings.file import load_settings

FLOW = f"system:serviceaccount:{SPACE}:interloom-flow"
STAGE = "interloom-stage"


def test_only_two_accounts_may_do_anything() -> None:
    for overlay in ("local", "gpu"):
        bindings = of_kind(rendered(overlay), "RoleBinding")
        bound = {subject["name"] for binding in bindings for subject in binding["subjects"]}
        assert bound == {"interloom-flow", "prefect-worker"}
        assert {binding["roleRef"]["kind"] for binding in bindings} == {"Role"}
        for workload in of_kind(rendered(overlay), "Deployment", "StatefulSet"):
            pod = pod_spec(workload)
            has_token = pod["automountServiceAccountToken"]
            assert has_token == (pod["serviceAccountName"] in bound)


def test_no_role_has_a_star_or_secrets() -> None:
    for role in of_kind(rendered("gpu"), "Role"):
        for rule in role["rules"]:
            words = {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}
            assert not words & {"*", "secrets", "pods/exec", "roles", "escalate", "impersonate"}


@pytest.fixture
def as_flow(on_cluster: OnCluster) -> OnCluster:
    """The tiny project, whose executor has the account of a flow's pod."""
    give_account(on_cluster.kube, SPACE, "interloom-flow")
    config = on_cluster.kube.kubeconfig(FLOW, SPACE)
    on_cluster.project.env = on_cluster.project.env | {"KUBECONFIG": str(config)}
    return on_cluster


def test_the_executor_uses_exactly_the_flows_role(as_flow: OnCluster) -> None:
    """A caller that is killed while the run's own server starts, its successor, and a cancel."""
    store = as_flow.kube.store
    own: dict[str, Any] = {
        "remote": "http", "shared": False, "image": "", "port": 8100, "keys_secret": "",
        "command": ["python3", "-m", "http.server", "8100"], "health": "/", "replicas": 1,
        "max_replicas": 2, "busy_percent": 80, "gpus": 0, "cpu": "100m", "memory": "1Gi",
        "disk": "1Gi",
    }  # fmt: skip
    as_flow.set(needs=("drawing",), services={"drawing": own | {"health": "/absent"}},
                start_minutes=2.0, pods=2)  # fmt: skip
    first = as_flow.start()
    wait_for(lambda: bool(store.all("horizontalpodautoscalers", SPACE)), seconds=60)
    first.send_signal(signal.SIGKILL)
    first.wait()
    as_flow.set(needs=("drawing",), services={"drawing": own}, start_minutes=2.0, pods=2)
    [deployment] = store.all("deployments", SPACE)

    second = as_flow.start()
    wait_for(lambda: ("get", "horizontalpodautoscalers") in used(as_flow.kube.asked, FLOW), 60)
    second.terminate()
    second.communicate(timeout=90)
    wait_for(lambda: as_flow.jobs() == [], seconds=30)

    as_flow.set()
    as_flow.run()
    assert used(as_flow.kube.asked, FLOW) == grants("interloom-flow")
    assert deployment["metadata"]["name"].endswith("-drawing")


@pytest.mark.parametrize(
    "missing",
    [
        ("create", "jobs"), ("patch", "jobs"), ("create", "configmaps"), ("watch", "pods"),
        ("list", "events"), ("get", "pods/log"),
    ],
)  # fmt: skip
def test_without_a_verb_the_executor_says_which(
    as_flow: OnCluster, missing: tuple[str, str]
) -> None:
    verb, resource = missing

    def change(item: dict[str, Any]) -> None:
        for rule in item["rules"]:
            if resource in rule["resources"]:
                rule["verbs"] = [word for word in rule["verbs"] if word != verb]

    as_flow.kube.store.update(kind_named("roles"), SPACE, "interloom-flow", change)
    failed = as_flow.run(check=False)
    assert f"may not {verb} {resource.partition('/')[0]}" in failed.stderr + failed.stdout


def test_the_stages_account_is_the_one_of_the_params() -> None:
    for path in (ROOT / "params.yaml", ROOT / "profiles/paper.yaml"):
        cluster = load_settings(path).cluster
        assert named(rendered("gpu"), "ServiceAccount", cluster.service_account) is not None
        claim = cluster.data.claim
        assert not claim or named(rendered("gpu"), "PersistentVolumeClaim", claim) is not None
        assert cluster.service_account == STAGE
        for name, service in cluster.services.items():
            if service.shared:
                assert named(rendered("gpu"), "Deployment", name) is not None
                port = named(rendered("gpu"), "Service", name)
                assert port is not None and port["spec"]["ports"][0]["port"] == service.port
