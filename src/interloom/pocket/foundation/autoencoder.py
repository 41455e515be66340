"""The miniature's ``AutoencoderKLFlux2``: 96×96 pictures to nine tokens of 32 numbers.

One token is one cell of the world. Reconstruction alone is a slow teacher at this size (rare
colours collapse into common ones), so the encoder is also asked to name what each cell holds,
through three linear heads that are thrown away afterwards. That leaves latents in which kind,
colour and background lie apart, which is what the transformer has to predict.
"""

# The libraries' own annotations are looser than their code (lazy exports, config as dict).
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportCallIssue=false

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from torch import nn
from torch.nn import functional as F

from interloom.pocket.foundation.training import Metrics, Report, Schedule, train
from interloom.pocket.render import CELL_PIXELS, OFFSETS, SHADES, SIZES, paint_cell, sprite_masks
from interloom.pocket.scene import BACKGROUNDS, COLOURS, GRID, KINDS

SCHEDULE = Schedule(steps=6500, learning_rate=3e-3, flat=0.2, weight_decay=1e-4, average=0.99)
DECODER_NOISE = 0.3
"""Noise on latents while the decoder is refined, in standard deviations of a latent."""

_COLOURS = np.array(list(COLOURS.values()), np.float32)
_BACKGROUNDS = np.array(list(BACKGROUNDS.values()), np.float32)


def new_autoencoder() -> AutoencoderKLFlux2:
    """About 0.6 M parameters: five levels (×16), one layer each, eight latent channels."""
    return AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5,
        block_out_channels=(8, 16, 32, 48, 64),
        decoder_block_out_channels=(8, 16, 24, 48, 80),
        layers_per_block=1,
        latent_channels=8,
        norm_num_groups=8,
        sample_size=96,
        mid_block_add_attention=False,
    )


def patchify(latents: torch.Tensor) -> torch.Tensor:
    """(B, C, 2h, 2w) to (B, 4C, h, w), in the channel order of ``Flux2KleinPipeline``."""
    b, c, h, w = latents.shape
    latents = latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return latents.reshape(b, c * 4, h // 2, w // 2)


def random_cells(
    rng: np.random.Generator, batch: int, edge: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random pictures of ``edge``×``edge`` cells.

    Returns:
        Pictures in [-1, 1], (B, 3, 32·edge, 32·edge), and labels (B, 3, edge, edge): kind (0 is
        empty), colour (0 is empty) and background.
    """
    pixels = np.empty((batch, edge * CELL_PIXELS, edge * CELL_PIXELS, 3), np.float32)
    labels = np.zeros((batch, 3, edge, edge), np.int64)
    shades, sizes, offsets = np.array(SHADES), np.array(SIZES), np.array(OFFSETS)
    for i in range(batch):
        background = rng.integers(len(_BACKGROUNDS))
        pixels[i] = np.clip(_BACKGROUNDS[background] * rng.choice(shades), 0, 255)
        labels[i, 2] = background
        fill = rng.uniform(0.0, 1.0)
        for row in range(edge):
            for column in range(edge):
                if rng.random() > fill:
                    continue
                kind, colour = rng.integers(len(KINDS)), rng.integers(len(_COLOURS))
                dx, dy = rng.choice(offsets, 2)
                masks = sprite_masks(KINDS[kind], float(rng.choice(sizes)), int(dx), int(dy))
                y, x = row * CELL_PIXELS, column * CELL_PIXELS
                at = (i, slice(y, y + CELL_PIXELS), slice(x, x + CELL_PIXELS))
                pixels[at] = paint_cell(
                    pixels[at], _COLOURS[colour], masks, float(rng.choice(shades))
                )
                labels[i, 0, row, column], labels[i, 1, row, column] = kind + 1, colour + 1
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    return tensor.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels)


class Heads(nn.Module):
    """Linear read-outs of kind, colour and background from one cell's latent."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (len(KINDS) + 1, len(COLOURS) + 1, len(BACKGROUNDS))
        self.layers = nn.ModuleList(nn.Conv2d(32, size, 1) for size in sizes)

    def forward(self, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses = [
            F.cross_entropy(layer(tokens), labels[:, i]) for i, layer in enumerate(self.layers)
        ]
        return torch.stack(losses).sum()


def autoencoder_loss(
    autoencoder: AutoencoderKLFlux2,
    heads: Heads,
    pixels: torch.Tensor,
    target: torch.Tensor,
    labels: torch.Tensor,
    *,
    noise: float,
) -> tuple[torch.Tensor, float, float, torch.Tensor]:
    """Weighted reconstruction plus naming loss; returns ``(loss, l1, naming, decoded)``.

    The decoder sees latents with Gaussian noise of up to ``noise`` added, since a generator's
    latents are never exact.
    """
    posterior = autoencoder.encode(pixels, return_dict=False)[0]
    mean = posterior.mean
    spread = noise * torch.rand(len(mean), 1, 1, 1)
    decoded = autoencoder.decode(mean + spread * torch.randn_like(mean), return_dict=False)[0]
    error = decoded - target
    l1 = error.abs().mean()
    naming = heads(patchify(mean), labels)
    keep_small = 1e-3 * mean.pow(2).mean() + 1e-5 * (posterior.logvar + 4).pow(2).mean()
    loss = l1 + 2 * error.pow(2).mean() + 0.05 * naming + keep_small
    return loss, l1.item(), naming.item(), decoded


@torch.no_grad()
def set_latent_statistics(autoencoder: AutoencoderKLFlux2, rng: np.random.Generator) -> None:
    """Measure mean and variance of the patchified latents; the pipeline normalises with them."""
    tokens = [
        patchify(autoencoder.encode(random_cells(rng, 32, 3)[0], return_dict=False)[0].mode())
        for _ in range(24)
    ]
    stacked = torch.cat(tokens)
    autoencoder.bn.running_mean.copy_(stacked.mean((0, 2, 3)))
    autoencoder.bn.running_var.copy_(stacked.var((0, 2, 3)))


def train_autoencoder(
    work: Path, seed: int, report: Report, schedule: Schedule = SCHEDULE
) -> AutoencoderKLFlux2:
    """Train from scratch in three parts.

    Quarter pictures (2×2 cells) teach the sprites quickly. Whole pictures then set the group norms
    to what is normal in the world, mostly empty canvases included, and put half-finished
    reconstructions among the inputs: a chain of edits goes through the autoencoder again and again.
    Last the decoder alone, on noisier latents, learns to clean up what the transformer leaves.
    """
    torch.manual_seed(seed)
    autoencoder = new_autoencoder().to(memory_format=torch.channels_last)
    modules = {"autoencoder": autoencoder, "heads": Heads()}
    train(
        "autoencoder-quarters", modules, Quarters(autoencoder, modules["heads"]), schedule,
        work=work, seed=seed, report=report,
    )  # fmt: skip
    done = schedule.steps
    second = replace(schedule, steps=schedule.steps // 3, flat=0.2, learning_rate=2e-3)
    train(
        "autoencoder-wholes", modules, Wholes(autoencoder, modules["heads"]), second,
        work=work, seed=seed + 1, report=lambda step, m: report(done + step, m),
    )  # fmt: skip
    set_latent_statistics(autoencoder, np.random.default_rng(seed))
    done += second.steps
    autoencoder.requires_grad_(False)
    for part in (autoencoder.decoder, autoencoder.post_quant_conv):
        part.requires_grad_(True)
    third = replace(schedule, steps=schedule.steps // 6, flat=0.1, learning_rate=2e-3)
    train(
        "decoder", {"autoencoder": autoencoder}, Decoder(autoencoder), third,
        work=work, seed=seed + 2, report=lambda step, m: report(done + step, m),
    )  # fmt: skip
    return autoencoder.requires_grad_(False).eval()


class Quarters:
    """Reconstruct and name pictures of 2×2 cells."""

    def __init__(self, autoencoder: AutoencoderKLFlux2, heads: Heads) -> None:
        self.autoencoder, self.heads = autoencoder, heads

    def __call__(self, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, Metrics]:
        pixels, labels = random_cells(rng, 8, 2)
        loss, l1, naming, _ = autoencoder_loss(
            self.autoencoder, self.heads, pixels, pixels, labels, noise=0.1
        )
        return loss, {"l1": l1, "naming": naming}


class Wholes(Quarters):
    """The same on 3×3 cells, where two of five inputs are earlier reconstructions."""

    earlier: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def __call__(self, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, Metrics]:
        pixels, labels = random_cells(rng, 3, GRID)
        target = pixels
        if self.earlier is not None:
            again, original, named = self.earlier
            pixels, target = torch.cat([pixels, again]), torch.cat([target, original])
            labels = torch.cat([labels, named])
        loss, l1, naming, decoded = autoencoder_loss(
            self.autoencoder, self.heads, pixels, target, labels, noise=0.1
        )
        self.earlier = decoded[:2].detach().clamp(-1, 1), target[:2], labels[:2]
        return loss, {"l1": l1, "naming": naming}


class Decoder:
    """The decoder alone, on noisy latents of whole pictures."""

    def __init__(self, autoencoder: AutoencoderKLFlux2) -> None:
        self.autoencoder = autoencoder
        self.deviation = autoencoder.bn.running_var.sqrt().mean().item()

    def __call__(self, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, Metrics]:
        pixels, _ = random_cells(rng, 4, GRID)
        with torch.no_grad():
            latents = self.autoencoder.encode(pixels, return_dict=False)[0].mode()
        spread = DECODER_NOISE * self.deviation * torch.rand(len(latents), 1, 1, 1)
        noisy = latents + spread * torch.randn_like(latents)
        error = self.autoencoder.decode(noisy, return_dict=False)[0] - pixels
        l1 = error.abs().mean()
        return l1 + 2 * error.pow(2).mean(), {"l1": l1.item()}
