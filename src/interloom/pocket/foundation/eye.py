"""How lessons' pictures are drawn, and how the vision-language model gets to see them."""

# The libraries' own annotations are looser than their code.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2

from interloom.pocket.foundation.lessons import Picture, draw_picture
from interloom.pocket.foundation.vlm_model import PATCH
from interloom.pocket.render import SIZE_PIXELS
from interloom.pocket.scene import BACKGROUNDS, CELLS, GRID, Scene, random_sprite
from interloom.pocket.verifier import read_many

MADE = 0.35
"""Share of pictures that went through the generator's autoencoder; spoiled ones always do."""
SPOILED = 400
"""Spoiled cells kept per background, to be put into pictures."""


class Drawn(NamedTuple):
    """Pictures as pixels, and what is still to be done to them by the autoencoder."""

    pixels: torch.Tensor
    """uint8 (N, 96, 96, 3)."""
    through: torch.Tensor
    """int64: which of them go through the autoencoder."""
    spoiled: list[tuple[int, int, str, float]]
    """Place in ``through``, cell, background, and which spoiled cell goes there (from 0 to 1)."""
    noise: float


class Eye:
    """Pictures to pixel patches as the processor makes them, some of them as a generator would.

    A cell is spoiled as generators spoil it: its latents lie between those of two sprites, and the
    verifier calls what they decode to unreadable.
    """

    def __init__(self, autoencoder: AutoencoderKLFlux2, spoiled: int = SPOILED) -> None:
        self.autoencoder = autoencoder
        self.spoiled = {name: self._spoiled_cells(name, spoiled) for name in BACKGROUNDS}

    def draw(self, pictures: Sequence[Picture], rng: np.random.Generator) -> Drawn:
        """All that is left to chance; needs no autoencoder, so that it can be done elsewhere."""
        arrays = [draw_picture(picture, rng) for picture in pictures]
        pixels = torch.from_numpy(np.stack(arrays)) if arrays else torch.empty(0, dtype=torch.uint8)
        spoiled = np.array([bool(picture.unclear) for picture in pictures], bool)
        drawn = np.array([picture.pixels is None for picture in pictures], bool)
        through = np.flatnonzero(drawn & (spoiled | (rng.random(len(pictures)) < MADE)))
        cells = [
            (i, cell, pictures[at].scene.background, rng.random())
            for i, at in enumerate(through.tolist())
            for cell in pictures[at].unclear
        ]
        return Drawn(pixels, torch.from_numpy(through), cells, 0.15 * rng.random())

    def see(self, drawn: Drawn) -> torch.Tensor:
        """(N·36, 1536) float32 on the autoencoder's device; no rows for no pictures."""
        if not len(drawn.pixels):
            return torch.empty(0, PATCH * PATCH * 3 * 2)
        pixels = self._scaled(drawn.pixels)
        if len(drawn.through):
            through = drawn.through.to(pixels.device)
            latents = self._encode(pixels[through])
            for i, cell, background, which in drawn.spoiled:
                bank = self.spoiled[background]
                latents[i][_tokens(cell)] = bank[int(which * len(bank))]
            pixels[through] = self._decode(latents + drawn.noise * torch.randn_like(latents))
        return to_patches(pixels)

    def look(self, pictures: Sequence[Picture], rng: np.random.Generator) -> torch.Tensor:
        """Draw and see at once."""
        return self.see(self.draw(pictures, rng))

    def _scaled(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, 96, 96) in [-1, 1], on the autoencoder's device."""
        return pixels.to(self.autoencoder.device).permute(0, 3, 1, 2).float() / 127.5 - 1

    # Pictures are made in full precision, also inside a bfloat16 training step.
    @torch.no_grad()
    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(pixels.device.type, enabled=False):
            return self.autoencoder.encode(pixels, return_dict=False)[0].mode()

    @torch.no_grad()
    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            return self.autoencoder.decode(latents, return_dict=False)[0].clamp(-1, 1)

    def _spoiled_cells(self, background: str, count: int) -> list[torch.Tensor]:
        """At least ``count`` cells' latents between two sprites, unreadable when decoded."""
        rng, python = np.random.default_rng(0), random.Random(f"spoiled:{background}")
        found: list[torch.Tensor] = []
        while len(found) < count:
            scenes = [Picture(_full_scene(python, background)) for _ in range(16)]
            arrays = np.stack([draw_picture(scene, rng) for scene in scenes])
            latents = self._encode(self._scaled(torch.from_numpy(arrays)))
            share = torch.from_numpy(rng.uniform(0.3, 0.7, (16, 1, GRID, GRID))).to(latents)
            share = share.repeat_interleave(2, 2).repeat_interleave(2, 3)
            mixed = share * latents + (1 - share) * latents.roll(1, 0)
            decoded = (self._decode(mixed).permute(0, 2, 3, 1) + 1) * 127.5
            for i, reading in enumerate(read_many(list(decoded.byte().cpu().numpy()))):
                found += [mixed[i][_tokens(cell)] for cell in reading.unreadable]
        return found


def _full_scene(rng: random.Random, background: str) -> Scene:
    return Scene(tuple(random_sprite(rng) for _ in range(CELLS)), background)


def _tokens(cell: int) -> tuple[slice, slice, slice]:
    """Where a cell's latents stand in (channels, 6, 6)."""
    row, column = divmod(cell, GRID)
    return slice(None), slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2)


def to_patches(pixels: torch.Tensor) -> torch.Tensor:
    """(N, 3, 96, 96) in [-1, 1] to (N·36, 1536), in ``Qwen2VLImageProcessor``'s order."""
    n = len(pixels)
    doubled = pixels[:, None].expand(n, 2, 3, SIZE_PIXELS, SIZE_PIXELS)
    split = doubled.reshape(n, 1, 2, 3, GRID, 2, PATCH, GRID, 2, PATCH)
    return split.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(n * CELLS * 4, -1)
