from __future__ import annotations

from typing import Any

import pytest
from manifests import rendered


@pytest.fixture(params=["local", "gpu"])
def manifests(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Each overlay."""
    return rendered(request.param)
