"""A table of critiques with their pictures as one HTML file, for the experiment's artifacts."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from interloom.records import Failure, Score
from interloom.train.rewards import After

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:14px system-ui;margin:2em}}td,th{{padding:.4em;border-bottom:1px solid #ccc;
vertical-align:top;text-align:left}}img{{width:96px;image-rendering:pixelated}}pre{{
white-space:pre-wrap;max-width:40em;margin:0}}</style>
<h1>{title}</h1><table><tr><th>before<th>after<th>step<th>truth<th>answer<th>refined
<th>reward<th>advantage</tr>
{rows}</table></html>
"""


class Sample(NamedTuple):
    """One critique: what was seen, what is true, what was said, what executing it gave, what it
    earned (none: a call failed) and, in training, its advantage over its group."""

    before: bytes | None
    after: bytes
    prompt: str
    success: bool
    answer: str
    result: After
    reward: float | None
    advantage: float | None = None


def write_samples(path: Path, title: str, samples: Sequence[Sample]) -> None:
    """Write the table; pictures are embedded."""
    rows = "\n".join(_row(sample) for sample in samples)
    path.write_text(PAGE.format(title=html.escape(title), rows=rows), encoding="utf-8")


def _row(sample: Sample) -> str:
    cells = [
        _picture(sample.before),
        _picture(sample.after),
        html.escape(sample.prompt),
        "success" if sample.success else "failure",
        f"<pre>{html.escape(sample.answer)}</pre>",
        _result(sample.result),
        "(none)" if sample.reward is None else f"{sample.reward:.3f}",
        "" if sample.advantage is None else f"{sample.advantage:+.2f}",
    ]
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells) + "</tr>"


def _picture(data: bytes | None) -> str:
    if data is None:
        return "(none)"
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def _result(result: After) -> str:
    if isinstance(result, Score):
        return f"semantic {result.semantic:.1f}, quality {result.quality:.1f}"
    if isinstance(result, Failure):
        return html.escape(f"failed: {result.reason}")
    return result
