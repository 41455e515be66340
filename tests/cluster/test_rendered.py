from __future__ import annotations

from pathlib import Path

import pytest
from manifests import ROOT, rendered

from interloom.cluster.rendered import SecretKey, claims, named, render, secret_keys
from interloom.errors import InterloomError


def test_an_unknown_overlay_is_named_with_those_there_are() -> None:
    with pytest.raises(InterloomError, match=r"no overlay .*gpuu; there are: gpu, local"):
        render(ROOT / "k8s/overlays/gpuu")


def test_what_kustomize_refuses_is_one_line(tmp_path: Path) -> None:
    rendered("local")  # skips where nothing renders
    (tmp_path / "kustomization.yaml").write_text("resources: [absent.yaml]\n")
    with pytest.raises(InterloomError, match=r"Kustomize says: .*absent.yaml") as caught:
        render(tmp_path)
    assert "\n" not in str(caught.value)


def test_without_kubectl_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InterloomError, match="kubectl is not in the PATH"):
        render(ROOT / "k8s/overlays/local")


def test_secrets_and_claims_of_a_workload() -> None:
    serve = named(rendered("local"), "Deployment", "serve")
    postgres = named(rendered("local"), "StatefulSet", "postgres")
    assert serve is not None and postgres is not None
    assert list(secret_keys(serve)) == [SecretKey("serve-keys", "", "Deployment/serve")]
    keys = {one.key for one in secret_keys(postgres)}
    assert keys == {"postgres-password", "mlflow-password", "prefect-password"}
    assert claims(serve) == ["models"]


def test_optional_secrets_are_not_demanded() -> None:
    generator = named(rendered("gpu"), "Deployment", "generator")
    assert generator is not None
    assert {one.secret for one in secret_keys(generator)} == {"generator-keys"}  # not `hub`
