"""The pods of flow runs: Prefect's own code fills in the template of our work pool."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest
import yaml
from manifests import ROOT, rendered, schema_problems
from pod_policies import EVERY_POD

from interloom.cluster.rendered import claims, named, of_kind, secret_keys

TEMPLATE = ROOT / "k8s/base/files/job-template.json"


def job_of(**variables: Any) -> dict[str, Any]:
    """The Job that Prefect's worker would create for a flow run."""
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    async def made() -> KubernetesWorkerJobConfiguration:
        return await KubernetesWorkerJobConfiguration.from_template_and_values(
            json.loads(TEMPLATE.read_text()),
            variables,
            # Asked for blocks and variables, of which the template has none.
            client=PrefectClient("http://127.0.0.1:1/api"),
        )

    configuration = asyncio.run(made())
    configuration.prepare_for_flow_run(FlowRun(flow_id=uuid4(), name="brave-owl"))
    return configuration.job_manifest


def test_the_job_is_valid_but_for_what_prefect_insists_on() -> None:
    job = job_of()
    # Prefect refuses a template without these two, which belong to Jobs and not to pods. API
    # servers leave unknown fields out, with a warning.
    pod = job["spec"]["template"]["spec"]
    assert (pod.pop("parallelism"), pod.pop("completions")) == (1, 1)
    for minor in ("1.34", "1.37"):
        assert schema_problems(job, minor) == []


def test_the_pod_keeps_every_rule() -> None:
    pod = job_of()["spec"]["template"]["spec"]
    assert [complaint for rule in EVERY_POD for complaint in rule(pod)] == []


def test_the_job_fits_the_cluster() -> None:
    """Names in the template are names of manifests, and the policies know its pods."""
    job, manifests = job_of(), rendered("local")
    pod = job["spec"]["template"]["spec"]
    account = named(manifests, "ServiceAccount", pod["serviceAccountName"])
    assert account is not None
    for claim in claims(job):
        assert named(manifests, "PersistentVolumeClaim", claim) is not None
    assert job["metadata"]["namespace"] == account["metadata"]["namespace"]
    component = job["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
    selectors = [p["spec"]["podSelector"] for p in of_kind(manifests, "NetworkPolicy")]
    assert any(component in json.dumps(selector) for selector in selectors)
    images = {
        container["image"]
        for workload in of_kind(manifests, "Deployment")
        for container in workload["spec"]["template"]["spec"]["containers"]
    }
    assert pod["containers"][0]["image"] in images
    assert list(secret_keys(job)) == []  # what a flow needs of secrets is optional


def test_variables_change_the_job_and_eviction_is_prefects_business() -> None:
    job = job_of(env={"A": "b"}, memory_limit="9Gi", finished_job_ttl=60)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert env["A"] == "b" and env["INTERLOOM_PROJECT"] == "/project"
    # With no retries of Kubernetes' own, an evicted flow is scheduled anew by Prefect.
    assert job["spec"]["backoffLimit"] == 0
    assert env["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
    assert container["resources"]["limits"]["memory"] == "9Gi"
    assert job["spec"]["ttlSecondsAfterFinished"] == 60


def deployments() -> list[dict[str, Any]]:
    return yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]


def test_both_pools_have_the_same_flows_and_one_nightly_schedule() -> None:
    by_pool: dict[str, dict[str, Any]] = {}
    for entry in deployments():
        by_pool.setdefault(entry["work_pool"]["name"], {})[entry["name"]] = entry
    here, there = by_pool["interloom"], by_pool["interloom-cluster"]
    # Serving is a Deployment there.
    assert {f"cluster-{name}" for name in here if name != "serving"} == set(there)
    for name, entry in there.items():
        assert entry["entrypoint"] == here[name.removeprefix("cluster-")]["entrypoint"]
        (pull,) = entry["pull"]
        assert pull["prefect.deployments.steps.set_working_directory"] == {"directory": "/project"}
    active = [
        entry["name"]
        for entry in deployments()
        for schedule in entry.get("schedules", ())
        if schedule["active"]
    ]
    assert active == ["nightly"]


def test_job_variables_are_those_of_the_template() -> None:
    known = json.loads(TEMPLATE.read_text())["variables"]["properties"]
    for entry in deployments():
        if entry["work_pool"]["name"] == "interloom-cluster":
            assert set(entry["work_pool"]["job_variables"]) <= set(known)


def test_the_worker_serves_the_pool_of_the_deployments() -> None:
    worker = named(rendered("local"), "Deployment", "prefect-worker")
    assert worker is not None
    (container,) = worker["spec"]["template"]["spec"]["containers"]
    assert "--pool=interloom-cluster" in container["args"]
    from prefect.cli.worker import worker_app  # the flags are of this very Prefect

    _, bound, _ = worker_app.parse_args(["start", *container["args"]], exit_on_error=False)
    assert bound.arguments["work_pool_name"] == "interloom-cluster"
    assert bound.arguments["with_healthcheck"] is True


@pytest.mark.parametrize("overlay", ["local", "gpu"])
def test_server_commands_are_understood(overlay: str) -> None:
    """MLflow's and Prefect's own parsers take the arguments of the manifests."""
    import click
    from mlflow.cli import cli

    mlflow = named(rendered(overlay), "Deployment", "mlflow")
    assert mlflow is not None
    (container,) = mlflow["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["mlflow", "server"]
    server = cli.commands["server"]
    context = server.make_context("server", list(container["args"]))
    assert isinstance(context, click.Context)
    assert context.params["host"] == "0.0.0.0"
    assert context.params["backend_store_uri"].startswith("postgresql+psycopg2://mlflow@")
