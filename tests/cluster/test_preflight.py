"""The preflight against an API server: each fault is found and named, and nothing is changed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from kube_server.server import KubeServer
from manifests import ROOT, rendered, schema_problems

from interloom.cluster import preflight
from interloom.cluster.preflight import examine, stage_jobs
from interloom.cluster.rendered import WORKLOADS, of_kind, render, secret_keys
from interloom.doctor import Finding
from interloom.errors import InterloomError
from interloom.settings.file import Settings, load_settings, settings_from

SPACE = "interloom"
OVERLAY = ROOT / "k8s/overlays/gpu"


@pytest.fixture
def settings() -> Settings:
    """The paper profile, its SFT on the cluster, its files on the volume."""
    raw = load_settings(ROOT / "profiles/paper.yaml").model_dump(mode="json")
    raw["cluster"]["data"]["kind"] = "volume"
    for stage in ("sft-critic", "grpo-critic"):
        raw["cluster"]["stages"][stage]["executor"] = "kubernetes"
    return settings_from(raw, "test")


def given(overlay: Path) -> list[dict[str, Any]]:
    return rendered(overlay.name) if overlay.parent == OVERLAY.parent else render(overlay)


def changed(settings: Settings, **values: Any) -> Settings:
    """Other values in the section ``cluster``; ``a__b`` is a key inside of ``a``."""
    raw = deepcopy(settings.model_dump(mode="json"))
    for key, value in values.items():
        *path, last = key.split("__")
        place = raw["cluster"]
        for part in path:
            place = place[part]
        place[last] = value
    return settings_from(raw, "test")


@pytest.fixture
def cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> Iterator[KubeServer]:
    """A cluster with a namespace and all Secrets; the manifests are still to be applied."""
    # Rendered once for all tests; the command's own tests render anew.
    monkeypatch.setattr(preflight, "render", given)
    with KubeServer(tmp_path) as made:
        made.schema_problems = schema_problems
        made.namespace(SPACE)
        wanted: dict[str, set[str]] = {}
        jobs = [job.manifest for job in stage_jobs(settings)]
        for workload in [*of_kind(rendered("gpu"), *WORKLOADS), *jobs]:
            for one in secret_keys(workload):
                wanted.setdefault(one.secret, set()).add(one.key)
        for name, keys in wanted.items():
            data = {key: "eA==" for key in keys if key}
            made.create("secrets", SPACE, {"metadata": {"name": name}, "data": data})
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig()))
        yield made


def found(settings: Settings, what: str = "", overlay: Path = OVERLAY) -> list[Finding]:
    """What the preflight says, of one sort if it is named."""
    every = list(examine(ROOT, settings, overlay))
    return [finding for finding in every if what in ("", finding.what)]


def wrong(settings: Settings, overlay: Path = OVERLAY) -> list[str]:
    return [f.line() for f in found(settings, overlay=overlay) if f.level == "missing"]


def test_a_cluster_that_is_ready(cluster: KubeServer, settings: Settings) -> None:
    before = cluster.store.version
    findings = found(settings)
    assert [finding.line() for finding in findings if finding.level == "missing"] == []
    said = {finding.what for finding in findings}
    assert said >= {"manifests", "cluster", "dry run", "stages", "quota", "secrets", "volumes"}
    assert "v1.34" in next(f.text for f in findings if f.what == "cluster")
    assert cluster.store.version == before, "a dry run stores nothing"
    verbs = {request.verb for request in cluster.asked}
    assert verbs == {"get", "list", "create", "patch"}


def test_no_namespace_comes_first(cluster: KubeServer, settings: Settings) -> None:
    (line,) = wrong(changed(settings, namespace="elsewhere"))
    assert "there is no namespace elsewhere: `kubectl create namespace elsewhere`" in line


def test_a_manifest_that_the_server_refuses(
    cluster: KubeServer, settings: Settings, tmp_path: Path
) -> None:
    overlay = tmp_path / "overlays" / "mine"
    overlay.mkdir(parents=True)
    (overlay / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"namespace: {SPACE}\nresources: [thing.yaml]\n"
    )
    (overlay / "thing.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: thing}\ndaat: {}\n---\n"
        "apiVersion: example.org/v1\nkind: Widget\nmetadata: {name: other}\n"
    )
    lines = [line for line in wrong(settings, overlay) if "dry run" in line]
    assert "ConfigMap/thing: strict decoding error" in lines[0] and "daat" in lines[0]
    assert "Widget/other: the cluster at" in lines[1] and "knows no Widget" in lines[1]


def test_quota_for_all_pods_of_a_stage(cluster: KubeServer, settings: Settings) -> None:
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.nvidia.com/gpu": "8"}}}
    cluster.create("resourcequotas", SPACE, quota)
    assert wrong(settings) == []
    (line,) = wrong(changed(settings, **{"stages__sft-critic__pods": 2}))
    assert "sft-critic can never start: it asks for requests.nvidia.com/gpu 16 of 8" in line


def test_quota_that_others_use_is_a_wait(cluster: KubeServer, settings: Settings) -> None:
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "100"}}}
    cluster.create("resourcequotas", SPACE, quota)
    pod = {"name": "a", "image": "a:1", "resources": {"requests": {"cpu": "60"}}}
    spec = {"containers": [pod], "nodeSelector": {"none": "such"}}
    cluster.create("pods", SPACE, {"metadata": {"name": "busy"}, "spec": spec})
    notes = [f.text for f in found(settings, "quota") if f.level == "note"]
    assert any("sft-critic would wait for others to end" in text for text in notes)
    assert any("requests.cpu 64 of 40 that are left" in text for text in notes)


def test_secrets_and_their_keys(cluster: KubeServer, settings: Settings) -> None:
    cluster.store.delete(cluster_kind("secrets"), SPACE, "serve-keys")
    cluster.store.delete(cluster_kind("secrets"), SPACE, "judge")
    cluster.create("secrets", SPACE, {"metadata": {"name": "judge"}, "data": {"other": ""}})
    first, second = sorted(wrong(settings))
    assert "judge has no key 'api-key', which Deployment/judge needs" in first
    assert "serve-keys is not there, and Deployment/serve needs it" in second


def test_secrets_that_may_not_be_read_are_no_fault(
    cluster: KubeServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [
        {"apiGroups": ["*"], "resources": [name], "verbs": ["*"]}
        for name in ("namespaces", "resourcequotas", "persistentvolumeclaims", "deployments")
    ]
    name = {"metadata": {"name": "viewer"}}
    cluster.create("clusterroles", "", {**name, "rules": rules})
    subject = {"kind": "User", "name": "eve"}
    role = {"kind": "ClusterRole", "name": "viewer"}
    cluster.create("clusterrolebindings", "", {**name, "subjects": [subject], "roleRef": role})
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig("eve")))
    findings = found(settings)
    secrets = [f for f in findings if f.what == "secrets"]
    assert secrets and {f.level for f in secrets} == {"note"}
    assert 'cannot get resource "secrets"' in secrets[0].text
    dry = [f.text for f in findings if f.what == "dry run"]
    assert any('cannot patch resource "roles"' in text for text in dry)


def test_volumes(cluster: KubeServer, settings: Settings) -> None:
    claim = {"metadata": {"name": "interloom-project"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    cluster.create("persistentvolumeclaims", SPACE, claim)
    assert wrong(settings) == []
    (line,) = wrong(changed(settings, **{"stages__sft-critic__pods": 2}))
    assert "interloom-project is ReadWriteOnce, and several pods mount it: ReadWriteMany" in line
    (line,) = wrong(changed(settings, data__claim="elsewhere"))
    assert "elsewhere is neither there nor in the overlay" in line


def test_images(cluster: KubeServer, settings: Settings) -> None:
    (line,) = wrong(changed(settings, image="registry.test/interloom:main"))
    assert "registry.test/interloom:main (cluster.image): give a tag with a version" in line
    notes = [f.text for f in found(settings, "images")]
    assert "no registry in interloom:0.1.0-cpu, interloom:0.1.0-cuda" in notes[0]


def test_servers_that_a_stage_needs(cluster: KubeServer, settings: Settings) -> None:
    (note,) = found(settings, "servers")
    assert (note.level, note.text) == ("note", "generator is made by the overlay")
    raw = deepcopy(settings.model_dump(mode="json")["cluster"]["services"]["generator"])
    other = changed(
        settings,
        services={**settings.cluster.model_dump(mode="json")["services"], "drawer": raw},
        **{"stages__grpo-critic__needs": ["drawer"]},
    )
    (line,) = wrong(other)
    assert "drawer is neither there nor in the overlay (cluster.services.drawer)" in line


def test_servers_of_a_runs_own_are_asked_about(cluster: KubeServer, settings: Settings) -> None:
    """Their pods, cards and Secrets count with those of the stage."""
    own = changed(settings, services__generator__shared=False)
    assert wrong(own) == []
    cluster.store.delete(cluster_kind("secrets"), SPACE, "generator-keys")
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.nvidia.com/gpu": "8"}}}
    cluster.create("resourcequotas", SPACE, quota)
    lines = wrong(own)
    assert len(lines) == 2
    assert "grpo-critic can never start: it asks for requests.nvidia.com/gpu 12 of 8" in lines[0]
    server = "Deployment/grpo-critic-preflight-generator"
    assert "generator-keys is not there" in lines[1] and server in lines[1]


def test_processes_that_a_stage_has_no_use_for(cluster: KubeServer, settings: Settings) -> None:
    raw = settings.model_dump(mode="json")["cluster"]["stages"]["sft-critic"]
    alone = changed(settings, stages={"evaluate": raw})
    with pytest.raises(InterloomError, match="are 8 processes, and evaluate runs as one"):
        found(alone)


def test_a_remote_that_pods_cannot_reach(cluster: KubeServer, settings: Settings) -> None:
    (line,) = wrong(changed(settings, data__kind="dvc"))
    assert "is a folder of this machine, which pods do not have" in line
    (line,) = wrong(changed(settings, data__kind="dvc", data__remote="nowhere"))
    assert "cluster.data.remote = 'nowhere' is no remote of DVC here (remotes: shipped)" in line


def test_admission_speaks_about_the_stages_own_pods(
    cluster: KubeServer, settings: Settings
) -> None:
    """A quota with a single GPU left: the dry run of a pod is refused in the server's words."""
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.nvidia.com/gpu": "1"}}}
    cluster.create("resourcequotas", SPACE, quota)
    lines = [line for line in wrong(settings) if "stages" in line]
    assert len(lines) == 2
    assert 'sft-critic: pods "sft-critic-preflight" is forbidden: exceeded quota: q' in lines[0]


def test_an_api_server_that_is_away_is_one_line(cluster: KubeServer) -> None:
    cluster.refuse()
    done = subprocess.run(
        [sys.executable, "-m", "interloom.cli", "cluster", "preflight", "gpu"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "does not answer" in done.stderr and "Traceback" not in done.stderr


def test_the_command_ends_with_1_where_something_is_missing(cluster: KubeServer) -> None:
    command = [sys.executable, "-m", "interloom.cli", "cluster", "preflight", "gpu"]
    done = subprocess.run(
        [*command, "--profile", "paper"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert re.search(r"✓ manifests +k8s/overlays/gpu: \d\d objects", done.stdout)
    for stage in ("sft-adaptive", "grpo-adaptive"):
        assert f"✓ stages       {stage}: Job and pods would be let in (1 × 8 GPUs)" in done.stdout
    assert "✗ remote" in done.stdout and done.stdout.count("✗") == 1, done.stdout


def cluster_kind(plural: str) -> Any:
    from kube_server.kinds import kind_named

    return kind_named(plural)
