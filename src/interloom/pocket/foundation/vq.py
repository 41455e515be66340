"""The unified miniature's picture tokenizer: an ``Emu3VQVAE`` in which one token is one cell.

Reconstruction alone is a poor teacher at this size: few codes get used, and those blend. So the
codes are laid out by what a cell can hold. The encoder learns to land nearest to the code of its
cell's content (kind + colour + background, whose vectors add up to the code), and then the decoder
learns to draw the codes. Pictures are 48×48, half the world's own size: the verifier still reads
all of them, and training costs a quarter.
"""

# The libraries' own annotations are looser than their code (lazy exports, config as dict).
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from torch import nn
from torch.nn import functional as F
from transformers import Emu3VQVAEConfig
from transformers.models.emu3.modeling_emu3 import Emu3VQVAE

from interloom.pocket.foundation.training import Metrics, Report, Schedule, train
from interloom.pocket.render import SIZE_PIXELS, render_array
from interloom.pocket.scene import (
    BACKGROUNDS,
    CELLS,
    COLOURS,
    GRID,
    KINDS,
    SPRITES,
    Scene,
    random_scene,
)
from interloom.pocket.verifier import read_many

SIDE_PIXELS = SIZE_PIXELS // 2
CONTENTS = 1 + len(SPRITES)
"""What a cell can hold on one background: nothing, or a sprite."""
CODES = CONTENTS * len(BACKGROUNDS)
WIDTH = 24
"""Numbers in a code."""

ENCODER_SCHEDULE = Schedule(
    steps=900, learning_rate=2e-3, warmup=40, flat=0.5, weight_decay=0.0, average=0.99
)
DECODER_SCHEDULE = Schedule(
    steps=1000, learning_rate=2e-3, warmup=40, flat=0.5, weight_decay=0.0, average=0.99
)
BATCH = 12
CHECKPOINT_EVERY = 100
"""Steps; they are slow ones."""
MADE = 0.35
"""Share of the encoder's pictures that went through the generator's autoencoder."""
SOFT = 0.25
"""Share that was scaled up and down again, as pictures of this very decoder are."""


def new_vq() -> Emu3VQVAE:
    """About 1.0 M parameters: five levels (×16) of 32 channels, the fewest its group norms take."""
    config = Emu3VQVAEConfig(
        codebook_size=CODES,
        embed_dim=WIDTH,
        latent_channels=WIDTH,
        temporal_downsample_factor=1,
        base_channels=32,
        channel_multiplier=[1, 1, 1, 1, 2],
        num_res_blocks=1,
        attn_resolutions=[],
        hidden_size=64,
        num_attention_heads=1,
    )
    vq = Emu3VQVAE(config)
    with torch.no_grad():
        vq.decoder.conv_out.weight.mul_(0.1)  # else the first pictures are all noise
    return vq


def scene_codes(scene: Scene) -> list[int]:
    """The nine codes of a scene, row by row.

    >>> scene_codes(Scene())
    [0, 0, 0, 0, 0, 0, 0, 0, 0]
    """
    start = list(BACKGROUNDS).index(scene.background) * CONTENTS
    return [start + (0 if s is None else 1 + SPRITES.index(s)) for s in scene.cells]


def codes_scene(codes: Sequence[int]) -> Scene:
    """The scene of nine codes; the background is the one that most of them name."""
    skies = [code // CONTENTS for code in codes]
    sky = max(range(len(BACKGROUNDS)), key=skies.count)
    cells = [code % CONTENTS for code in codes]
    return Scene(tuple(SPRITES[c - 1] if c else None for c in cells), list(BACKGROUNDS)[sky])


class Codebook(nn.Module):
    """Codes as sums: what kinds, colours and backgrounds have in common their codes share."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds = nn.Embedding(1 + len(KINDS), WIDTH)
        self.colours = nn.Embedding(1 + len(COLOURS), WIDTH)
        self.skies = nn.Embedding(len(BACKGROUNDS), WIDTH)
        for table in (self.kinds, self.colours, self.skies):
            nn.init.normal_(table.weight, std=0.7)

    def forward(self) -> torch.Tensor:
        """All codes, (297, 24)."""
        content = torch.arange(CONTENTS) - 1
        kind = torch.where(content < 0, 0, 1 + content // len(COLOURS))
        colour = torch.where(content < 0, 0, 1 + content % len(COLOURS))
        cells = self.kinds(kind) + self.colours(colour)
        return (self.skies.weight[:, None] + cells[None]).flatten(0, 1)


def latents(vq: Emu3VQVAE, pixels: torch.Tensor) -> torch.Tensor:
    """Before quantisation: (B, 3, 48, 48) in [-1, 1] to (B, 9, 24). The class has no training
    forward, so its parts are called as ``Emu3VQVAE.encode`` does."""
    hidden = vq.encoder(pixels.unsqueeze(1)).permute(0, 2, 1, 3, 4)
    return vq.quant_conv(hidden).flatten(2).transpose(1, 2)


def draw_codes(vq: Emu3VQVAE, codes: torch.Tensor) -> torch.Tensor:
    """Codes (B, 9) to pictures (B, 3, 48, 48), with gradients for the decoder."""
    return vq.decode(codes.view(-1, GRID, GRID))


def _halved(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    """uint8 (96, 96, 3) each, to (B, 3, 48, 48) in [-1, 1]."""
    stacked = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return F.avg_pool2d(stacked, 2)


def _scenes(rng: np.random.Generator, count: int) -> list[Scene]:
    python = random.Random(int(rng.integers(2**62)))
    return [random_scene(python, python.choice((0, 1, 2, 3, 4, 5, 6, 9))) for _ in range(count)]


class Encoding:
    """The encoder and the codebook: every cell lands nearest to the code of its content."""

    def __init__(self, vq: Emu3VQVAE, codebook: Codebook, autoencoder: AutoencoderKLFlux2) -> None:
        self.vq, self.codebook, self.autoencoder = vq, codebook, autoencoder

    def pictures(self, scenes: Sequence[Scene], rng: np.random.Generator) -> torch.Tensor:
        """Rendered with jitter and noise; some as the generator draws, some soft."""
        jitter = random.Random(int(rng.integers(2**62)))
        arrays = [
            np.clip(array + rng.normal(0, rng.choice((0, 3, 6)), array.shape), 0, 255)
            for array in (render_array(scene, jitter).astype(np.float32) for scene in scenes)
        ]
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1
        made = torch.from_numpy(rng.random(len(pixels)) < MADE)
        if made.any():
            with torch.no_grad():
                seen = self.autoencoder.encode(pixels[made], return_dict=False)[0].mode()
                seen = seen + 0.3 * rng.random() * torch.randn_like(seen)
                pixels[made] = self.autoencoder.decode(seen, return_dict=False)[0].clamp(-1, 1)
        small = F.avg_pool2d(pixels, 2)
        soft = torch.from_numpy(rng.random(len(small)) < SOFT)
        if soft.any():
            wide = F.interpolate(small[soft], scale_factor=2, mode="bicubic")
            small[soft] = F.avg_pool2d(wide, 2)
        return small

    def __call__(self, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, Metrics]:
        scenes = _scenes(rng, BATCH)
        labels = torch.tensor([scene_codes(scene) for scene in scenes]).flatten()
        seen = latents(self.vq, self.pictures(scenes, rng)).flatten(0, 1)
        codes = self.codebook()
        distances = torch.cdist(seen, codes).square()
        # Near its code, and not only nearer than to the others: the decoder is given codes.
        close = (seen - codes[labels]).square().mean()
        loss = F.cross_entropy(-distances, labels) + 0.2 * close
        right = (distances.argmin(1) == labels).float().mean()
        return loss, {"cells_right": right.item()}


class Decoding:
    """The decoder alone: from codes to the plain rendering."""

    def __init__(self, vq: Emu3VQVAE) -> None:
        self.vq = vq

    def __call__(self, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, Metrics]:
        scenes = _scenes(rng, BATCH)
        target = _halved([render_array(scene) for scene in scenes])
        drawn = draw_codes(self.vq, torch.tensor([scene_codes(scene) for scene in scenes]))
        error = drawn - target
        # Most of a picture is empty; without weights an empty picture would be a good answer.
        sky = target[:, :, :1, :1]
        weight = 1 + 3 * ((target - sky).abs().amax(1, keepdim=True) > 0.1).float()
        l1 = (error.abs() * weight).mean()
        return l1 + (error.square() * weight).mean(), {"l1": l1.item()}


def train_vq(
    autoencoder: AutoencoderKLFlux2, work: Path, seed: int, report: Report, scale: float = 1.0
) -> Emu3VQVAE:
    """Train from scratch, encoder with codebook first, then the decoder."""
    torch.manual_seed(seed)
    vq, codebook = new_vq(), Codebook()
    first, second = ENCODER_SCHEDULE.scaled(scale), DECODER_SCHEDULE.scaled(scale)
    reading = nn.ModuleDict({"encoder": vq.encoder, "quant_conv": vq.quant_conv})
    train(
        "umm-encoder", {"reading": reading, "codebook": codebook},
        Encoding(vq, codebook, autoencoder), first, work=work, seed=seed, report=report,
        checkpoint_every=CHECKPOINT_EVERY,
    )  # fmt: skip
    with torch.no_grad():
        vq.quantize.embedding.weight.copy_(codebook())
    drawing = nn.ModuleDict({"decoder": vq.decoder, "post_quant_conv": vq.post_quant_conv})
    vq.quantize.requires_grad_(False)
    train(
        "umm-decoder", {"drawing": drawing}, Decoding(vq), second, work=work, seed=seed + 1,
        report=lambda step, metrics: report(first.steps + step, metrics),
        checkpoint_every=CHECKPOINT_EVERY,
    )  # fmt: skip
    vq.requires_grad_(False).eval()
    report(first.steps + second.steps, vq_figures(vq, autoencoder, seed=seed + 7))
    return vq


@torch.no_grad()
def vq_figures(
    vq: Emu3VQVAE, autoencoder: AutoencoderKLFlux2, seed: int, count: int = 128
) -> dict[str, float]:
    """Shares, on fresh scenes: cells whose code is right, pictures that are right in every cell,
    decoded pictures that the verifier reads as their scene; and their mean quality (0–10)."""
    rng = np.random.default_rng(seed)
    scenes = _scenes(rng, count)
    wanted = torch.tensor([scene_codes(scene) for scene in scenes])
    pixels = Encoding(vq, Codebook(), autoencoder).pictures(scenes, rng)
    sizes = torch.tensor([[SIDE_PIXELS, SIDE_PIXELS]] * count)
    codes = torch.stack(list(vq.encode(pixels, sizes).image_tokens)).flatten(1)
    drawn = draw_codes(vq, wanted).clamp(-1, 1)
    arrays = ((drawn.permute(0, 2, 3, 1) + 1) * 127.5).round().byte().numpy()
    readings = read_many(list(arrays))
    read = [reading.scene == scene for reading, scene in zip(readings, scenes, strict=True)]
    assert codes.shape[1] == CELLS
    return {
        "cells_right": (codes == wanted).float().mean().item(),
        "pictures_right": (codes == wanted).all(1).float().mean().item(),
        "read": sum(read) / count,
        "quality": sum(reading.quality for reading in readings) / count,
    }
