"""Two small charts as inline SVG: bars with intervals, and curves. No script, no font, no
library."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2", "#97bbf5", "#9c6b4e")
WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 12, 20
NAMES, ROW = 104, 24
"""Of bars: pixels for their names, and height of a row."""
LEGEND = 15
"""Height of a line of the legend; two names stand side by side."""


class Bar(NamedTuple):
    """One bar with its interval; all three on the axis of the chart."""

    label: str
    value: float
    low: float
    high: float


def bars(values: Sequence[Bar], *, title: str, top: float = 100.0) -> str:
    """Bars from 0 to ``top`` with their intervals, one below the other."""
    inner = WIDTH - NAMES - RIGHT
    height = TOP + ROW * len(values) + BOTTOM

    def x(value: float) -> float:
        return NAMES + inner * value / top

    parts = []
    for tick in range(5):
        at = top * tick / 4
        parts.append(
            f'<path d="M{x(at):.1f} {TOP}V{height - BOTTOM}" class="grid"/>'
            f'<text x="{x(at):.1f}" y="{height - 5}" text-anchor="middle">{at:g}</text>'
        )
    for number, bar in enumerate(values):
        y = TOP + ROW * number
        value, low, high = (x(v) for v in (bar.value, bar.low, bar.high))
        middle = y + ROW / 2
        # The number stands where no line crosses it.
        after = high + 5 if high < WIDTH - RIGHT - 30 else low - 30
        parts.append(
            f'<rect x="{NAMES}" y="{y + 4}" width="{value - NAMES:.1f}" height="{ROW - 8}" '
            f'fill="{COLOURS[number % len(COLOURS)]}"/>'
            f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} '
            f'{middle - 4}v8" stroke="currentColor" fill="none"/>'
            f'<text x="{after:.1f}" y="{middle + 4}">{bar.value:.1f}</text>'
            f'<text x="{NAMES - 6}" y="{middle + 4}" text-anchor="end">'
            f"{html.escape(bar.label)}</text>"
        )
    return _frame(title, parts, height)


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], *, title: str) -> str:
    """Lines through ``(step, value)`` points, a legend below; empty without any point."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = min(0.0, *(y for _, y in points)), max(y for _, y in points)
    y_high = y_high if y_high > y_low else y_low + 1
    span = (x_high - x_low) or 1.0
    parts = [_axis(y_low, y_high)]
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(
            f"{LEFT + (x - x_low) / span * (WIDTH - LEFT - RIGHT):.1f},{_y(y, y_low, y_high):.1f}"
            for x, y in line
        )
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        across = LEFT + (number % 2) * (WIDTH - LEFT) / 2
        down = HEIGHT + LEGEND * (number // 2 + 1) - 3
        parts.append(
            f'<rect x="{across:.1f}" y="{down - 9}" width="10" height="10" fill="{colour}"/>'
            f'<text x="{across + 14:.1f}" y="{down}">{html.escape(name)}</text>'
        )
    for x in (x_low, x_high):
        at = LEFT + (x - x_low) / span * (WIDTH - LEFT - RIGHT)
        parts.append(
            f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{x:g}</text>'
        )
    return _frame(title, parts, HEIGHT + LEGEND * ((len(lines) + 1) // 2))


def _y(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low)
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _axis(low: float, high: float) -> str:
    lines = []
    for tick in range(5):
        value = low + (high - low) * tick / 4
        y = _y(value, low, high)
        lines.append(
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" class="grid"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    return "".join(lines)


def _frame(title: str, parts: Sequence[str], height: float) -> str:
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {height:g}" '
        f'role="img" aria-label="{html.escape(title)}">{"".join(parts)}</svg></figure>'
    )
