"""What of the machine is ready, what is missing, and what that disables."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import yaml

from interloom.cache import CACHE, kept_answers
from interloom.errors import InterloomError
from interloom.provenance import git
from interloom.settings.file import Settings, load_settings
from interloom.tracking import SPOOL, tracking_uri

Level = Literal["good", "note", "missing"]
SIGNS: dict[Level, str] = {"good": "✓", "note": "·", "missing": "✗"}
DISK_GIB = 5.0


@dataclass(frozen=True)
class Finding:
    """One checked thing. ``note`` disables something optional, ``missing`` something needed."""

    level: Level
    what: str
    text: str

    def line(self) -> str:
        """For the terminal."""
        return f"{SIGNS[self.level]} {self.what:<12} {self.text}"


def examine(root: Path) -> list[Finding]:
    """Check everything in the project ``root``; nothing is changed and no server is started."""
    findings = list(_packages())
    try:
        settings = load_settings(root / "params.yaml")
    except InterloomError as error:
        return [*findings, Finding("missing", "params", str(error))]
    findings.append(Finding("good", "params", f"profile {settings.profile}"))
    for check in (_git, _disk, _data, _data_remote, _tracking, _prefect, _remote, _gpu):
        findings += check(root, settings)
    return findings


def _packages() -> Iterator[Finding]:
    """Are the installed versions those that the project asks for?"""
    from packaging.requirements import Requirement

    wrong: list[str] = []
    wanted = [Requirement(line) for line in requires("interloom") or [] if "extra ==" not in line]
    for requirement in wanted:
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    if wrong:
        yield Finding("missing", "packages", f"{'; '.join(wrong)}: run `make install`")
    else:
        yield Finding("good", "packages", f"{len(wanted)} requirements are met")


def _git(root: Path, settings: Settings) -> Iterator[Finding]:
    commit = git("-C", str(root), "rev-parse", "--short", "HEAD")
    if commit:
        yield Finding("good", "git", f"at {commit}")
    else:
        yield Finding("note", "git", "no commit here: runs carry none, `dvc exp` does not work")


def _disk(root: Path, settings: Settings) -> Iterator[Finding]:
    free = shutil.disk_usage(root).free / 2**30
    level: Level = "good" if free >= DISK_GIB else "missing"
    yield Finding(level, "disk", f"{free:.0f} GiB free (a pocket lifecycle needs {DISK_GIB:.0f})")
    work = sum(path.stat().st_size for path in root.glob(".interloom/work/**/*") if path.is_file())
    if work:
        text = f"{work / 2**20:.0f} MiB of interrupted stages in .interloom/work (may be removed)"
        yield Finding("note", "leftovers", text)
    answers, size = kept_answers(root)
    if answers:
        text = (
            f"{answers} remote answers in {CACHE}, {size / 2**20:.0f} MiB: without them, paid again"
        )
        yield Finding("note", "answers", text)
    kept = [path for path in root.glob(f"{SPOOL}/*-*") if path.is_dir()]
    if kept:
        yield Finding("note", "spool", f"{len(kept)} runs are not in MLflow: `interloom track`")


def _data(root: Path, settings: Settings) -> Iterator[Finding]:
    """Are the shipped models here, or can they be had?"""
    remote = root / ".dvc-remote"
    if (root / "data").is_dir():
        yield Finding("good", "data", "data/ is here")
    elif not (root / "data.dvc").is_file():
        yield Finding("missing", "data", "neither data/ nor data.dvc: no stage can draw")
    else:
        md5 = yaml.safe_load((root / "data.dvc").read_text())["outs"][0]["md5"]
        if (remote / "files" / "md5" / md5[:2] / md5[2:]).is_file():
            yield Finding("note", "data", "not checked out: run `dvc pull data.dvc`")
        else:
            yield Finding("missing", "data", f"not here, and not in {remote}: check the remote")


def _data_remote(root: Path, settings: Settings) -> Iterator[Finding]:
    """Can data and models be pulled from DVC's default remote, and pushed there?"""
    from dvc.config import Config, ConfigError

    try:
        config = Config(str(root / ".dvc"), validate=True)
    except ConfigError as error:
        yield Finding("missing", "remote", f"DVC's configuration: {error}: no dvc command works")
        return
    name = config["core"].get("remote")
    if name not in config["remote"]:
        text = "DVC has no default remote (`dvc remote add --default`): outputs stay on this disk"
        yield Finding("note", "remote", text)
        return
    url = str(config["remote"][name]["url"])
    scheme = urlsplit(url).scheme
    if scheme in ("", "file"):
        there = Path(url.removeprefix("file://")).is_dir()
        lost = f"{name}, {url}, is no folder: nothing can be pulled"
        yield Finding("good" if there else "missing", "remote", f"{name}, {url}" if there else lost)
        return
    faults = []
    if scheme == "s3":
        from botocore.session import get_session

        endpoint = config["remote"][name].get("endpointurl") or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint and not _answers(endpoint):
            faults.append(f"{endpoint} does not answer")
        if get_session().get_credentials() is None:
            faults.append("no AWS credentials are found")
    if faults:
        text = f"{name}, {url}: {'; '.join(faults)}: nothing can be pulled or pushed"
        yield Finding("missing", "remote", text)
    else:
        yield Finding("good", "remote", f"{name}, {url}")


def _tracking(root: Path, settings: Settings) -> Iterator[Finding]:
    if not settings.tracking.enabled:
        yield Finding("note", "mlflow", "tracking is off (tracking.enabled): no runs are kept")
        return
    uri = tracking_uri(settings.tracking, root)
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        yield Finding("good", "mlflow", f"{version('mlflow')}, {uri.rpartition('/')[2]}")
        return
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 5432)
    if _reachable(parts.hostname or "127.0.0.1", port):
        yield Finding("good", "mlflow", f"{version('mlflow')}, {parts.hostname}:{port} answers")
    else:
        text = f"{parts.hostname}:{port} does not answer: runs wait in {SPOOL}"
        yield Finding("note", "mlflow", text)


def _prefect(root: Path, settings: Settings) -> Iterator[Finding]:
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        text = f"{version('prefect')}, a local server for each lifecycle (PREFECT_API_URL is unset)"
        yield Finding("good", "prefect", text)
        return
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if _reachable(parts.hostname or "127.0.0.1", port):
        yield Finding("good", "prefect", f"{version('prefect')}, {url} answers")
    else:
        yield Finding("missing", "prefect", f"{url} does not answer: no flow can run")


def _remote(root: Path, settings: Settings) -> Iterator[Finding]:
    """Keys, servers and prices of the remote backends, whether the profile uses them or not."""
    models, teacher = settings.models, settings.teacher
    uses = [
        ("the teacher", teacher.backend, teacher.model),
        ("the judge", teacher.judge_backend, teacher.judge_model),
        ("the generator", models.generator.backend, models.generator.model),
        ("the weak generator", models.generator_weak.backend, models.generator_weak.model),
    ]
    for name, remote in settings.remote:
        users = [who for who, backend, _ in uses if backend == name]
        asked = {model for _, backend, model in uses if backend == name}
        unpriced = sorted(asked - set(remote.prices))
        faults = [f"remote.{name}.prices has none for {model}" for model in unpriced]
        if remote.api_key_env and not any(os.environ.get(key) for key in remote.api_key_env):
            faults.append(f"{' and '.join(remote.api_key_env)} not set")
        if users:
            faults += [f"{url} does not answer" for url in remote.base_urls if not _answers(url)]
        needed = f"{' and '.join(users)} of this profile" if users else ""
        if users and faults:
            yield Finding("missing", name, f"{'; '.join(faults)}, but {needed} needs it")
        elif users:
            yield Finding("good", name, f"keys, servers and prices are there for {needed}")
        else:
            text = "; ".join(faults) or "could be used"
            yield Finding("note", name, f"{text}: not used by this profile")


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return _reachable(parts.hostname or "127.0.0.1", port)


def _gpu(root: Path, settings: Settings) -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        yield Finding("good", "gpu", f"{card.name}, {card.total_memory / 2**30:.0f} GiB")
    else:
        level: Level = "missing" if settings.models.vlm_dtype != "float32" else "note"
        yield Finding(level, "gpu", "none: the pocket profile needs none, paper scale does")


def _reachable(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=3):
            return True
    except OSError:
        return False
