"""The manifests of ``k8s/``, rendered once for all tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from kubernetes_validate import utils

from interloom.cluster.rendered import named, render

ROOT = Path(__file__).parents[1]
MINORS = ("1.34", "1.35", "1.36", "1.37")
"""Of Kubernetes, which all that is sent to it is held against."""
# Each schema is read once: the definitions are megabytes, and read anew for every object.
utils.schema_contents = cache(utils.schema_contents)


def schema_problems(item: dict[str, Any], minor: str = "1.34") -> list[str]:
    """What an API server of this minor refuses in an object, unknown fields included."""
    try:
        kubernetes_validate.validate(item, minor, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


@cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    """An overlay's objects, not to be changed; the test is skipped where nothing renders them."""
    if not (shutil.which("kubectl") or shutil.which("kustomize")):
        pytest.skip("neither kubectl nor kustomize is here to render k8s/")
    return render(ROOT / "k8s/overlays" / overlay)


def give_account(cluster: Any, namespace: str, name: str) -> None:
    """Put an account of the manifests into a test cluster, with its role and the binding."""
    for plural, kind in (
        ("serviceaccounts", "ServiceAccount"),
        ("roles", "Role"),
        ("rolebindings", "RoleBinding"),
    ):
        manifest = named(rendered("local"), kind, name)
        assert manifest is not None
        cluster.create(plural, namespace, deepcopy(dict(manifest)))


def grants(name: str) -> set[tuple[str, str]]:
    """``(verb, resource)`` of a role of the manifests."""
    role = named(rendered("local"), "Role", name)
    assert role is not None
    return {
        (verb, resource)
        for rule in role["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
    }


def used(asked: Iterable[Any], user: str) -> set[tuple[str, str]]:
    """``(verb, resource)`` of all that a user has asked of a test cluster."""
    return {(request.verb, request.resource) for request in asked if request.user == user}
