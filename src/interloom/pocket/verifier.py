"""Reads any picture back into a scene and scores it: the world's exact judge.

Each cell is compared with every sprite that could stand there (kind × colour × jitter on the
background seen) and with an empty cell. The best match is believed only if it is close and clearly
closer than the next different sprite; otherwise the cell is *unreadable*. Scores follow VIEScore:
0–10 for meaning and for workmanship, each the minimum of its sub-scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from PIL import Image

from interloom.pocket.goal import Goal
from interloom.pocket.render import (
    CELL_PIXELS,
    OFFSETS,
    SHADES,
    SIZE_PIXELS,
    SIZES,
    paint_cell,
    sprite_masks,
)
from interloom.pocket.scene import BACKGROUNDS, CELLS, COLOURS, GRID, KINDS, Scene, Sprite

FaultKind = Literal["malformed", "blended", "blurred", "off_palette", "uneven_background"]

MAX_DISTANCE = 0.145
"""Root-mean-square error (0–1, over the pixels of the sprite) above which nothing is recognised."""
PALE_DISTANCE = 0.20
"""The same where kind and colour stand clear of all others: pale or stained, yet plain to see."""
CLEAR_KIND_MARGIN = 0.25
CLEAR_COLOUR_MARGIN = 0.20
MIN_KIND_MARGIN = 0.12
"""A kind is believed if the next kind is farther away by at least this share."""
MIN_COLOUR_MARGIN = 0.08
"""A colour is believed if the next colour is farther away by at least this share."""
AGREED_COLOUR_MARGIN = 0.02
"""The same where the inside of the sprite and the whole of it name the same colour."""
PRESENT = 0.055
"""Root-mean-square contrast with the background (0–1) from which a cell is not empty."""
TRACE = 0.02
"""Contrast of 4×4-pixel means from which a cell is not empty either: a ghost, and unreadable."""

_WIDE_OFFSETS = (*(min(OFFSETS) - 1,), *OFFSETS, *(max(OFFSETS) + 1,))
_COARSE = 16  # edge of the thumbnails in which sprites are first compared


@dataclass(frozen=True)
class Fault:
    """Something badly made, and where (``cell`` is None for the picture as a whole)."""

    kind: FaultKind
    cell: int | None
    strength: float
    """0 (none) to 1 (ruined)."""


@dataclass(frozen=True)
class CellReading:
    """What one cell shows. ``readable`` is False where the verifier will not say."""

    sprite: Sprite | None
    readable: bool
    confidence: float
    """0–1: how much closer the match is than the runner-up."""
    distance: float


@dataclass(frozen=True)
class Reading:
    """A picture as read."""

    cells: tuple[CellReading, ...]
    background: str
    background_confidence: float
    faults: tuple[Fault, ...]

    @property
    def unreadable(self) -> list[int]:
        return [i for i, cell in enumerate(self.cells) if not cell.readable]

    @property
    def scene(self) -> Scene | None:
        """The scene, or ``None`` if any cell is unreadable."""
        return None if self.unreadable else self.best_guess

    @property
    def best_guess(self) -> Scene:
        """The scene with unreadable cells taken as empty."""
        return Scene(tuple(c.sprite if c.readable else None for c in self.cells), self.background)

    @property
    def quality(self) -> float:
        """0–10, the worst of form, sharpness, palette and background."""
        return 10 * (1 - max((fault.strength for fault in self.faults), default=0.0))


# -------------------------------------------------------------------------------- templates


@dataclass(frozen=True)
class _Templates:
    """All sprites on one background: (T, 32, 32, 3) float32 in 0–1, and their thumbnails, flat."""

    sprites: tuple[tuple[int, int], ...]  # (kind, colour) per template
    full: np.ndarray
    coarse: np.ndarray
    coarse_norms: np.ndarray


def _thumbnail(cells: np.ndarray) -> np.ndarray:
    """(N, 32, 32, 3) to (N, 16·16·3)."""
    step = CELL_PIXELS // _COARSE
    small = cells.reshape(len(cells), _COARSE, step, _COARSE, step, 3).mean((2, 4))
    return small.reshape(len(cells), -1)


@cache
def _templates(background: str) -> _Templates:
    base = np.array(BACKGROUNDS[background], np.float32)
    canvas = np.broadcast_to(base, (CELL_PIXELS, CELL_PIXELS, 3))
    colours = [np.array(rgb, np.float32) for rgb in COLOURS.values()]
    ids, cells = [], []
    for k, kind in enumerate(KINDS):
        for size in SIZES:
            for dx in OFFSETS:
                for dy in OFFSETS:
                    masks = sprite_masks(kind, size, dx, dy)
                    for c, colour in enumerate(colours):
                        ids.append((k, c))
                        cells.append(paint_cell(canvas, colour, masks))
    full = np.stack(cells).astype(np.float32) / 255
    coarse = _thumbnail(full)
    return _Templates(tuple(ids), full, coarse, (coarse**2).sum(1))


# ---------------------------------------------------------------------------------- reading


def _to_cells(image: Image.Image | np.ndarray) -> np.ndarray:
    """(9, 32, 32, 3) float32 in 0–1; other sizes are scaled to 96×96 first."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image = image.convert("RGB")
    if image.size != (SIZE_PIXELS, SIZE_PIXELS):
        image = image.resize((SIZE_PIXELS, SIZE_PIXELS), Image.Resampling.BICUBIC)
    array = np.asarray(image, np.float32) / 255
    split = array.reshape(GRID, CELL_PIXELS, GRID, CELL_PIXELS, 3).transpose(0, 2, 1, 3, 4)
    return split.reshape(CELLS, CELL_PIXELS, CELL_PIXELS, 3)


@cache
def _frame() -> np.ndarray:
    """Mask of the pixels along a cell's edge, which no sprite fills."""
    mask = np.ones((CELL_PIXELS, CELL_PIXELS), bool)
    mask[2:-2, 2:-2] = False
    return mask


def _read_background(cells: np.ndarray) -> tuple[str, float, np.ndarray, float]:
    """Name, confidence, measured colour per cell (9, 3) and unevenness (0–1) of the background."""
    frames = np.median(cells[:, _frame()], axis=1)
    overall = np.median(frames, axis=0)
    distances = {}
    for name, rgb in BACKGROUNDS.items():
        shades = np.clip(np.outer(np.linspace(0.9, 1.1, 9), np.array(rgb) / 255), 0, 1)
        distances[name] = float(np.abs(shades - overall).mean(1).min())
    best, second = sorted(distances, key=distances.__getitem__)[:2]
    confidence = 1 - (distances[best] + 1e-3) / (distances[second] + 1e-3)
    if distances[best] > 0.15:
        confidence = 0.0
    unevenness = float(np.abs(frames - overall).mean(1).max())
    return best, confidence, frames, unevenness


def _cell_faults(
    cell: int, pixels: np.ndarray, fit: np.ndarray, template: np.ndarray, weight: np.ndarray
) -> list[Fault]:
    """Form, sharpness and palette of one recognised sprite.

    What one pass through a small autoencoder leaves, and a person does not see, is tolerated.
    """

    def energy(picture: np.ndarray) -> float:
        return float((np.diff(picture, axis=0) ** 2).sum() + (np.diff(picture, axis=1) ** 2).sum())

    body = weight > 0.97
    error = pixels - fit
    form = float(np.sqrt((error**2).mean(-1)[weight > 0.02].mean()))
    sharpness = energy(pixels) / max(energy(fit), 1e-6)
    tone = np.abs((pixels - template)[body].mean(0)).max() if body.any() else 0.0
    faults = [
        Fault("malformed", cell, _strength(form, 0.09, 0.16)),
        Fault("blurred", cell, _strength(1 - sharpness, 0.50, 0.90)),
        Fault("off_palette", cell, _strength(float(tone), 0.10, 0.26)),
    ]
    return [fault for fault in faults if fault.strength > 0]


def _strength(value: float, tolerated: float, ruined: float) -> float:
    return float(np.clip((value - tolerated) / (ruined - tolerated), 0, 1))


def _fit_shade(pixels: np.ndarray, template: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The template brightened or darkened within the jitter to fit the pixels best."""
    shades = np.linspace(min(SHADES) - 0.02, max(SHADES) + 0.02, 7)
    candidates = np.clip(
        template * (1 + (shades[:, None, None, None] - 1) * alpha[None, ..., None]), 0, 1
    )
    errors = ((candidates - pixels[None]) ** 2).sum((1, 2, 3))
    return candidates[int(errors.argmin())]


@dataclass(frozen=True)
class _Look:
    """One picture before its sprites are named."""

    cells: np.ndarray  # (9, 32, 32, 3)
    shifted: np.ndarray  # the same with the background moved onto the palette's own
    background: str
    background_confidence: float
    unevenness: float
    contrast: np.ndarray  # (9,), pixel by pixel
    trace: np.ndarray  # (9,), of 4×4 means, in which noise cancels out and ghosts stay

    @property
    def occupied(self) -> list[int]:
        return [cell for cell in range(CELLS) if self.contrast[cell] >= PRESENT]


def _look(image: Image.Image | np.ndarray) -> _Look:
    cells = _to_cells(image)
    background, confidence, frames, unevenness = _read_background(cells)
    base = np.array(BACKGROUNDS[background], np.float32) / 255
    off = cells - frames[:, None, None]
    contrast = np.sqrt((off**2).mean((1, 2, 3)))
    means = off.reshape(CELLS, CELL_PIXELS // 4, 4, CELL_PIXELS // 4, 4, 3).mean((2, 4))
    trace = np.sqrt((means**2).mean((1, 2, 3)))
    return _Look(cells, off + base, background, confidence, unevenness, contrast, trace)


def read(image: Image.Image | np.ndarray) -> Reading:
    """Read a picture of any size and mode.

    >>> from interloom.pocket.render import render
    >>> scene = Scene.of({0: Sprite("red", "sun")}, "night")
    >>> read(render(scene, jitter_seed=3)).scene == scene
    True
    """
    return read_many([image])[0]


def read_many(images: Sequence[Image.Image | np.ndarray]) -> list[Reading]:
    """Read many pictures; comparing all their cells at once is several times faster."""
    looks = [_look(image) for image in images]
    matches: dict[tuple[int, int], tuple[int, float]] = {}
    for background in BACKGROUNDS:
        keys = [
            (i, cell)
            for i, look in enumerate(looks)
            if look.background == background
            for cell in look.occupied
        ]
        if not keys:
            continue
        # A sprite's own colour does not move with the background, its surroundings do: the nearer
        # of both views counts.
        shifted = np.stack([looks[i].shifted[cell] for i, cell in keys])
        plain = np.stack([looks[i].cells[cell] for i, cell in keys])
        found = _match(_templates(background), _thumbnail(shifted), _thumbnail(plain))
        matches |= dict(zip(keys, found, strict=True))
    return [
        _name_cells(look, {cell: matches[i, cell] for cell in look.occupied})
        for i, look in enumerate(looks)
    ]


def _name_cells(look: _Look, matches: dict[int, tuple[int, float]]) -> Reading:
    bank = _templates(look.background)
    readings: list[CellReading] = []
    faults: list[Fault] = []
    if look.unevenness > 0.06:
        strength = _strength(look.unevenness, 0.06, 0.25)
        faults.append(Fault("uneven_background", None, strength))
    for cell in range(CELLS):
        if cell not in matches:
            trace = float(look.trace[cell])
            empty = trace < TRACE
            readings.append(CellReading(None, empty, max(0.0, 1 - trace / TRACE), trace))
            if not empty:
                faults.append(Fault("malformed", cell, 1.0))
            continue
        best, kind_margin = matches[cell]
        template = bank.full[best]
        weight, detail = _template_masks(bank, best)
        seen = np.where(weight[..., None] > 0.5, look.cells[cell], look.shifted[cell])
        fit = _fit_shade(seen, template, weight)
        distance = float(np.sqrt(((seen - fit) ** 2).mean(-1)[weight > 0.02].mean()))
        kind, colour = bank.sprites[best]
        whole = colour
        colour, colour_margin = _name_colour(seen, whole, (weight > 0.97) & (detail < 0.03))
        enough = AGREED_COLOUR_MARGIN if colour == whole else MIN_COLOUR_MARGIN
        margin = min(kind_margin / MIN_KIND_MARGIN, colour_margin / enough)
        sprite = Sprite(tuple(COLOURS)[colour], KINDS[kind])
        clear = kind_margin >= CLEAR_KIND_MARGIN and colour_margin >= CLEAR_COLOUR_MARGIN
        readable = distance <= (PALE_DISTANCE if clear else MAX_DISTANCE) and margin >= 1
        confidence = min(kind_margin, colour_margin)
        readings.append(CellReading(sprite if readable else None, readable, confidence, distance))
        if readable:
            faults += _cell_faults(cell, seen, fit, template, weight)
            blend = _strength(1 - kind_margin, 0.75, 1 - MIN_KIND_MARGIN + 0.05)
            if blend > 0:
                faults.append(Fault("blended", cell, blend))
        else:
            faults.append(Fault("malformed" if margin >= 1 else "blended", cell, 1.0))
    return Reading(tuple(readings), look.background, look.background_confidence, tuple(faults))


def _match(bank: _Templates, *views: np.ndarray) -> list[tuple[int, float]]:
    """Per cell the nearest template over all views, and the margin to the nearest other *kind*."""
    squared = np.min(
        [bank.coarse_norms - 2 * v @ bank.coarse.T + (v**2).sum(1)[:, None] for v in views], axis=0
    )
    distances = np.sqrt(np.maximum(squared, 1e-9))
    per_kind = distances.reshape(len(distances), len(KINDS), distances.shape[1] // len(KINDS)).min(
        2
    )
    ordered = np.sort(per_kind, axis=1)
    margins = 1 - ordered[:, 0] / ordered[:, 1]
    return list(zip(distances.argmin(1).tolist(), margins.tolist(), strict=True))


def _name_colour(pixels: np.ndarray, guess: int, plain: np.ndarray) -> tuple[int, float]:
    """Colour from the inside of the sprite, where neither edges nor the detail bleed in."""
    if plain.sum() < 8:
        return guess, 0.0
    tone = np.median(pixels[plain], axis=0)
    shades = np.linspace(min(SHADES) - 0.04, max(SHADES) + 0.04, 9)
    palette = np.array(list(COLOURS.values()), np.float32) / 255
    distances = np.abs(palette[:, None] * shades[None, :, None] - tone).mean(2).min(1)
    order = distances.argsort()
    return int(order[0]), float(1 - (distances[order[0]] + 0.005) / (distances[order[1]] + 0.005))


def _template_masks(bank: _Templates, index: int) -> np.ndarray:
    """Body and detail coverage (2, 32, 32) of a template."""
    per_colour = len(COLOURS)
    jitters = len(SIZES) * len(OFFSETS) ** 2
    jitter = (index // per_colour) % jitters
    size, rest = divmod(jitter, len(OFFSETS) ** 2)
    dx, dy = divmod(rest, len(OFFSETS))
    kind, _ = bank.sprites[index]
    return sprite_masks(KINDS[kind], SIZES[size], OFFSETS[dx], OFFSETS[dy])


# ---------------------------------------------------------------------------------- scoring


@dataclass(frozen=True)
class Verdict:
    """How a picture stands to a goal.

    ``semantic`` and ``quality`` are 0–10; the four SAIR axes are integers 1–5.
    """

    semantic: float
    quality: float
    missed: tuple[int, ...]
    """Cells that should have changed (or hold something) and are not as wanted."""
    damaged: tuple[int, ...]
    """Cells that should have stayed and did not: collateral damage."""
    background_wrong: bool
    instruction: int
    consistency: int
    knowledge: int
    craft: int
    expected: Scene
    reading: Reading

    @property
    def success(self) -> bool:
        """Exactly what was wanted, and well enough made to be read."""
        return not self.missed and not self.damaged and not self.background_wrong


def _one_to_five(share: float) -> int:
    return 1 + round(4 * float(np.clip(share, 0, 1)))


def judge(image: Image.Image | np.ndarray | Reading, goal: Goal) -> Verdict:
    """Score a picture against a goal.

    The meaning score is the lower of two: how much of what was asked for is there (a right kind in
    a wrong colour, or the reverse, counts half) and how much of the rest was left alone (three
    points off per damaged cell). Without a picture before, everything is asked for.
    """
    reading = image if isinstance(image, Reading) else read(image)
    seen, before = reading.best_guess, goal.before
    expected = goal.nearest(seen)
    unreadable = set(reading.unreadable)
    if before is None:
        asked = [i for i, sprite in enumerate(expected.cells) if sprite]
        sky_asked = expected.background != "day" or not asked
    else:
        asked = before.difference(expected)
        sky_asked = before.background != expected.background
    rest = [i for i in range(CELLS) if i not in asked]
    wrong = {i for i in range(CELLS) if i in unreadable or seen.cells[i] != expected.cells[i]}
    background_wrong = seen.background != expected.background
    points = [_cell_points(seen.cells[i], expected.cells[i], i in unreadable) for i in asked]
    if sky_asked:
        points.append(0.0 if background_wrong else 1.0)
    done = float(np.mean(points)) if points else 1.0
    damaged = [i for i in rest if i in wrong]
    harm = len(damaged) + (background_wrong and not sky_asked)
    kept = max(0.0, 1 - 0.3 * harm)
    return Verdict(
        semantic=10 * min(done, kept),
        quality=reading.quality,
        missed=tuple(i for i in asked if i in wrong),
        damaged=tuple(damaged),
        background_wrong=background_wrong,
        instruction=_one_to_five(done),
        consistency=_one_to_five(kept),
        knowledge=_one_to_five(done if kept > 0.5 else done / 2),
        craft=_one_to_five(reading.quality / 10),
        expected=expected,
        reading=reading,
    )


def _cell_points(seen: Sprite | None, wanted: Sprite | None, unreadable: bool) -> float:
    if unreadable:
        return 0.0
    if seen == wanted:
        return 1.0
    if seen is None or wanted is None:
        return 0.0
    return 0.5 * ((seen.kind == wanted.kind) + (seen.colour == wanted.colour))
