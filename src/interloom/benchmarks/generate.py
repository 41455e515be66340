"""Stage ``generate``: every system of planner and critic answers a benchmark (``cells.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom import cast
from interloom.benchmarks import cells, parts
from interloom.cache import CallCache
from interloom.records import Request
from interloom.runner import StageRun
from interloom.settings.file import Settings

if TYPE_CHECKING:
    from interloom.benchmarks.answers import Players


class Agents:
    """The systems of the stage; they share models and calls."""

    answered_by = "interloom.benchmarks.answers"

    def __init__(self, settings: Settings, stage: StageRun) -> None:
        self.settings, self.stage = settings, stage
        self._players: Players | None = None

    def identity(self, name: str) -> dict[str, Any]:
        return parts.identity(name, self.settings, self.stage.digest_of, version_of)

    def described(self, found: dict[str, Any]) -> str:
        return parts.described(found)

    def writes_text(self, name: str) -> bool:
        return parts.writes_text(parts.parts_of(name, self.settings.evaluate))

    def fill(self, folder: Path, name: str, requests: Sequence[Request], *, seed: int) -> None:
        from interloom.benchmarks import answers

        self._players = self._players or open_players(self.settings, self.stage)
        system, generator = self._players.system(name)
        answers.fill(folder, requests, system, generator, self.stage, seed=seed)


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    options = settings.evaluate
    agents = Agents(settings, stage)
    cells.answer(options, options.systems, agents, stage, seed=settings.seed)


def open_players(settings: Settings, stage: StageRun) -> Players:
    """All systems, with nothing loaded yet but the libraries."""
    from interloom.benchmarks.answers import Players

    folders = {name: stage.dep(name) for name in parts.MODELS}
    folders["vlm"] = Path(settings.models.vlm)  # may be a hub's name
    cache = CallCache(stage.work / "calls.sqlite")
    return Players(settings, folders, cast.remotes(settings.remote, stage), cache)


def version_of(uri: str) -> str:
    """The version that a registered model's URI stands for now."""
    from interloom.catalogue import open_catalogue, resolve

    return str(resolve(open_catalogue(Path.cwd()), uri).version)
