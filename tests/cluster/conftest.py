from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from kube_project import IMAGE, SPACE, OnCluster
from kube_server.server import KubeServer, interloom_image
from tiny_project.project import HERE, Project


@pytest.fixture
def on_cluster(project: Project, kube: KubeServer) -> OnCluster:
    kube.images[IMAGE] = interloom_image(HERE)
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    kube.create("persistentvolumeclaims", SPACE, {"metadata": {"name": "project"}, "spec": claim})
    kube.claims["project"] = project.root
    project.env = project.env | {"KUBECONFIG": str(kube.kubeconfig(namespace=SPACE))}
    made = OnCluster(project, kube)
    made.set()
    project.stage("numbers")
    return made


@pytest.fixture
def local_outputs(project: Project, on_cluster: OnCluster) -> Callable[[], dict[str, str]]:
    """Digests that ``squares`` has when it runs locally."""

    def run() -> dict[str, str]:
        params = project.root / "params.yaml"
        before = params.read_text()
        on_cluster.set("none")
        project.stage("squares")
        params.write_text(before)
        found = project.outputs()
        for path in found:
            if "squares" in path:
                remove = project.root / path
                if remove.is_dir():
                    shutil.rmtree(remove)
                else:
                    remove.unlink()
        return found

    return run
