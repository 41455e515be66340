"""Every rendered manifest against Kubernetes' own schemas, in which unknown fields are faults."""

from __future__ import annotations

import functools
from copy import deepcopy
from typing import Any

import kubernetes_validate
import pytest
from kubernetes_validate import utils

MINORS = ("1.34", "1.35", "1.36", "1.37")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read each schema once: the definitions are megabytes."""
    monkeypatch.setattr(utils, "schema_contents", SCHEMAS)


SCHEMAS = functools.cache(utils.schema_contents)


@pytest.mark.parametrize("minor", MINORS)
def test_manifests_are_valid(manifests: list[dict[str, Any]], minor: str) -> None:
    assert len(manifests) > 40
    for manifest in manifests:
        assert kubernetes_validate.validate(manifest, minor, strict=True) == minor


def test_a_typo_is_found(manifests: list[dict[str, Any]]) -> None:
    serve = next(
        deepcopy(m)
        for m in manifests
        if (m["kind"], m["metadata"]["name"]) == ("Deployment", "serve")
    )
    serve["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(serve, MINORS[-1], strict=True)
