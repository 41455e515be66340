"""Who plays which role in the adaptive system: from the params to an analyzer or a unified model.

Beside ``interloom.cast``, so that the other system's stages do not depend on these backends.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from interloom.cast import chat
from interloom.roles import Analyzer

if TYPE_CHECKING:
    from interloom.backends.remote import Remotes
    from interloom.backends.unified import UnifiedModel
    from interloom.settings.models import TeacherSettings, UnifiedSettings


def analyzer(
    backend: Literal["pocket", "gemini", "openai"],
    model: str,
    settings: TeacherSettings,
    remotes: Remotes | None = None,
) -> Analyzer:
    """SAIR's analyzer; a remote one has the temperature and limit of the ``teacher`` section."""
    if backend == "pocket":
        from interloom.backends.pocket_analyzer import PocketAnalyzer

        return PocketAnalyzer()
    from interloom.backends.remote_analyzer import RemoteAnalyzer

    return RemoteAnalyzer(chat(backend, model, settings, remotes))


def unified(settings: UnifiedSettings, path: Path | None = None) -> UnifiedModel:
    """The unified model of the ``unified`` section, loaded; ``path`` names other weights of it.

    Raises:
        InterloomError: it cannot be loaded.
    """
    import torch

    from interloom.backends.unified import UnifiedModel

    return UnifiedModel.from_pretrained(
        path or settings.model,
        device="cuda" if torch.cuda.is_available() else "cpu",
        dtype={"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
            settings.dtype
        ],
        image_pixels=settings.image_pixels,
        grid_side=settings.grid_side,
        batch_size=settings.batch_size,
    )
