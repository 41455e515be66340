"""The test server does what the Kubernetes documentation says, seen through the real client."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from kube_server.server import KubeServer
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from tiny_project.project import wait_for

SPACE = "interloom"


@pytest.fixture
def cluster(kube: KubeServer) -> KubeServer:
    kube.images["shell:1"] = {}
    return kube


def api_of(cluster: KubeServer, user: str = "admin") -> client.ApiClient:
    return config.new_client_from_config(str(cluster.kubeconfig(user, SPACE)))


def job(name: str, script: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "shell:1", "command": ["/bin/sh", "-c", script]}
    pod = {"restartPolicy": "Never", "containers": [container], "terminationGracePeriodSeconds": 2}
    return {"metadata": {"name": name}, "spec": {"template": {"spec": pod}, **spec}}


def ended(cluster: KubeServer, name: str) -> dict[str, Any]:
    """The condition that a Job ended with."""
    found: dict[str, Any] = {}

    def done() -> bool:
        item = cluster.store.find("jobs", SPACE, name)
        assert item is not None
        for condition in item.get("status", {}).get("conditions", []):
            if condition["type"] in ("Complete", "Failed"):
                found.update(condition)
        return bool(found)

    wait_for(done, every=0.05)
    return found


def test_a_job_runs_and_its_log_is_read(cluster: KubeServer) -> None:
    api = api_of(cluster)
    client.BatchV1Api(api).create_namespaced_job(
        SPACE, job("hello", "echo one; sleep 0.3; echo two")
    )
    wait_for(lambda: cluster.store.all("pods", SPACE), every=0.02)
    pod = client.CoreV1Api(api).list_namespaced_pod(SPACE).items[0]
    wait_for(lambda: cluster.log(cluster.store.all("pods", SPACE)[0], "main"), every=0.02)
    answer = client.CoreV1Api(api).read_namespaced_pod_log(
        pod.metadata.name, SPACE, follow=True, _preload_content=False
    )
    assert b"".join(answer.stream()).split() == [b"one", b"two"]
    assert ended(cluster, "hello")["type"] == "Complete"


def test_indexed_pods_know_their_index(cluster: KubeServer) -> None:
    wanted = job("many", "echo i=$JOB_COMPLETION_INDEX $HOSTNAME", completionMode="Indexed",
                 completions=2, parallelism=2)  # fmt: skip
    client.BatchV1Api(api_of(cluster)).create_namespaced_job(SPACE, wanted)
    ended(cluster, "many")
    logs = sorted(cluster.log(pod, "main") for pod in cluster.store.all("pods", SPACE))
    assert logs == ["i=0 many-0", "i=1 many-1"]


def test_failure_policy(cluster: KubeServer) -> None:
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2]}},
    ]
    jobs = client.BatchV1Api(api_of(cluster))
    policy = {"backoffLimit": 1, "podFailurePolicy": {"rules": rules}}
    jobs.create_namespaced_job(SPACE, job("refused", "exit 2", **policy))
    assert ended(cluster, "refused")["reason"] == "PodFailurePolicy"
    jobs.create_namespaced_job(SPACE, job("crashes", "exit 1", **policy))
    assert ended(cluster, "crashes")["reason"] == "BackoffLimitExceeded"
    assert len(cluster.store.all("pods", SPACE, "job-name=crashes")) == 2
    jobs.create_namespaced_job(SPACE, job("evicted", "sleep 1", **policy))

    def running() -> list[str]:
        return [
            pod["metadata"]["name"]
            for pod in cluster.store.all("pods", SPACE, "job-name=evicted")
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]

    for _ in range(3):
        wait_for(running, every=0.02)
        cluster.evict(running()[0], SPACE)
    assert ended(cluster, "evicted")["type"] == "Complete"


def test_foreground_deletion_waits_for_the_pods(cluster: KubeServer) -> None:
    jobs = client.BatchV1Api(api_of(cluster))
    script = "trap 'sleep 0.5; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    jobs.create_namespaced_job(SPACE, job("long", script))
    wait_for(lambda: [p for p in cluster.store.all("pods", SPACE) if cluster.log(p, "main")])
    jobs.delete_namespaced_job("long", SPACE, propagation_policy="Foreground")
    assert jobs.read_namespaced_job("long", SPACE).metadata.deletion_timestamp is not None
    wait_for(lambda: cluster.store.find("jobs", SPACE, "long") is None)
    assert cluster.store.all("pods", SPACE) == []


def test_what_does_not_block_outlives_its_owner(cluster: KubeServer) -> None:
    """Of a Job deleted in the foreground: pods go before it, a ConfigMap after it."""
    jobs, core = client.BatchV1Api(api_of(cluster)), client.CoreV1Api(api_of(cluster))
    made = jobs.create_namespaced_job(SPACE, job("owner", "sleep 60"))
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "owner", "uid": made.metadata.uid}
    core.create_namespaced_config_map(
        SPACE, {"metadata": {"name": "late", "ownerReferences": [owner]}}
    )
    wait_for(lambda: cluster.store.all("pods", SPACE))
    cluster.collect_seconds = 1.0
    jobs.delete_namespaced_job("owner", SPACE, propagation_policy="Foreground")
    wait_for(lambda: cluster.store.find("jobs", SPACE, "owner") is None)
    assert cluster.store.all("pods", SPACE) == []
    assert cluster.store.find("configmaps", SPACE, "late") is not None
    wait_for(lambda: cluster.store.find("configmaps", SPACE, "late") is None)


def test_watch_bookmarks_and_410(cluster: KubeServer) -> None:
    core = client.CoreV1Api(api_of(cluster))
    first = core.list_namespaced_config_map(SPACE).metadata.resource_version
    core.create_namespaced_config_map(SPACE, {"metadata": {"name": "a"}})
    seen = []
    for event in watch.Watch().stream(
        core.list_namespaced_config_map, SPACE, resource_version=first, timeout_seconds=2,
        allow_watch_bookmarks=True,
    ):  # fmt: skip
        seen.append(event["type"])
    assert seen[0] == "ADDED"
    assert "BOOKMARK" in seen
    cluster.store.compact()
    with pytest.raises(ApiException) as gone:
        list(watch.Watch().stream(core.list_namespaced_config_map, SPACE, resource_version=first,
                                  timeout_seconds=2))  # fmt: skip
    assert gone.value.status == 410


def test_rights_quota_and_dry_run(cluster: KubeServer) -> None:
    rules = [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}]
    cluster.create("roles", SPACE, {"metadata": {"name": "r"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "worker", "namespace": SPACE}
    cluster.create("rolebindings", SPACE, {"metadata": {"name": "r"}, "subjects": [subject],
                                           "roleRef": {"kind": "Role", "name": "r"}})  # fmt: skip
    api = api_of(cluster, f"system:serviceaccount:{SPACE}:worker")
    with pytest.raises(ApiException) as refused:
        client.CoreV1Api(api).list_namespaced_pod(SPACE)
    assert refused.value.status == 403
    assert 'cannot list resource "pods"' in json.loads(refused.value.body)["message"]
    for verb, expected in (("create", True), ("delete", False)):
        wanted = {"verb": verb, "group": "batch", "resource": "jobs", "namespace": SPACE}
        answer = client.AuthorizationV1Api(api).create_self_subject_access_review(
            {"spec": {"resourceAttributes": wanted}}
        )
        assert answer.status.allowed is expected
    jobs = client.BatchV1Api(api)
    jobs.create_namespaced_job(SPACE, job("dry", "true"), dry_run="All")
    assert cluster.store.find("jobs", SPACE, "dry") is None
    hard = {"hard": {"count/jobs.batch": "0"}}
    cluster.create("resourcequotas", SPACE, {"metadata": {"name": "q"}, "spec": hard})
    with pytest.raises(ApiException) as full:
        jobs.create_namespaced_job(SPACE, job("one", "true"), dry_run="All")
    assert "exceeded quota: q, requested: count/jobs.batch=1" in full.value.body


def test_memory_above_the_limit_is_killed(cluster: KubeServer) -> None:
    wanted = job("fat", "python3 -c 'x = bytearray(300_000_000); import time; time.sleep(9)'",
                 backoffLimit=0)  # fmt: skip
    container = wanted["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"limits": {"memory": "100Mi"}}
    client.BatchV1Api(api_of(cluster)).create_namespaced_job(SPACE, wanted)
    ended(cluster, "fat")
    status = cluster.store.all("pods", SPACE)[0]["status"]["containerStatuses"][0]
    assert status["state"]["terminated"]["reason"] == "OOMKilled"
    assert status["state"]["terminated"]["exitCode"] == 137


def test_outage_on_the_same_port(cluster: KubeServer) -> None:
    core = client.CoreV1Api(api_of(cluster))
    core.list_namespaced_pod(SPACE)
    cluster.refuse()
    import urllib3

    with pytest.raises(urllib3.exceptions.HTTPError):
        core.list_namespaced_pod(SPACE, _request_timeout=2)
    threading.Timer(0.3, cluster.listen).start()
    time.sleep(0.6)
    core.list_namespaced_pod(SPACE)


def test_deployment_behind_a_service(cluster: KubeServer) -> None:
    """Two replicas of a web server, ready by their probe, reached by the Service's name."""
    labels = {"app": "web"}
    probe = {"httpGet": {"path": "/", "port": 8000}}
    container = {
        "name": "web", "image": "shell:1", "ports": [{"containerPort": 8000}],
        "command": ["python3", "-m", "http.server", "8000"], "readinessProbe": probe,
    }  # fmt: skip
    pod = {"containers": [container]}
    api = api_of(cluster)
    client.AppsV1Api(api).create_namespaced_deployment(
        SPACE,
        {
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
    )
    service = {"selector": labels, "ports": [{"port": 80, "targetPort": 8000}]}
    client.CoreV1Api(api).create_namespaced_service(SPACE, {"metadata": {"name": "web"},
                                                            "spec": service})  # fmt: skip

    def ready() -> bool:
        read = client.AppsV1Api(api).read_namespaced_deployment("web", SPACE)
        return read.status.ready_replicas == 2

    wait_for(ready)
    fetch = "import urllib.request as u; print(u.urlopen('http://web:80/').status)"
    wanted = job("visit", "true")
    wanted["spec"]["template"]["spec"]["containers"][0]["command"] = ["python3", "-c", fetch]
    client.BatchV1Api(api).create_namespaced_job(SPACE, wanted)
    assert ended(cluster, "visit")["type"] == "Complete"
