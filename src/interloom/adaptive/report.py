"""Stage ``report-adaptive``: the adaptive systems' page, of the same sections as the others'."""

from __future__ import annotations

from interloom.benchmarks import report
from interloom.runner import StageRun
from interloom.settings.file import Settings

CURVES = {
    "sft-adaptive": ("success", "first_success", "self_accuracy", "valid", "loss"),
    "grpo-adaptive": ("success", "reward", "objective", "images", "valid"),
}
"""Per training stage the metrics that are drawn."""


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    report.write(settings, stage, CURVES, stage.dep("adaptive-verdict"))
