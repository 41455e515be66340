from __future__ import annotations

import pytest
from model_server import KEYS


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key for every backend that wants one."""
    for variable in KEYS.values():
        monkeypatch.setenv(variable, "key-1")
