"""The Dockerfile, read and held to its own claims. Whether it builds no test here can say."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from manifests import rendered

from interloom.cluster.rendered import of_kind, pod_spec

ROOT = Path(__file__).parent.parent
TARGETS = ("cpu", "cuda")
BUILD_TOOLS = re.compile(r"\b(build-essential|gcc|g\+\+|make|cmake|clang|\S+-dev)\b")


@dataclass
class Stage:
    """One ``FROM``, with the instructions under it."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def of(self, *words: str) -> list[str]:
        """The arguments of some instructions."""
        return [rest for word, rest in self.instructions if word in words]


def read(text: str) -> dict[str, Stage]:
    """The stages by their names."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    stages: dict[str, Stage] = {}
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found = re.fullmatch(r"(\S+) AS (\S+)", rest)
            assert found, f"a stage without a name: {line}"
            current = stages.setdefault(found[2], Stage(found[1], found[2]))
        else:
            current.instructions.append((word, rest.strip()))
    return stages


def lineage(stages: dict[str, Stage], name: str) -> list[Stage]:
    """A stage and those that it is built upon."""
    stage = stages[name]
    return [stage, *(lineage(stages, stage.base) if stage.base in stages else [])]


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return read((ROOT / "Dockerfile").read_text(encoding="utf-8"))


def test_bases_are_pinned(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        if stage.base not in stages:
            assert re.search(r":\d+\.\d+\.\d+-[\w.-]+$|@sha256:[0-9a-f]{64}$", stage.base)


@pytest.mark.parametrize("target", TARGETS)
def test_the_image_has_no_root_and_no_tools(stages: dict[str, Stage], target: str) -> None:
    built = lineage(stages, target)
    assert stages[target].instructions[-1] == ("USER", "10001:10001")
    for stage in built:
        for command in stage.of("RUN"):
            assert not BUILD_TOOLS.search(command)
    removed = " ".join(command for stage in built for command in stage.of("RUN"))
    assert "pip uninstall --yes pip setuptools wheel" in removed


def test_the_user_is_the_one_of_the_manifests(stages: dict[str, Stage]) -> None:
    for workload in of_kind(rendered("gpu"), "Deployment", "StatefulSet"):
        pod = pod_spec(workload)
        if any("interloom" in container["image"] for container in pod["containers"]):
            assert pod["securityContext"]["runAsUser"] == 10001


def test_nothing_is_left_of_apt_and_nothing_unasked_comes_in(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        assert not stage.of("ADD")
        for command in stage.of("RUN"):
            if "apt-get install" in command:
                assert "--no-install-recommends" in command
                assert "rm -rf /var/lib/apt/lists/*" in command
            for installs in re.findall(r"pip install [^&]+", command):
                assert "-c constraints.txt" in installs


def test_no_secret_and_no_address_is_baked_in(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        for line in stage.of("ENV", "ARG"):
            assert not re.search(r"(?i)password|secret|token|api_?key", line)
            assert "://" not in line


def test_targets_and_tags_are_those_of_the_manifests(stages: dict[str, Stage]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    head = (ROOT / "Dockerfile").read_text(encoding="utf-8").partition("\nFROM")[0]
    for target in TARGETS:
        assert target in stages
        assert f"--target {target}" in head and f"-t interloom:{version}-{target}" in head


def test_what_is_copied_is_there_and_gets_to_the_builder(stages: dict[str, Stage]) -> None:
    """The .dockerignore lets in what the Dockerfile copies, and nothing else."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    copied: set[str] = set()
    for stage in stages.values():
        for line in stage.of("COPY"):
            if not line.startswith("--from="):
                copied |= set(line.split()[:-1])
    assert rules[0] == "*"
    assert copied == let_in
    for path in copied:
        assert (ROOT / path).exists() or path == ".dvc-remote"
    assert any(fnmatch.fnmatch("src/a/__pycache__", rule) for rule in rules if "pycache" in rule)


def test_faults_would_be_found() -> None:
    text = "FROM python:latest AS a\nRUN apt-get install gcc\nENV API_KEY=1\n"
    with pytest.raises(AssertionError):
        test_bases_are_pinned(read(text))
    with pytest.raises(AssertionError):
        test_nothing_is_left_of_apt_and_nothing_unasked_comes_in(read(text))
    with pytest.raises(AssertionError):
        test_no_secret_and_no_address_is_baked_in(read(text))
    with pytest.raises(AssertionError, match="without a name"):
        read("FROM python:3.11.13-slim\n")
