"""Prefect on the cluster, as a whole: the worker of the manifests, with its own role alone."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from flows_server import ask, stage_of
from kube_server.server import KubeServer, interloom_image
from manifests import ROOT, give_account, grants, rendered, used
from tiny_project.project import HERE, Project, free_port, kill_group, wait_for

from interloom.cluster.rendered import named

NAMESPACE = "interloom"
WORKER = f"system:serviceaccount:{NAMESPACE}:prefect-worker"
IMAGE = "interloom:0.1.0-cpu"


KILL = """
import asyncio, sys
from prefect_kubernetes.worker import (
    KubernetesWorker, KubernetesWorkerJobConfiguration, _get_base_job_manifest)
worker = KubernetesWorker(work_pool_name="interloom-cluster")
configuration = KubernetesWorkerJobConfiguration(job_manifest=_get_base_job_manifest())
asyncio.run(worker.kill_infrastructure(sys.argv[1], configuration))
"""


def config_of(cluster: KubeServer) -> Path:
    """The worker's way to the API server."""
    return cluster.kubeconfig(WORKER, NAMESPACE)


@contextmanager
def worker_of(project: Project, cluster: KubeServer, prefect: dict[str, str]) -> Iterator[None]:
    """The worker as its Deployment starts it."""
    deployment = named(rendered("local"), "Deployment", "prefect-worker")
    assert deployment is not None
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    words = [*container["command"], *container["args"]]
    template = str(ROOT / "k8s/base/files/job-template.json")
    words = [word.replace("/etc/interloom/job-template.json", template) for word in words]
    log = project.root.parent / "worker.log"
    own = {"PREFECT_API_URL", "PREFECT_HOME", "PREFECT_WORKER_WEBSERVER_HOST"}
    said = {
        entry["name"]: entry["value"]
        for entry in container["env"]
        if entry["name"].startswith("PREFECT_") and "value" in entry and entry["name"] not in own
    }
    worker = project.start(
        *("sh", "-c", f'exec "$@" > {log} 2>&1', "sh", *words),
        **{
            **said,
            **prefect,
            "KUBECONFIG": str(config_of(cluster)),
            "PREFECT_INTEGRATIONS_KUBERNETES_OBSERVER_NAMESPACES": NAMESPACE,
            "PREFECT_WORKER_WEBSERVER_PORT": str(free_port()),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
        },
    )
    try:
        yield
    finally:
        kill_group(worker)
        print(log.read_text(encoding="utf-8")[-6000:])  # shown if the test fails


def pools(server: dict[str, str]) -> list[str]:
    """Names of the work pools there are."""
    return [pool.name for pool in ask(server, lambda client: client.read_work_pools())]


@pytest.fixture
def cluster(project: Project, tmp_path: Path) -> Iterator[KubeServer]:
    """A cluster with the project on its volume."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    with KubeServer(folder) as made:
        made.namespace(NAMESPACE)
        give_account(made, NAMESPACE, "prefect-worker")
        made.images[IMAGE] = interloom_image(HERE)
        made.claims["interloom-project"] = project.root
        claim = {"metadata": {"name": "interloom-project"}}
        made.create("persistentvolumeclaims", NAMESPACE, claim)
        made.create("secrets", NAMESPACE, {"metadata": {"name": "interloom-stage"}, "data": {}})
        yield made


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_flows_run_in_pods_with_exactly_the_workers_role(
    project: Project, cluster: KubeServer, prefect_server_env: dict[str, str]
) -> None:
    from prefect.states import Cancelling

    server = prefect_server_env
    text = (ROOT / "prefect.yaml").read_text(encoding="utf-8")
    text = text.replace("flows/lifecycle.py:lifecycle", "tiny_flow.py:tiny")
    # The pull step's words reach the pod through Prefect, so no one makes them fit.
    (project.root / "prefect.yaml").write_text(
        text.replace("directory: /project", f"directory: {project.root}")
    )
    shutil.copy(HERE / "tiny_flow.py", project.root)

    def run(**variables: Any) -> Any:
        deployment = ask(server, lambda c: c.read_deployment_by_name("tiny/cluster-nightly"))
        return ask(
            server,
            lambda c: c.create_flow_run_from_deployment(deployment.id, job_variables=variables),
        ).id

    def state(identity: Any) -> str:
        return ask(server, lambda client: client.read_flow_run(identity)).state_name

    def jobs() -> list[dict[str, Any]]:
        return cluster.store.all("jobs", NAMESPACE)

    with worker_of(project, cluster, server):
        wait_for(lambda: "interloom-cluster" in pools(server), seconds=120, every=1)
        project.run("prefect", "--no-prompt", "deploy", "--name", "cluster-nightly", **server)

        whole = run()
        wait_for(lambda: state(whole) == "Completed", seconds=240, every=1)
        assert len(project.outputs()) == 6
        (job,) = jobs()
        wait_for(lambda: cluster.store.all("jobs", NAMESPACE)[0]["status"].get("succeeded") == 1)
        assert job["metadata"]["labels"]["prefect.io/flow-run-id"] == str(whole)

        # A run whose container dies at once: its words are fetched from the pod.
        broken = run(command="python -c \"print('no such thing'); raise SystemExit(3)\"")
        wait_for(lambda: state(broken) == "Crashed", seconds=120, every=1)

        # A run whose Job is deleted before it reports, by Prefect's own code for a cancelled one.
        lost = run(command="sleep 600")
        wait_for(lambda: len(jobs()) == 3, seconds=60, every=0.5)
        (name,) = [
            job["metadata"]["name"]
            for job in jobs()
            if job["metadata"]["labels"]["prefect.io/flow-run-id"] == str(lost)
        ]
        time.sleep(5)  # until the worker's observer has seen it
        config = str(config_of(cluster))
        project.run("python", "-c", KILL, f"{NAMESPACE}:{name}", KUBECONFIG=config)
        wait_for(lambda: state(lost) == "Crashed", seconds=120, every=1)
        assert len(jobs()) == 2

        # A run that is cancelled at work ends in its pod, and its Job with it.
        project.set_params(prompts={"count": 40}, trajectories={"shard_rows": 77})
        cancelled = run(env={"TINY_PAUSE": "1"})
        wait_for(lambda: state(cancelled) == "Running", seconds=120, every=1)
        stage_of(project, "squares")
        ask(server, lambda client: client.set_flow_run_state(cancelled, Cancelling()))
        wait_for(lambda: state(cancelled) == "Cancelled", seconds=120, every=1)
        assert project.leftovers() == []

    assert used(cluster.asked, WORKER) == grants("prefect-worker")
