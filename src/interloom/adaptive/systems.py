"""The adaptive systems on the benchmarks, and stage ``generate-adaptive``, in which they answer.

==============  ======================================  =====================
system          model                                   pictures of a request
==============  ======================================  =====================
adaptive-base   the base model: no text, no judgment    1
adaptive-sft    after fine-tuning on stories            as many as it wants
adaptive-rl     after GRPO                              as many as it wants
==============  ======================================  =====================

``evaluate_adaptive.more_systems`` adds those with a budget or a price on pictures.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from interloom.adaptive import cast as adaptive_cast
from interloom.adaptive.data import base_model
from interloom.adaptive.reasoner import AdaptiveReasoner, Budget
from interloom.adaptive.trajectories import answer
from interloom.benchmarks import cells
from interloom.benchmarks.filled import FIGURES, TRAJECTORIES, run_figures
from interloom.construct import store
from interloom.records import Request
from interloom.runner import StageRun
from interloom.settings.evaluation import AdaptiveEvaluateSettings, UnifiedSystemSettings
from interloom.settings.file import Settings

MODELS = ("umm", "adaptive-sft", "adaptive-rl")
"""The model folders, as the stages' files call them."""
OWN: Mapping[str, UnifiedSystemSettings] = {
    "adaptive-base": UnifiedSystemSettings(model="umm", images=1, reluctance=0.0),
    "adaptive-sft": UnifiedSystemSettings(model="adaptive-sft", images=0, reluctance=0.0),
    "adaptive-rl": UnifiedSystemSettings(model="adaptive-rl", images=0, reluctance=0.0),
}
"""The project's own systems."""


def parts_of(name: str, options: AdaptiveEvaluateSettings) -> UnifiedSystemSettings:
    """What a system is made of."""
    return OWN[name] if name in OWN else options.more_systems[name]


def budget_of(parts: UnifiedSystemSettings) -> Budget:
    """The budget of each of its requests."""
    return Budget(images=parts.images or None, reluctance=parts.reluctance)


def load_reasoner(model: str, settings: Settings, folder: Path) -> AdaptiveReasoner:
    """One of ``MODELS``, loaded.

    Raises:
        InterloomError: it cannot be loaded.
    """
    unified = adaptive_cast.unified(settings.unified, folder)
    longest = settings.evaluate_adaptive.max_new_tokens
    if model == "umm":  # it has never been told what to write after a picture
        longest = len(unified.stream.form(unified.grid)) - len(unified.stream.header(unified.grid))
    return AdaptiveReasoner(unified, max_tokens=longest)


class Reasoners:
    """The systems of one stage; models are loaded when first needed, each once.

    Args:
        folders: of ``MODELS``.
    """

    answered_by = __name__

    def __init__(self, settings: Settings, folders: Mapping[str, Path], stage: StageRun) -> None:
        self.settings, self.stage = settings, stage
        self.options = settings.evaluate_adaptive
        self.folders = folders

    def identity(self, name: str) -> dict[str, Any]:
        """All that decides what a system answers to given questions, as plain values."""
        parts = parts_of(name, self.options)
        return {
            "parts": parts.model_dump(mode="json"),
            "unified": self.settings.unified.model_dump(mode="json"),
            "digest": self.stage.digest_of(parts.model),
            "max_new_tokens": self.options.max_new_tokens,
        }

    def described(self, found: dict[str, Any]) -> str:
        """A system's identity in a line, for people."""
        parts = found["parts"]
        if parts["model"] == "umm":
            return f"{found['unified']['model']} alone"
        most = f"at most {parts['images']}" if parts["images"] else "as many as it wants"
        price = f", each further one {parts['reluctance']:g} nats dearer"
        return f"{parts['model']}, pictures: {most}{price if parts['reluctance'] else ''}"

    def writes_text(self, name: str) -> bool:
        """No benchmark that is asked wants texts."""
        return False

    def fill(self, folder: Path, name: str, requests: Sequence[Request], *, seed: int) -> None:
        """Let a system answer all requests, and keep its trajectories in ``folder``."""
        import torch

        if self.options.threads:
            torch.set_num_threads(self.options.threads)
        parts = parts_of(name, self.options)
        budget = budget_of(parts)
        reasoner = self._reasoner(parts.model)
        started = time.monotonic()
        with self.stage.progress(len(requests), f"{self.stage.value} × {name}") as bar:
            found = answer(reasoner, requests, [budget] * len(requests), seed)
            bar.advance(len(requests))
        store.write_shards(found, folder / TRAJECTORIES, shard_rows=500, about={})
        figures = run_figures(found, time.monotonic() - started)
        (folder / FIGURES).write_text(json.dumps(figures), encoding="utf-8")

    @cache  # noqa: B019  (it lives as long as its stage)
    def _reasoner(self, model: str) -> AdaptiveReasoner:
        return load_reasoner(model, self.settings, self.folders[model])


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    folders = {name: stage.dep(name) for name in MODELS}
    folders["umm"] = base_model(settings, folders["umm"])  # may be a hub's name
    options = settings.evaluate_adaptive
    reasoners = Reasoners(settings, folders, stage)
    cells.answer(options, options.systems, reasoners, stage, seed=settings.seed)
