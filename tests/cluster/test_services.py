"""Model servers that a stage needs, with a web server in their place."""

from __future__ import annotations

from typing import Any

import yaml
from kube_project import SPACE, OnCluster
from tiny_project.project import wait_for

SERVER = ["python3", "-m", "http.server"]


def server(**changes: Any) -> dict[str, Any]:
    return {
        "remote": "http", "shared": False, "image": "", "port": 8100, "keys_secret": "",
        "command": [*SERVER, "8100"], "health": "/", "replicas": 1,
        "max_replicas": 1, "busy_percent": 80, "gpus": 0, "cpu": "100m", "memory": "1Gi",
        "disk": "1Gi", **changes,
    }  # fmt: skip


def test_a_server_of_the_runs_own(on_cluster: OnCluster) -> None:
    store = on_cluster.kube.store
    own = server(max_replicas=3, keys_secret="keys")
    on_cluster.kube.create("secrets", SPACE, {"metadata": {"name": "keys"}, "data": {}})
    on_cluster.set(needs=("drawing",), services={"drawing": own}, start_minutes=2.0)
    on_cluster.hold()
    process = on_cluster.start()
    on_cluster.wait_for_squares()
    [job] = on_cluster.jobs()
    name = job["metadata"]["name"] + "-drawing"
    [deployment] = store.all("deployments", SPACE)
    assert deployment["metadata"]["name"] == name
    assert deployment["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    assert deployment["status"]["readyReplicas"] == 1
    [scaler] = store.all("horizontalpodautoscalers", SPACE)
    assert (scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]) == (1, 3)
    [config] = store.all("configmaps", SPACE)
    params = yaml.safe_load(config["data"]["params.yaml"])
    assert params["remote"]["http"]["base_urls"] == [f"http://{name}:8100"]
    on_cluster.hold(False)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert f"the server {name} is ready (1 replica(s))" in out
    wait_for(lambda: not store.all("deployments", SPACE))


def test_shared_servers_must_stand_and_be_ready(on_cluster: OnCluster) -> None:
    on_cluster.set(needs=("judge",), services={"judge": server(shared=True)}, start_minutes=0.03)
    failed = on_cluster.run(check=False)
    assert "the stage needs the server judge, and namespace interloom has no such" in failed.stderr
    assert on_cluster.jobs() == []
    labels = {"app": "judge"}
    container = {"name": "judge", "image": "missing:1"}
    on_cluster.kube.create("deployments", SPACE, {
        "metadata": {"name": "judge"},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}}},
    })  # fmt: skip
    failed = on_cluster.run(check=False)
    said = "the server judge has 0 of 2 replicas ready after cluster.start_minutes = 0.03: judge-"
    assert said in failed.stderr
    assert "gets no image missing:1 (ImagePullBackOff)" in failed.stderr
    assert all(pod["metadata"]["labels"]["app"] == "judge" for pod in on_cluster.pods())
    assert on_cluster.jobs() == [], "the stage has not begun"


def test_generator_judge_and_rollouts_of_a_run(on_cluster: OnCluster) -> None:
    """All three are ready before the stage begins, and each is told to whom it is for."""
    servers = {
        "drawing": server(),
        "judge": server(remote="openai", port=8101, command=[*SERVER, "8101"]),
        "sampler": server(remote="rollouts", port=8102, command=[*SERVER, "8102"]),
    }
    on_cluster.set(needs=tuple(servers), services=servers, start_minutes=2.0)
    on_cluster.hold()
    process = on_cluster.start()
    on_cluster.wait_for_squares()
    [job] = on_cluster.jobs()
    name = job["metadata"]["name"]
    deployments = on_cluster.kube.store.all("deployments", SPACE)
    assert {item["metadata"]["name"] for item in deployments} == {
        f"{name}-{key}" for key in servers
    }
    assert {item["status"]["readyReplicas"] for item in deployments} == {1}
    parts = {
        item["metadata"]["name"].removeprefix(f"{name}-"):
        item["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
        for item in deployments
    }  # fmt: skip
    assert parts == {"drawing": "service", "judge": "service", "sampler": "rollouts"}
    [config] = on_cluster.kube.store.all("configmaps", SPACE)
    remote = yaml.safe_load(config["data"]["params.yaml"])["remote"]
    assert remote["http"]["base_urls"] == [f"http://{name}-drawing:8100"]
    assert remote["openai"]["base_urls"] == [f"http://{name}-judge:8101/v1"]
    [container] = job["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert env["INTERLOOM_ROLLOUTS_URL"] == f"http://{name}-sampler:8102"
    on_cluster.hold(False)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    wait_for(lambda: not on_cluster.kube.store.all("deployments", SPACE))
