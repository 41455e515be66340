from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from model_server import MODEL, SETTINGS, Said, remotes_settings, serving
from tiny_project.project import REPOSITORY, free_port

from interloom import doctor
from interloom.doctor import Finding
from interloom.settings.file import Settings

Check = Callable[[Path, Settings], Iterator[Finding]]


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def only(check: Check, root: Path, settings: Settings = SETTINGS) -> Finding:
    (finding,) = check(root, settings)
    return finding


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / ".dvc").mkdir()
    for name in (".dvc/config", "data.dvc", "params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    return tmp_path


def test_a_place_without_git_data_and_remote(clone: Path):
    assert only(doctor._git, clone).level == "note"
    found = only(doctor._data, clone)
    assert found.level == "missing" and ".dvc-remote: check the remote" in found.text
    found = only(doctor._data_remote, clone)
    assert (found.level, found.what) == ("missing", "remote")
    assert "is no folder: nothing can be pulled" in found.text
    (clone / ".dvc-remote").mkdir()
    assert only(doctor._data_remote, clone).level == "good"


def test_remotes_that_are_set_up_by_hand(clone: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(clone / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(clone / "none"))
    config, endpoint = clone / ".dvc/config", f"http://127.0.0.1:{free_port()}"
    config.write_text("[core]\nremote = lab\n['remote \"lab\"']\nurl = s3://lab/x\n"
                      f"endpointurl = {endpoint}\n")  # fmt: skip
    text = only(doctor._data_remote, clone).text
    assert f"{endpoint} does not answer; no AWS credentials are found" in text
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "k")
    config.write_text("[core]\nremote = lab\n['remote \"lab\"']\nurl = s3://lab/x\n")
    assert only(doctor._data_remote, clone) == Finding("good", "remote", "lab, s3://lab/x")
    config.write_text("")
    assert "outputs stay on this disk" in only(doctor._data_remote, clone).text
    config.write_text("[core]\nnonsense = 1\n")
    assert "no dvc command works" in only(doctor._data_remote, clone).text


def test_trackers_that_do_not_answer(clone: Path, monkeypatch: pytest.MonkeyPatch):
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
    found = only(doctor._tracking, clone)
    assert found.level == "note" and "runs wait in .interloom/spool" in found.text
    found = only(doctor._prefect, clone)
    assert found.level == "missing" and "no flow can run" in found.text


def test_disk_gpu_and_params(clone: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "DISK_GIB", 1e9)
    assert next(iter(doctor._disk(clone, SETTINGS))).level == "missing"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert only(doctor._gpu, clone).level == "note"
    models = SETTINGS.models.model_copy(update={"vlm_dtype": "bfloat16"})
    large = SETTINGS.model_copy(update={"models": models})
    assert only(doctor._gpu, clone, large).level == "missing"
    (clone / "params.yaml").write_text("profile: pocket\nseed: 1.5\n")
    found = doctor.examine(clone)[-1]
    assert (found.level, found.what) == ("missing", "params")
    assert "seed = 1.5: expected a whole number" in found.text


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
