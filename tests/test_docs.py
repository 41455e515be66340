"""The docs name what is there: functions, tests, links, commands and settings."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup

from interloom.cli import LAZY, app
from interloom.settings.file import Settings
from interloom.stages import STAGES

ROOT = Path(__file__).parent.parent
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAPERS = ROOT / "docs/papers.md"
BASES = ("", "src/interloom", "src/interloom/pocket")
"""What a code path in the docs may be relative to."""
FILES = ("py", "md", "json", "jsonl", "csv", "png", "html", "yaml", "txt", "parquet")

every_doc = pytest.mark.parametrize("doc", DOCS, ids=lambda path: str(path.relative_to(ROOT)))


# ---------------------------------------------------------------------------------- reading docs


def code_of(text: str) -> list[str]:
    """Code spans and the lines of code blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return [*re.findall(r"`([^`]+)`", prose), *"".join(blocks).splitlines()]


def anchors(text: str) -> set[str]:
    """Headings as GitHub names them in links."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# ---------------------------------------------------------------------------------- code


@cache
def names_in(path: Path) -> set[str]:
    """Functions, classes and values of a module, and ``Class.member``."""

    def members(body: list[ast.stmt], prefix: str = "") -> set[str]:
        found: set[str] = set()
        for node in body:
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    found.add(prefix + name)
                case ast.ClassDef(name=name, body=inner):
                    found |= {prefix + name, *members(inner, f"{prefix}{name}.")}
                case ast.Assign(targets=targets):
                    found |= {prefix + t.id for t in targets if isinstance(t, ast.Name)}
                case ast.AnnAssign(target=ast.Name(id=name)):
                    found.add(prefix + name)
        return found

    return members(ast.parse(path.read_text("utf-8")).body)


def references(text: str) -> list[tuple[str, str]]:
    """``path.py:name`` in code spans."""
    return [
        (found[1], found[2])
        for span in code_of(text)
        if (found := re.fullmatch(r"([\w/]+\.py): ?([\w.]+)", span))
    ]


def wrong_references(text: str) -> list[str]:
    faults = []
    for path, name in references(text):
        places = [place for base in BASES if (place := ROOT / base / path).is_file()]
        if not any(name in names_in(place) for place in places):
            faults.append(f"{path}:{name}")
    return faults


# ---------------------------------------------------------------------------------- links


def wrong_links(text: str, folder: Path) -> list[str]:
    faults = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = folder / path
        lost = not place.exists() if path else False
        if lost or (anchor and anchor not in anchors(place.read_text("utf-8") if path else text)):
            faults.append(target)
    return faults


# ---------------------------------------------------------------------------------- commands


@cache
def command_tree() -> dict[str, Any]:
    """The top-level commands; groups that are imported late are put in whole."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    commands: dict[str, Any] = dict(root.commands)
    for name, (module, _) in LAZY.items():
        commands[name] = typer.main.get_command(import_module(module).app)
    return commands


def commands_named(text: str) -> list[str]:
    return [code for code in code_of(text) if re.match(r"interloom\s", code)]


def wrong_commands(text: str) -> list[str]:
    """Commands and options (those in a comment beside a command are meant too) not in the CLI."""
    faults = []
    for line in commands_named(text):
        command: Any = None
        level = command_tree()
        for word in line.partition("#")[0].split()[1:]:
            if not level or word == "…":
                break
            command = level.get(word)
            if command is None:
                break
            level = command.commands if isinstance(command, TyperGroup) else {}
        if command is None:
            if "…" not in line:
                faults.append(line)
            continue
        known = {option for parameter in command.params for option in parameter.opts}
        faults += [
            f"{line}: {option}"
            for option in re.findall(r"(?<!\S)--[a-z-]+", line)
            if option not in {*known, "--help"}
        ]
        stage = re.match(r"interloom run ([a-z-]+)", line)
        if stage and stage[1] not in {spec.name for spec in STAGES}:
            faults.append(line)
    return faults


# ---------------------------------------------------------------------------------- settings


@cache
def settings_keys() -> frozenset[str]:
    """Every key of every params file, dotted, sections included."""

    def keys(value: Any, prefix: str = "") -> set[str]:
        if not isinstance(value, dict):
            return set()
        return {
            key
            for name, inner in value.items()
            for key in (f"{prefix}{name}", *keys(inner, f"{prefix}{name}."))
        }

    files = [ROOT / "params.yaml", *(ROOT / "profiles").glob("*.yaml")]
    return frozenset().union(*(keys(yaml.safe_load(path.read_text("utf-8"))) for path in files))


def keys_named(text: str) -> list[str]:
    """``section.key`` in code, ``*`` for any part; names of files are none."""
    sections = "|".join(Settings.model_fields)
    pattern = rf"(?<![\w./-])(?:{sections})(?:\.(?:\w+(?:-\w+)*|\*))+(?![\w/(])"
    found = [key for code in code_of(text) for key in re.findall(pattern, code)]
    return [key for key in found if key.rpartition(".")[2] not in FILES]


def wrong_keys(text: str) -> list[str]:
    def known(key: str) -> bool:
        pattern = re.escape(key).replace(r"\*", r"[^.]+")
        return any(re.fullmatch(pattern, candidate) for candidate in settings_keys())

    return [key for key in keys_named(text) if not known(key)]


# ---------------------------------------------------------------------------------- tests


@every_doc
def test_functions_and_tests_named_are_there(doc: Path) -> None:
    assert wrong_references(doc.read_text("utf-8")) == []


def test_every_part_of_the_paper_has_code_and_a_test() -> None:
    named = references(PAPERS.read_text("utf-8"))
    assert len(named) > 100
    tests = [(path, name) for path, name in named if path.startswith("tests/")]
    assert all(name.split(".")[-1].startswith("test_") for _, name in tests)
    assert {path.split("/")[0] for path, _ in named} >= {"tests", "construct", "train"}


@every_doc
def test_links_lead_somewhere(doc: Path) -> None:
    assert wrong_links(doc.read_text("utf-8"), doc.parent) == []


@every_doc
def test_commands_are_in_the_cli(doc: Path) -> None:
    assert wrong_commands(doc.read_text("utf-8")) == []


@every_doc
def test_settings_are_in_the_params(doc: Path) -> None:
    assert wrong_keys(doc.read_text("utf-8")) == []


def test_make_targets_are_in_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for doc in DOCS:
        for code in code_of(doc.read_text("utf-8")):
            made = re.match(r"make ([a-z-]+)", code)
            assert made is None or made[1] in targets, (doc, code)


def test_stages_of_the_readme_are_all_the_stages() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (`[a-z-]+`(?:, `[a-z-]+`)*) \|", text, re.MULTILINE)
    assert [name for row in rows for name in re.findall(r"`([a-z-]+)`", row)] == [
        spec.name for spec in STAGES
    ]


def test_the_house_of_the_readme_has_no_lost_file() -> None:
    """Every ``name.py`` and ``folder/`` of the file tree is in the repository."""
    text = (ROOT / "README.md").read_text("utf-8")
    tree = text.partition("## The house")[2].partition("```")[2].partition("```")[0]
    shown = re.findall(r"[\w./]+(?:\.py|\.yaml|\.dvc|/)(?=\s|$)", tree)
    assert len(shown) > 20
    lost = [name for name in shown if not any((ROOT / base / name).exists() for base in BASES)]
    assert lost == []


def test_the_checks_find_faults() -> None:
    text = (
        "# A heading: one\n"
        "`loop.py:strem` `loop.py:stream` `lop.py:stream` `loop.py:DirectPlanner.plan`\n"
        "[a](absent.md) [b](README.md) [c](#a-heading-one) [d](#another) [e](https://x.org/y)\n"
        "`interloom lifecycel` `interloom pocket trian` `interloom run promts` `interloom …`\n"
        "```sh\ninterloom lifecycle --form x   # starts there\ninterloom pocket show\n```\n"
        "`grpo_critic.alpah=1` `grpo_critic.alpha=1` `remote.*.tries` `report.md` `a/report.x`\n"
    )
    assert wrong_references(text) == ["loop.py:strem", "lop.py:stream"]
    assert wrong_links(text, ROOT) == ["absent.md", "#another"]
    assert wrong_commands(text) == [
        "interloom lifecycel",
        "interloom pocket trian",
        "interloom run promts",
        "interloom lifecycle --form x   # starts there: --form",
    ]
    assert wrong_keys(text) == ["grpo_critic.alpah"]
