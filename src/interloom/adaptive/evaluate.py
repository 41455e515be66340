"""Stage ``evaluate-adaptive``: grade what the adaptive systems made, as stage ``evaluate`` does."""

from __future__ import annotations

from interloom.benchmarks import evaluate
from interloom.runner import StageRun
from interloom.settings.file import Settings


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    options = settings.evaluate_adaptive
    evaluate.grade(settings, options, options.systems, stage)
