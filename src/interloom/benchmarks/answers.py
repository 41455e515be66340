"""One cell of systems × benchmarks is filled: a system answers a benchmark's questions."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from interloom import cast, loop
from interloom.backends.remote import Remotes
from interloom.benchmarks.filled import FIGURES, TRAJECTORIES, run_figures
from interloom.benchmarks.systems import System, loader
from interloom.cache import CallCache
from interloom.construct import store
from interloom.records import Request
from interloom.roles import Generator
from interloom.runner import StageRun
from interloom.settings.file import Settings
from interloom.settings.models import GeneratorSettings


class Players:
    """The systems of one stage. Models are loaded when first needed, each once, and their calls are
    kept, so that those that share a planner make its calls once."""

    def __init__(
        self, settings: Settings, folders: dict[str, Path], remotes: Remotes, cache: CallCache
    ) -> None:
        import torch

        options = settings.evaluate
        if options.threads:
            torch.set_num_threads(options.threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._make = loader(
            settings.models, settings.teacher, options, folders, device, remotes, cache
        )
        self._remotes, self._cache = remotes, cache
        self._generators: dict[str, Generator] = {}

    def system(self, name: str) -> tuple[System, Generator]:
        """A system and its generator, loaded."""
        system = self._make(name)
        chosen = system.generator
        if not isinstance(chosen, GeneratorSettings):
            return system, chosen
        key = chosen.model_dump_json()
        if key not in self._generators:
            self._generators[key] = cast.generator(chosen, self._remotes, self._cache)
        return system, self._generators[key]


def fill(
    folder: Path,
    requests: Sequence[Request],
    system: System,
    generator: Generator,
    stage: StageRun,
    *,
    seed: int,
) -> None:
    """Let a system answer all requests, in lockstep, and keep its trajectories in ``folder``."""
    started = time.monotonic()
    with stage.progress(len(requests), f"{stage.value} × {system.name}") as bar:
        trajectories = loop.run(
            requests,
            system.planner,
            generator,
            system.critic,
            max_attempts=system.max_attempts,
            seed=seed,
            slots=len(requests),
            retries=0,  # the agents repeat what they cannot read themselves
            on_progress=lambda _: bar.advance(),
        )
    store.write_shards(trajectories, folder / TRAJECTORIES, shard_rows=500, about={})
    figures = run_figures(trajectories, time.monotonic() - started)
    (folder / FIGURES).write_text(json.dumps(figures), encoding="utf-8")
