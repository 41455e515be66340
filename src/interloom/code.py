"""Which source files a stage's result depends on: what its module imports, directly or not.

Found by reading the sources, without importing them, so it is cheap and works on broken code.
The machinery that runs stages is left out: it moves files and takes notes, and a change of it must
not make every output stale.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
MACHINERY = frozenset(
    [
        *("atomic", "code", "databases", "digests", "guards", "provenance", "ranks"),
        *("runner", "tracker", "tracking"),
        *("cluster", "dvc_state", "errors", "faults", "params", "settings", "stages"),
        *("cli", "doctor", "progress", "ui"),
    ]
)
"""Modules of the package that run stages, record them and talk to the user."""
TEXTS = {
    "interloom.adaptive.review_page": "adaptive/pages",
    "interloom.benchmarks.geneval": "benchmarks/geneval_prompts",
    "interloom.benchmarks.judging": "benchmarks/judge_texts",
    "interloom.construct.gallery": "construct/pages",
    "interloom.construct.taxonomy": "construct/taxonomy",
    "interloom.dialogue": "dialogue_texts",
    "interloom.pocket.knowledge": "pocket/text",
    "interloom.registry": "registered",
}
"""Folders of texts that a module reads, relative to the package."""


def code_of(module: str) -> tuple[str, ...]:
    """Source files (and folders of texts) behind ``module``, as ``src/interloom/…``, sorted.

    A module that does not exist yet contributes nothing.
    """
    found: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name in found or _file_of(name) is None or name.split(".")[1] in MACHINERY:
            continue
        found.add(name)
        todo.extend(_imports(name))
    paths = {_file_of(name) for name in found} | {
        PACKAGE / TEXTS[name] for name in found if name in TEXTS
    }
    folders = {path for path in paths if path and path.is_dir()}
    # An empty __init__ decides nothing, and what lies in a folder is there with the folder.
    kept = [
        path for path in paths
        if path and path.exists() and (path.is_dir() or _size(path)) and path.parent not in folders
    ]  # fmt: skip
    return tuple(sorted(f"src/interloom/{path.relative_to(PACKAGE).as_posix()}" for path in kept))


def _size(path: Path) -> int:
    return path.stat().st_size


def _file_of(module: str) -> Path | None:
    """The file of an ``interloom`` module or package; none for anything else."""
    head, *rest = module.split(".")
    if head != "interloom":
        return None
    base = PACKAGE.joinpath(*rest)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if rest and path.is_file():
            return path
    return None


@cache
def _imports(module: str) -> tuple[str, ...]:
    """Names that ``module`` imports anywhere in its text; each is a module or a name in one."""
    path = _file_of(module)
    assert path is not None
    names: set[str] = set()
    parts = module.split(".")
    names.update(".".join(parts[:end]) for end in range(2, len(parts)))  # packages run first
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(sorted(names))
