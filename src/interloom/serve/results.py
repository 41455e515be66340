"""Results that are kept for a while: for the page, for downloads and for feedback."""

from __future__ import annotations

import html
import io
import json
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from interloom.records import StepTrace, Trajectory
from interloom.registered.answers import step_text, to_text
from interloom.serve.answers import ResponseBody

STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}"
    "figure{margin:2rem 0}img{width:100%;max-width:32rem;image-rendering:pixelated;"
    "border-radius:.5rem}figcaption{margin-top:.5rem}"
)


@dataclass(frozen=True)
class Result:
    """A finished request; only its ``owner`` may see it."""

    owner: str
    body: ResponseBody
    trajectory: Trajectory

    def summary(self) -> dict[str, Any]:
        """A line of the list of recent results."""
        pictures = [t.accepted.image for t in self.trajectory.steps if t.accepted]
        return {
            "id": self.body.id,
            "created_at": self.body.created_at,
            "status": self.body.status,
            "text": self.trajectory.request.text[:200],
            "images": len(pictures),
            "picture": to_text(pictures[-1]) if pictures else "",
        }


class Results:
    """The last ``limit`` results."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, Result] = OrderedDict()

    def put(self, result: Result) -> None:
        """Keep a result; the oldest makes room."""
        self._kept[result.body.id] = result
        while len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    def get(self, name: str, owner: str) -> Result | None:
        """A result of this owner."""
        found = self._kept.get(name)
        return found if found is not None and found.owner == owner else None

    def drop(self, name: str, owner: str) -> bool:
        """Forget a result; whether there was one."""
        if self.get(name, owner) is None:
            return False
        del self._kept[name]
        return True

    def recent(self, owner: str, limit: int) -> list[Result]:
        """This owner's results, the latest first."""
        mine = [result for result in reversed(self._kept.values()) if result.owner == owner]
        return mine[:limit]


def page(result: Result) -> str:
    """The sequence as one HTML file without any other file."""
    steps = result.trajectory.steps
    return _html(result, [_picture(t, _data_url(t)) if t.accepted else "" for t in steps])


def archive(result: Result) -> bytes:
    """The sequence as a ZIP of pictures, ``index.html`` and ``sequence.json``."""
    steps = result.trajectory.steps
    names = [f"step-{t.step.step_number:02}.png" if t.accepted else None for t in steps]
    told = {
        "text": result.trajectory.request.text,
        "model": result.body.model,
        "version": result.body.interloom.version,
        "seed": result.body.interloom.seed,
        "steps": [
            {"text": step_text(t), "prompt": t.step.prompt, "picture": name}
            for t, name in zip(steps, names, strict=True)
        ],
    }
    pictures = [_picture(t, n) if n else "" for t, n in zip(steps, names, strict=True)]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("index.html", _html(result, pictures))
        file.writestr("sequence.json", json.dumps(told, ensure_ascii=False, indent=1))
        for trace, name in zip(steps, names, strict=True):
            if name and trace.accepted and trace.accepted.image:
                file.writestr(name, trace.accepted.image)
    return buffer.getvalue()


def _data_url(trace: StepTrace) -> str:
    assert trace.accepted is not None
    return f"data:image/png;base64,{to_text(trace.accepted.image)}"


def _picture(trace: StepTrace, source: str) -> str:
    return f'<img alt="Step {trace.step.step_number}" src="{source}">'


def _html(result: Result, pictures: list[str]) -> str:
    title = html.escape(result.trajectory.request.text)
    figures = "\n".join(
        f"<figure>{picture}<figcaption>{html.escape(step_text(trace))}</figcaption></figure>"
        for trace, picture in zip(result.trajectory.steps, pictures, strict=True)
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title[:80]}</title><style>{STYLE}</style><h1>{title}</h1>\n{figures}\n</html>\n"
    )
