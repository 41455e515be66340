"""The manifests of ``k8s/``, rendered once for all tests."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from kubernetes_validate import utils

from interloom.cluster.rendered import render

ROOT = Path(__file__).parents[1]
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
