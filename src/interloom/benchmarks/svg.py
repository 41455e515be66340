"""Two small charts as inline SVG: bars with intervals, and curves. No script, no font, no
library."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#a463f2", "#97bbf5", "#9c6b4e")
WIDTH, HEIGHT = 560, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 46


class Bar(NamedTuple):
    """One bar with its interval; all three on the axis of the chart."""

    label: str
    value: float
    low: float
    high: float


def bars(values: Sequence[Bar], *, title: str, top: float = 100.0) -> str:
    """Bars from 0 to ``top`` with their intervals."""
    inner = WIDTH - LEFT - RIGHT
    step = inner / max(1, len(values))
    parts = [_axis(0.0, top)]
    for number, bar in enumerate(values):
        x = LEFT + step * (number + 0.5)
        y, low, high = (_y(v, 0.0, top) for v in (bar.value, bar.low, bar.high))
        base = _y(0.0, 0.0, top)
        wide = min(54.0, step * 0.62)
        parts.append(
            f'<rect x="{x - wide / 2:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{base - y:.1f}" '
            f'fill="{COLOURS[number % len(COLOURS)]}"/>'
            f'<path d="M{x:.1f} {low:.1f}V{high:.1f}M{x - 6:.1f} {low:.1f}h12M{x - 6:.1f} '
            f'{high:.1f}h12" stroke="currentColor" fill="none"/>'
            f'<text x="{x:.1f}" y="{high - 5:.1f}" text-anchor="middle">{bar.value:.1f}</text>'
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">'
            f"{html.escape(bar.label)}</text>"
        )
    return _frame(title, parts)


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
        across = LEFT + (number % 4) * 128
        down = HEIGHT - 24 + 15 * (number // 4)
        parts.append(
            f'<rect x="{across}" y="{down - 9}" width="10" height="10" fill="{colour}"/>'
            f'<text x="{across + 14}" y="{down}">{html.escape(name)}</text>'
        )
    for x in (x_low, x_high):
        at = LEFT + (x - x_low) / span * (WIDTH - LEFT - RIGHT)
        parts.append(
            f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 13}" text-anchor="middle">{x:g}</text>'
        )
    return _frame(title, parts)


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


def _frame(title: str, parts: Sequence[str]) -> str:
    return (
        f'<figure><figcaption>{html.escape(title)}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{html.escape(title)}">{"".join(parts)}</svg></figure>'
    )
