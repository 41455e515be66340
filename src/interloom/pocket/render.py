"""Scenes to pictures: 96×96 pixels, one 32-pixel cell per sprite, seeded jitter.

A sprite is drawn from two masks, a body in its colour and a detail in a darker shade (the door of
a house, the eye of a fish). Masks are drawn once per kind, size and offset and then cached.
"""

from __future__ import annotations

import math
import random
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from interloom.pocket.scene import BACKGROUNDS, COLOURS, GRID, Scene

CELL_PIXELS = 32
SIZE_PIXELS = CELL_PIXELS * GRID
SHADES = (0.94, 1.0, 1.06)
"""Brightness factors that jitter chooses from."""
SIZES = (0.92, 1.0)
"""Size factors that jitter chooses from; 1.0 is a sprite about 24 pixels wide."""
OFFSETS = (-1, 0, 1)
"""Shifts of a sprite from the centre of its cell, in pixels, along either axis."""
DETAIL_SHADE = 0.55

_SCALE = 8  # supersampling
_RADIUS = 12.0


def _polygon(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], fill: int = 255) -> None:
    draw.polygon(points, fill=fill)


def _draw(  # noqa: PLR0912, PLR0915 - one case per kind is the plainest form
    kind: str, size: float, dx: int, dy: int
) -> tuple[Image.Image, Image.Image]:
    """Supersampled body and detail masks of one kind (mode L, 256×256)."""
    edge = CELL_PIXELS * _SCALE
    body, detail = (Image.new("L", (edge, edge), 0) for _ in range(2))
    b, d = ImageDraw.Draw(body), ImageDraw.Draw(detail)
    r = _RADIUS * size * _SCALE
    cx, cy = (CELL_PIXELS / 2 + dx) * _SCALE, (CELL_PIXELS / 2 + dy) * _SCALE

    def p(x: float, y: float) -> tuple[float, float]:
        return cx + x * r, cy + y * r

    def box(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
        return [p(x0, y0), p(x1, y1)]

    def star(points: int, outer: float, inner: float) -> list[tuple[float, float]]:
        radii = (outer, inner)
        turn = math.pi / points
        return [
            p(radii[i % 2] * math.sin(i * turn), -radii[i % 2] * math.cos(i * turn))
            for i in range(2 * points)
        ]

    match kind:
        case "circle":
            b.ellipse(box(-0.95, -0.95, 0.95, 0.95), fill=255)
        case "square":
            b.rectangle(box(-0.85, -0.85, 0.85, 0.85), fill=255)
        case "triangle":
            b.polygon([p(0, -1), p(1, 0.85), p(-1, 0.85)], fill=255)
        case "cross":
            b.rectangle(box(-0.32, -1, 0.32, 1), fill=255)
            b.rectangle(box(-1, -0.32, 1, 0.32), fill=255)
        case "sun":
            b.polygon(star(8, 1.08, 0.62), fill=255)
            d.ellipse(box(-0.42, -0.42, 0.42, 0.42), fill=255)
        case "moon":
            b.ellipse(box(-0.95, -1, 0.95, 1), fill=255)
            b.ellipse(box(-0.35, -1.0, 1.35, 0.72), fill=0)
        case "star":
            b.polygon(star(5, 1.1, 0.46), fill=255)
        case "cloud":
            b.ellipse(box(-1.08, -0.1, -0.1, 0.72), fill=255)
            b.ellipse(box(0.05, -0.15, 1.08, 0.72), fill=255)
            b.ellipse(box(-0.65, -0.72, 0.55, 0.5), fill=255)
            b.rectangle(box(-0.6, 0.2, 0.6, 0.72), fill=255)
        case "tree":
            b.polygon([p(0, -1.1), p(0.62, -0.25), p(-0.62, -0.25)], fill=255)
            b.polygon([p(0, -0.6), p(0.92, 0.55), p(-0.92, 0.55)], fill=255)
            d.rectangle(box(-0.2, 0.55, 0.2, 1.05), fill=255)
        case "house":
            b.polygon([p(0, -1.05), p(1.05, -0.15), p(-1.05, -0.15)], fill=255)
            b.rectangle(box(-0.78, -0.15, 0.78, 0.95), fill=255)
            d.rectangle(box(-0.26, 0.25, 0.26, 0.95), fill=255)
        case "flower":
            for i in range(5):
                a = 2 * math.pi * i / 5
                x, y = 0.58 * math.sin(a), -0.58 * math.cos(a)
                b.ellipse(box(x - 0.46, y - 0.46, x + 0.46, y + 0.46), fill=255)
            d.ellipse(box(-0.34, -0.34, 0.34, 0.34), fill=255)
        case "sprout":
            b.ellipse(box(-1.05, -0.95, -0.02, -0.15), fill=255)
            b.ellipse(box(0.02, -0.75, 1.05, 0.05), fill=255)
            b.rectangle(box(-0.12, -0.55, 0.12, 0.6), fill=255)
            d.rectangle(box(-0.7, 0.6, 0.7, 0.95), fill=255)
        case "cup":
            b.ellipse(box(0.25, -0.45, 1.1, 0.5), fill=255)
            b.ellipse(box(0.48, -0.22, 0.87, 0.27), fill=0)
            b.polygon([p(-0.95, -0.75), p(0.65, -0.75), p(0.45, 0.9), p(-0.75, 0.9)], fill=255)
            d.rectangle(box(-0.95, -0.75, 0.65, -0.5), fill=255)
        case "fish":
            b.ellipse(box(-1.1, -0.6, 0.6, 0.6), fill=255)
            b.polygon([p(0.35, 0), p(1.1, -0.65), p(1.1, 0.65)], fill=255)
            d.ellipse(box(-0.78, -0.3, -0.46, 0.02), fill=255)
        case _:
            raise AssertionError(kind)
    return body, detail


@cache
def sprite_masks(kind: str, size: float = 1.0, dx: int = 0, dy: int = 0) -> np.ndarray:
    """Coverage of body and detail, float32 (2, 32, 32) in [0, 1]; detail lies within body."""
    layers = _draw(kind, size, dx, dy)
    shape = (CELL_PIXELS, CELL_PIXELS)
    body, detail = (
        np.asarray(m.resize(shape, Image.Resampling.BOX), np.float32) / 255 for m in layers
    )
    return np.stack([np.maximum(body, detail), detail])


def paint_cell(
    background: np.ndarray, colour: np.ndarray, masks: np.ndarray, shade: float = 1.0
) -> np.ndarray:
    """Composite one sprite: (32, 32, 3) float32 in 0–255."""
    body, detail = masks[0][..., None], masks[1][..., None]
    tone = np.clip(colour * shade, 0, 255)
    painted = background * (1 - body) + tone * body
    return painted * (1 - detail) + tone * DETAIL_SHADE * detail


@cache
def _palette(table: str) -> dict[str, np.ndarray]:
    colours = COLOURS if table == "sprites" else BACKGROUNDS
    return {name: np.array(rgb, np.float32) for name, rgb in colours.items()}


def render_array(scene: Scene, jitter: random.Random | None = None) -> np.ndarray:
    """The picture as uint8 (96, 96, 3). Without ``jitter`` every sprite is centred and plain."""
    background = _palette("backgrounds")[scene.background]
    if jitter:
        background = np.clip(background * jitter.choice(SHADES), 0, 255)
    image = np.empty((SIZE_PIXELS, SIZE_PIXELS, 3), np.float32)
    image[:] = background
    for cell, sprite in scene.sprites():
        size, dx, dy, shade = 1.0, 0, 0, 1.0
        if jitter:
            size, shade = jitter.choice(SIZES), jitter.choice(SHADES)
            dx, dy = jitter.choice(OFFSETS), jitter.choice(OFFSETS)
        row, column = divmod(cell, GRID)
        at = (
            slice(row * CELL_PIXELS, (row + 1) * CELL_PIXELS),
            slice(column * CELL_PIXELS, (column + 1) * CELL_PIXELS),
        )
        masks = sprite_masks(sprite.kind, size, dx, dy)
        image[at] = paint_cell(image[at], _palette("sprites")[sprite.colour], masks, shade)
    return np.round(image).astype(np.uint8)


def render(scene: Scene, jitter_seed: int | None = None) -> Image.Image:
    """The picture of a scene, 96×96 RGB; with a seed, positions, sizes and shades vary."""
    jitter = None if jitter_seed is None else random.Random(jitter_seed)
    return Image.fromarray(render_array(scene, jitter))
