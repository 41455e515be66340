from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from kube_project import IMAGE, SPACE, OnCluster
from kube_server.server import KubeServer, interloom_image
from tiny_project.project import HERE, Project, copy_project


@pytest.fixture(scope="session")
def numbered_template(project_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny project with its first stage run."""
    project = copy_project(project_template, tmp_path_factory.mktemp("numbered") / "project")
    project.stage("numbers")
    return project.root


@pytest.fixture
def project(numbered_template: Path, tmp_path: Path) -> Project:
    return copy_project(numbered_template, tmp_path / "project")


@pytest.fixture
def on_cluster(project: Project, kube: KubeServer) -> OnCluster:
    kube.images[IMAGE] = interloom_image(HERE)
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    kube.create("persistentvolumeclaims", SPACE, {"metadata": {"name": "project"}, "spec": claim})
    kube.claims["project"] = project.root
    project.env = project.env | {"KUBECONFIG": str(kube.kubeconfig(namespace=SPACE))}
    made = OnCluster(project, kube)
    made.set()
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
