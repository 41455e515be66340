"""Every rendered manifest against Kubernetes' own schemas, in which unknown fields are faults."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from manifests import MINORS, schema_problems

from interloom.cluster.rendered import label, named


@pytest.mark.parametrize("minor", MINORS)
def test_manifests_are_valid(manifests: list[dict[str, Any]], minor: str) -> None:
    assert len(manifests) > 40
    faults = {label(item): found for item in manifests if (found := schema_problems(item, minor))}
    assert faults == {}


def test_a_typo_is_found(manifests: list[dict[str, Any]]) -> None:
    serve = deepcopy(named(manifests, "Deployment", "serve"))
    assert serve is not None
    serve["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    (problem,) = schema_problems(serve, MINORS[-1])
    assert "readinesProbe" in problem
