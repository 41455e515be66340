from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_server import MODEL, SETTINGS, Said, remotes_settings, serving
from tiny_project.project import free_port

from interloom import doctor
from interloom.doctor import Finding
from interloom.settings import Settings


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def with_teacher(*urls: str, **changes: Any) -> Settings:
    """The shipped settings with an OpenAI teacher and judge."""
    roles = {"backend": "openai", "judge_backend": "openai", "model": MODEL, "judge_model": MODEL}
    return SETTINGS.model_copy(
        update={
            "teacher": SETTINGS.teacher.model_copy(update=roles),
            "remote": remotes_settings("openai", *urls, **changes),
        }
    )


def findings(settings: Settings) -> dict[str, Finding]:
    return {finding.what: finding for finding in doctor._remote(Path(), settings)}


def test_what_is_not_used_is_a_note():
    found = findings(SETTINGS)
    assert [finding.level for finding in found.values()] == ["note"] * 3
    assert found["gemini"].text == "GEMINI_API_KEY not set: not used by this profile"


def test_what_is_needed_and_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with serving(Said()) as server:
        found = findings(with_teacher(server.url))["openai"]
    assert found.level == "good"
    assert "the teacher and the judge of this profile" in found.text


def test_what_is_needed_and_missing():
    url = f"http://127.0.0.1:{free_port()}"
    found = findings(with_teacher(url, prices={}))["openai"]
    assert found.level == "missing"
    for said in (
        f"remote.openai.prices has none for {MODEL}",
        "OPENAI_API_KEY not set",
        f"{url} does not answer",
        "the teacher and the judge of this profile",
    ):
        assert said in found.text
