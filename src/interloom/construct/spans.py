"""Trajectories as MLflow traces: planner → generator → critic, with the pictures attached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interloom.construct.gallery import outcome, url_of
from interloom.records import Attempt, Failure, Plan, StepTrace, Trajectory, caption_of
from interloom.tracking import Span

Call = tuple[float, float]
"""When a call began and ended."""


def _message(text: str, pictures: Sequence[bytes]) -> dict[str, Any]:
    """A chat message as MLflow shows it."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
    parts += [{"type": "image_url", "image_url": {"url": url}} for url in map(url_of, pictures)]
    return {"messages": [{"role": "user", "content": parts}]}


def _said(failure: Failure | None) -> str:
    return f"{failure.role}: {failure.reason}" if failure else ""


def tags_of(trajectory: Trajectory) -> dict[str, str]:
    """What traces are searched by."""
    request = trajectory.request
    return {
        "interloom.request": request.id,
        "interloom.category": request.category,
        "interloom.subcategory": request.subcategory,
        "interloom.outcome": outcome(trajectory),
    }


def trace_of(trajectory: Trajectory, calls: Sequence[Call]) -> Span:
    """The whole request as a span; ``calls`` are its calls in order, as ``loop.Observer`` is told.

    A batch's time is that of each of its requests. Calls that were known from an earlier run took
    the time of looking them up.
    """
    waiting = iter(calls)
    request, plan = trajectory.request, trajectory.plan
    asked = _message(request.text, request.images)
    parts = [_planner(asked, plan, trajectory.failure, next(waiting))]
    for trace in trajectory.steps:
        if trace.attempts:
            parts.append(
                _step(trace, [(next(waiting), _judged(a, waiting)) for a in trace.attempts])
            )
    shown = [trace.accepted for trace in trajectory.steps]
    return Span(
        name=f"request {request.id}",
        kind="AGENT",
        began=calls[0][0],
        ended=calls[-1][1],
        inputs=asked,
        outputs={
            "sequence": [
                {"text": caption_of(trace.step), "picture": one and one.image and url_of(one.image)}
                for trace, one in zip(trajectory.steps, shown, strict=True)
            ]
        },
        error=_said(trajectory.failure),
        parts=tuple(parts),
    )


def _judged(attempt: Attempt, waiting: Any) -> Call | None:
    """The time of an attempt's judgment: it was asked for where there is a picture."""
    return next(waiting) if attempt.image is not None else None


def _planner(asked: dict[str, Any], plan: Plan | None, failure: Failure | None, call: Call) -> Span:
    outputs = plan.model_dump(mode="json") if plan else {}
    error = _said(failure) if plan is None else ""
    return Span("planner", "LLM", *call, inputs=asked, outputs=outputs, error=error)


def _step(trace: StepTrace, calls: Sequence[tuple[Call, Call | None]]) -> Span:
    parts: list[Span] = []
    source = [trace.source] if trace.source else []
    for attempt, (drawn, judged) in zip(trace.attempts, calls, strict=True):
        failed = attempt.image is None
        parts.append(
            Span(
                attempt.generator or "generator",
                "TOOL",
                *drawn,
                inputs={**_message(attempt.prompt, source), "seed": attempt.seed},
                outputs={} if attempt.image is None else {"picture": url_of(attempt.image)},
                error=_said(attempt.failure) if failed else "",
            )
        )
        if judged is not None and attempt.image is not None:
            text = f"{trace.step.prompt}\n(used: {attempt.prompt})"
            parts.append(
                Span(
                    "critic",
                    "EVALUATOR",
                    *judged,
                    inputs=_message(text, [*source, attempt.image]),
                    outputs=attempt.critique.model_dump() if attempt.critique else {},
                    error=_said(attempt.failure),
                )
            )
    accepted = trace.accepted
    return Span(
        name=f"step {trace.step.step_number} {trace.step.step_name}".strip(),
        kind="CHAIN",
        began=calls[0][0][0],
        ended=parts[-1].ended,
        inputs={"instruction": trace.step.instruction, "prompt": trace.step.prompt},
        outputs={"picture": url_of(accepted.image)} if accepted and accepted.image else {},
        parts=tuple(parts),
    )
