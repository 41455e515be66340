"""A stage's files by DVC: pods share nothing with the caller but the remote."""

from __future__ import annotations

from pathlib import Path

import pytest
from kube_project import SPACE, OnCluster
from tiny_project.project import Project, copy_project, wait_for

from interloom.cluster import data
from interloom.errors import InterloomError
from interloom.tracking import DataFile


@pytest.fixture
def by_dvc(on_cluster: OnCluster, tmp_path: Path) -> OnCluster:
    """The tiny project with a DVC remote, and a claim for checkpoints alone."""
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    on_cluster.kube.create(
        "persistentvolumeclaims", SPACE, {"metadata": {"name": "checkpoints"}, "spec": claim}
    )
    del on_cluster.kube.claims["project"]
    on_cluster.project.run("dvc", "remote", "add", "-d", "main", str(tmp_path / "remote"))
    on_cluster.set(data={"kind": "dvc", "claim": "checkpoints"})
    return on_cluster


def lock_of(project: Project) -> str:
    return (project.root / "dvc.lock").read_text()


@pytest.mark.timeout(600)
def test_the_lock_file_is_that_of_a_local_run(
    by_dvc: OnCluster, project_template: Path, tmp_path: Path
) -> None:
    """From `dvc repro` to `dvc.lock`, with an eviction on the way."""
    here = copy_project(project_template, tmp_path / "here")
    here.repro()
    by_dvc.image(TINY_PAUSE="0.4")
    process = by_dvc.project.start("dvc", "repro")
    checkpoints = by_dvc.kube.claim("checkpoints")
    wait_for(lambda: list(checkpoints.glob("work/squares/*/done.json")), seconds=280)
    [pod] = by_dvc.pods("Running")
    by_dvc.kube.evict(pod["metadata"]["name"], SPACE)
    out, _ = process.communicate(timeout=280)
    assert process.returncode == 0, out
    assert lock_of(by_dvc.project) == lock_of(here)
    assert by_dvc.project.outputs() == here.outputs()
    assert "pulling outputs/numbers.txt" in out
    assert "pushing metrics/squares.json, outputs/squares, plots/squares.csv" in out
    assert not list(checkpoints.glob("work/squares/*")), "no checkpoints are left"
    assert by_dvc.project.leftovers() == []
    assert by_dvc.project.run("dvc", "status", "--cloud").stdout.count("new:") <= 3, "pushed"
    # What has come back stands in the project's own cache.
    assert "up to date" in by_dvc.project.repro().stdout


def test_what_dvc_has_not_seen_is_refused(by_dvc: OnCluster) -> None:
    untracked = by_dvc.run(check=False)
    assert "outputs/numbers.txt is in no .dvc file and not in dvc.lock" in untracked.stderr
    by_dvc.project.repro("numbers")
    (by_dvc.project.root / "outputs/numbers.txt").write_text("1\n2\n")
    changed = by_dvc.run(check=False)
    assert "outputs/numbers.txt has changed since DVC saw it" in changed.stderr


def test_parts_of_a_tracked_folder(tmp_path: Path) -> None:
    (tmp_path / "data.dvc").write_text("outs:\n- md5: abc.dir\n  path: data\n")
    lock = "stages:\n  a:\n    cmd: x\n    outs:\n    - path: outputs/a\n      md5: def.dir\n"
    (tmp_path / "dvc.lock").write_text(lock)
    deps = [DataFile("vlm", "data/vlm", "1.dir", "dep"), DataFile("f", "outputs/a/f", "2", "dep")]
    assert data.tracked_deps(tmp_path, deps) == {
        "data/vlm": data.Tracked("data", "abc.dir"),
        "outputs/a/f": data.Tracked("outputs/a", "def.dir"),
    }


def test_remotes(project: Project, tmp_path: Path) -> None:
    with pytest.raises(InterloomError, match=r"cluster.data.remote = '' is no remote of DVC here"):
        data.remote_options(project.root, "")
    project.run("dvc", "remote", "add", "-d", "near", "../near")
    project.run("dvc", "remote", "add", "far", "s3://bucket/path")
    project.run("dvc", "remote", "modify", "far", "endpointurl", "http://minio:9000")
    project.run("dvc", "remote", "modify", "--local", "far", "secret_access_key", "hidden")
    near = data.remote_options(project.root, "")["url"]
    assert Path(near) == (project.root / "../near").resolve()
    far = data.remote_options(project.root, "far")
    assert far == {"url": "s3://bucket/path", "endpointurl": "http://minio:9000"}, "no secret"
