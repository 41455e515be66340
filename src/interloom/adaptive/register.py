"""Stage ``register-adaptive``: the unified model after GRPO becomes a model version in MLflow."""

from __future__ import annotations

from interloom import registry
from interloom.registered import signatures
from interloom.runner import StageRun
from interloom.settings.file import Settings


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    unified, folder = settings.unified, stage.dep("adaptive-rl")
    name = settings.registration.adaptive_name
    entry = registry.Entry(
        parts=[
            registry.Part(
                name,
                "reasoner",
                {"unified": folder},
                signatures.reasoner(),
                registry.request_example(),
            )
        ],
        config={
            "dtype": unified.dtype,
            "image_pixels": unified.image_pixels,
            "grid_side": unified.grid_side,
            "batch_size": unified.batch_size,
            "max_new_tokens": settings.evaluate_adaptive.max_new_tokens,
        },
        system="adaptive-rl",
        trained=("adaptive-rl",),
        datasets=("adaptive-data",),
        about="# interloom: adaptive reasoner\n\nOne unified model that draws, judges what it "
        "drew, and by itself leaves it at that, reflects and mends, or works step by step.",
        based_on=f"base model `{unified.model}`",
        threads=settings.evaluate_adaptive.threads,
    )
    registry.register(entry, settings, stage)
