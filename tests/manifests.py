"""The manifests of ``k8s/``, rendered once for all tests."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from interloom.cluster.rendered import render

ROOT = Path(__file__).parents[1]


@cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    """An overlay's objects, not to be changed; the test is skipped where nothing renders them."""
    if not (shutil.which("kubectl") or shutil.which("kustomize")):
        pytest.skip("neither kubectl nor kustomize is here to render k8s/")
    return render(ROOT / "k8s/overlays" / overlay)
