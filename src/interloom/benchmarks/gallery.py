"""Sequences as HTML: request, plan, every attempt with its picture and the critic's verdict."""

from __future__ import annotations

import base64
import html

from interloom.construct.planner_data import caption_of
from interloom.records import Attempt, StepTrace, Trajectory


def sequence(trajectory: Trajectory, title: str) -> str:
    """One trajectory as an article; pictures are embedded."""
    request = trajectory.request
    given = "".join(f'<div class="try">{picture(image)}given</div>' for image in request.images)
    shown = f"<div class=step>{given}</div>" if given else ""
    steps = "".join(_step(trace) for trace in trajectory.steps)
    failed = trajectory.failure
    ending = (
        f'<p class="bad">{html.escape(f"{failed.role} failed: {failed.reason}")}</p>'
        if failed
        else ""
    )
    return (
        f"<article><h3>{html.escape(title)}</h3><p>{html.escape(request.text)}</p>"
        f'<div class="steps">{shown}{steps}</div>{ending}'
        "</article>"
    )


def picture(image: bytes) -> str:
    """An embedded picture."""
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(image).decode()}">'


def _step(trace: StepTrace) -> str:
    tries = "".join(_attempt(attempt) for attempt in trace.attempts)
    heading = f"{trace.step.step_number}. {caption_of(trace.step)}"
    return f'<div class="step"><p>{html.escape(heading)}</p><div class="tries">{tries}</div></div>'


def _attempt(attempt: Attempt) -> str:
    if attempt.image is None:
        reason = attempt.failure.reason if attempt.failure else "no picture"
        return f'<div class="try bad">{html.escape(reason)}</div>'
    critique = attempt.critique
    kind, verdict = "", "not judged"
    if critique is not None:
        kind, verdict = ("pass", "passed") if critique.success else ("fail", "refused")
    said = html.escape(critique.reasoning if critique is not None else "")
    return (
        f'<div class="try {kind}" title="{said}">{picture(attempt.image)}<b>{verdict}</b><br>'
        f"{html.escape(attempt.prompt)}</div>"
    )
