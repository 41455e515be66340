"""The shipped miniatures by name, called as the pocket profile calls them."""

from __future__ import annotations

from pathlib import Path

from diffusers import AutoencoderKLFlux2

from interloom.backends.diffusers import DiffusersGenerator
from interloom.errors import InterloomError
from interloom.pocket.foundation.generator import CALL


def load_generator(folder: Path, batch_size: int = 32, device: str = "cpu") -> DiffusersGenerator:
    """A shipped generator (or one trained by ``interloom pocket train generator``).

    Raises:
        InterloomError: the folder is not there; says how to get it.
    """
    _check(folder)
    return DiffusersGenerator(folder, CALL, batch_size=batch_size, device=device)


def load_autoencoder(folder: Path) -> AutoencoderKLFlux2:
    """The frozen autoencoder of a shipped generator.

    Raises:
        InterloomError: the folder is not there; says how to get it.
    """
    _check(folder)
    autoencoder = AutoencoderKLFlux2.from_pretrained(folder / "vae")
    return autoencoder.eval().requires_grad_(False)


def _check(folder: Path) -> None:
    if not (folder / "model_index.json").is_file():
        raise InterloomError(
            f"{folder}: no generator here. Run `dvc pull` for the shipped one, or"
            " `interloom pocket train generator` to train it."
        )
