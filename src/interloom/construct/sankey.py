"""Where rows went, as a Sankey-like drawing: one SVG, for MLflow, DVC and any browser."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

from interloom.construct.yields import Yield

LEFT, TOP, COLUMN, BAR, BAND, GAP, LINE = 20, 34, 300, 12, 150, 16, 15
KEPT = "#28a248"
LOST = ("#d7262d", "#e8853a", "#e3b341", "#a463f2", "#4269d0", "#9c6b4e", "#888888")


class _Part(NamedTuple):
    """What became of some of the rows of a step."""

    name: str
    rows: int
    colour: str


def chains(yields: Sequence[Yield]) -> list[list[Yield]]:
    """Steps in rows: one follows the other where all that was kept came in, and nothing else.

    >>> a, b, c = Yield("a", 9, 7, {"x": 2}), Yield("b", 7, 7), Yield("c", 40, 40)
    >>> [[entry.step for entry in chain] for chain in chains([a, b, c])]
    [['a', 'b'], ['c']]
    """
    found: list[list[Yield]] = []
    for entry in yields:
        if found and found[-1][-1].kept == entry.came:
            found[-1].append(entry)
        else:
            found.append([entry])
    return found


def drawing(title: str, yields: Sequence[Yield]) -> str:
    """The SVG: what was kept flows to the right, what was lost leaves below it, with its reason."""
    rows = chains(yields)
    colours: dict[str, str] = {}
    for entry in yields:
        for reason in sorted(entry.lost):
            colours.setdefault(reason, LOST[len(colours) % len(LOST)])
    drawn: list[str] = []
    top = float(TOP)
    for chain in rows:
        bottom = top
        for place, entry in enumerate(chain):
            text, end = _step(entry, chain[0].came, place, top, colours)
            drawn.append(text)
            bottom = max(bottom, end)
        top = bottom + GAP
    width = LEFT + COLUMN * max(map(len, rows), default=1) + 80
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top:.0f}" width="{width}" '
        f'height="{top:.0f}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>'
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{html.escape(title)}</text>'
        f"{''.join(drawn)}</svg>\n"
    )


def _step(
    entry: Yield, whole: int, place: int, top: float, colours: dict[str, str]
) -> tuple[str, float]:
    """One step, and where its drawing ends."""
    scale = BAND / max(whole, 1)
    x, end = LEFT + COLUMN * place, LEFT + COLUMN * (place + 1)
    parts = [_Part("kept", entry.kept, KEPT)]
    parts += [_Part(reason, n, colours[reason]) for reason, n in sorted(entry.lost.items())]
    label = f"{entry.step}: {entry.came}"
    y = top + LINE
    drawn = [
        f'<text x="{x}" y="{top + 8:.1f}" font-weight="bold">{html.escape(label)}</text>',
        f'<rect x="{x}" y="{y:.1f}" width="{BAR}" height="{max(1.0, entry.came * scale):.1f}" '
        'fill="#555"/>',
    ]
    start, goal, bottom = y, y, y
    for part in parts:
        thick = part.rows * scale
        # A lost part ends before the next step, and low enough for its words.
        kept = part.name == "kept"
        far = end if kept else end - COLUMN / 2
        words, anchor = (far - 4, "end") if kept else (far + 4, "start")
        middle = (x + BAR + far) / 2
        drawn.append(
            f'<path d="M{x + BAR} {start:.1f}C{middle:.1f} {start:.1f} {middle:.1f} {goal:.1f} '
            f"{far:.1f} {goal:.1f}v{max(0.5, thick):.1f}C{middle:.1f} {goal + thick:.1f} "
            f'{middle:.1f} {start + thick:.1f} {x + BAR} {start + thick:.1f}Z" '
            f'fill="{part.colour}" fill-opacity="0.55"/>'
            f'<text x="{words:.1f}" y="{goal + thick / 2 + 4:.1f}" text-anchor="{anchor}">'
            f"{html.escape(part.name)} {part.rows} ({part.rows / max(entry.came, 1):.0%})</text>"
        )
        start += thick
        goal += max(thick, LINE) + GAP / 2
        bottom = max(bottom, goal)
    drawn.append(
        f'<rect x="{end}" y="{y:.1f}" width="{BAR}" height="{max(1.0, entry.kept * scale):.1f}" '
        f'fill="{KEPT}"/>'
    )
    return "".join(drawn), bottom
