"""Every request becomes an MLflow trace, written by a thread of its own after the answer.

The trace's root holds the whole trajectory, with its pictures as attachments, so that
:mod:`interloom.serve.feedback` can make training data of it. What goes wrong here never touches a
request: it is logged and counted.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interloom import images
from interloom.records import StepTrace, Trajectory
from interloom.serve.answers import ResponseBody
from interloom.serve.events import Call
from interloom.serve.metrics import Metrics
from interloom.serve.schema import Feedback

if TYPE_CHECKING:
    from mlflow.tracing.attachments import Attachment

    from interloom.settings.file import Settings

log = logging.getLogger(__name__)
BACKLOG = 1000
KNOWN = 10_000
RESPONSE_TAG = "interloom.response_id"
FEEDBACK_TAG = "interloom.feedback"
MODE_TAG = "interloom.mode"
SPAN_TYPES = {
    "planner": "LLM", "generator": "TOOL", "critic": "LLM", "encoder": "TOOL", "reasoner": "LLM",
}  # fmt: skip


def experiment_name(settings: Settings) -> str:
    """Where traces of served requests are kept."""
    return f"{settings.tracking.experiment}-serving"


@dataclass(frozen=True)
class Told:
    """All that a trace tells of one request."""

    owner: str
    body: ResponseBody
    trajectory: Trajectory
    calls: tuple[Call, ...]
    arrived: int
    """Nanoseconds since the epoch, as ``ended``."""
    ended: int
    outcome: str
    story: str | None = None
    """What a unified model wrote, with a mark for each picture."""


class Traces:
    """Writes traces and feedback to MLflow. ``close`` waits for what is still to be written.

    Args:
        content: whether texts and pictures go into traces, or numbers alone.
    """

    def __init__(self, uri: str, experiment: str, metrics: Metrics, *, content: bool) -> None:
        self._uri, self._experiment, self._content = uri, experiment, content
        self._metrics = metrics
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue(BACKLOG)
        self._ids: OrderedDict[str, str] = OrderedDict()  # response → trace
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    def write(self, told: Told) -> None:
        """Have a request's trace written soon; when too many wait, it is left out and counted."""
        try:
            self._work.put_nowait(lambda: self._write(told))
        except queue.Full:
            self._metrics.traces.labels("left out").inc()

    def feedback(self, response: str, owner: str, given: Feedback, attempt: int) -> Future[bool]:
        """Have feedback stored on the response's trace; false if there is no such trace."""
        done: Future[bool] = Future()

        def work() -> None:
            try:
                done.set_result(self._feedback(response, owner, given, attempt))
            except Exception as error:
                done.set_exception(error)

        self._work.put(work)
        return done

    def close(self, patience: float = 60.0) -> None:
        """Write what waits, and end; what takes longer than ``patience`` seconds is lost."""
        self._work.put(None)
        self._thread.join(patience)
        if self._thread.is_alive():
            log.error("MLflow takes too long: about %d traces are lost", self._work.qsize())

    def _run(self) -> None:
        # Written at once: this thread is the one that may wait.
        os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "false"
        import mlflow

        mlflow.set_tracking_uri(self._uri)
        experiment: str | None = None
        while (work := self._work.get()) is not None:
            try:
                if experiment is None:
                    experiment = mlflow.set_experiment(self._experiment).experiment_id
                work()
            except Exception as error:
                # A trace that cannot be written must not end the service.
                self._metrics.traces.labels("failed").inc()
                log.error("a trace is lost: %s", type(error).__name__)
                log.debug("the lost trace", exc_info=error)

    def _write(self, told: Told) -> None:
        import mlflow

        content = self._content and told.body.store
        report = told.body.interloom
        root = mlflow.start_span_no_context(
            "request",
            span_type="CHAIN",
            start_time_ns=told.arrived,
            tags={
                RESPONSE_TAG: told.body.id,
                "interloom.outcome": told.outcome,
                "interloom.model": f"{told.body.model}/{report.version}",
                **({MODE_TAG: report.mode} if report.mode else {}),
                **{f"metadata.{key}": value for key, value in told.body.metadata.items()},
            },
        )
        pictures = _Pictures(content)
        asked = {
            "images": report.images,
            "seed": report.seed,
            "t_max": report.t_max,
            "image_budget": report.image_budget,
            "reluctance": report.reluctance,
            "owner": told.owner,
        }
        root.set_attributes({name: value for name, value in asked.items() if value is not None})
        if content:
            request = told.trajectory.request
            root.set_inputs({"text": request.text, "images": pictures.of(request.images)})
        for call in told.calls:
            self._write_call(root, told.trajectory, call, pictures, content)
        if content:
            outputs = {"trajectory": pictures.of(told.trajectory.model_dump())}
            root.set_outputs(outputs | ({"story": told.story} if told.story else {}))
        failed = told.outcome in ("failed", "error")
        root.end(status="ERROR" if failed else "OK", end_time_ns=told.ended)
        self._ids[told.body.id] = root.trace_id
        while len(self._ids) > KNOWN:
            self._ids.popitem(last=False)
        self._metrics.traces.labels("written").inc()

    def _write_call(
        self, root: Any, trajectory: Trajectory, call: Call, pictures: _Pictures, content: bool
    ) -> None:
        import mlflow

        span = mlflow.start_span_no_context(
            call.role,
            span_type=SPAN_TYPES[call.role],
            parent_span=root,
            start_time_ns=call.began,
            attributes={"batch": str(call.batch)},
        )
        if call.role in ("generator", "critic"):
            span.set_attributes({"step": call.place, "attempt": call.number})
        elif call.role == "reasoner":
            span.set_attribute("picture", call.number)
        if call.usage.input_tokens or call.usage.output_tokens:
            span.set_attribute(
                "mlflow.chat.tokenUsage",
                {
                    "input_tokens": call.usage.input_tokens,
                    "output_tokens": call.usage.output_tokens,
                    "total_tokens": call.usage.input_tokens + call.usage.output_tokens,
                },
            )
        if content:
            asked, said = _about(trajectory, call)
            span.set_inputs(pictures.of(asked))
            span.set_outputs(pictures.of(said))
        span.end(end_time_ns=call.ended)

    def _feedback(self, response: str, owner: str, given: Feedback, attempt: int) -> bool:
        import mlflow
        from mlflow.entities import AssessmentSource

        trace = self._ids.get(response)
        if trace is None:
            return False
        metadata = {"step": str(given.step), "attempt": str(attempt)}
        if given.correction:
            metadata["correction"] = given.correction
        mlflow.log_feedback(
            trace_id=trace,
            name=f"step {given.step}",
            value=given.accept,
            source=AssessmentSource(source_type="HUMAN", source_id=owner or "page"),
            rationale=given.comment,
            metadata=metadata,
        )
        mlflow.set_trace_tag(trace, FEEDBACK_TAG, "given")
        return True


class _Pictures:
    """A trace's attachments, one for each different picture."""

    def __init__(self, content: bool) -> None:
        self._content = content
        self._known: dict[str, Attachment] = {}

    def of(self, value: Any) -> Any:
        """``value`` with attachments in the place of pictures."""
        from mlflow.tracing.attachments import Attachment

        if isinstance(value, bytes):
            name = images.digest(value)
            if name not in self._known:
                self._known[name] = Attachment(
                    content_type=images.mime_type(value), content_bytes=value
                )
            return self._known[name]
        if isinstance(value, dict):
            return {key: self.of(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(inner) for inner in value]
        return value


def _about(trajectory: Trajectory, call: Call) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a call was given and what it gave."""
    plan = trajectory.plan
    if call.role == "planner":
        failure = trajectory.failure.reason if plan is None and trajectory.failure else None
        steps = [step.model_dump() for step in plan.steps] if plan else None
        return {"text": trajectory.request.text}, {"steps": steps, "failure": failure}
    if call.role == "encoder":
        return {"text": trajectory.request.text, "images": trajectory.request.images}, {}
    if call.role == "reasoner":
        return _written(trajectory, call.number)
    if call.place >= len(trajectory.steps):
        return {}, {}  # called off in the middle of the step
    trace: StepTrace = trajectory.steps[call.place]
    attempt = trace.attempts[call.number]
    reason = attempt.failure.reason if attempt.failure else None
    if call.role == "generator":
        asked = {"prompt": attempt.prompt, "seed": attempt.seed, "source": trace.source}
        return asked, {"image": attempt.image, "failure": reason}
    asked = {
        "prompt": trace.step.prompt,
        "used_prompt": attempt.prompt,
        "before": trace.source,
        "after": attempt.image,
    }
    critique = attempt.critique.model_dump() if attempt.critique else None
    return asked, {"critique": critique, "failure": reason}


def _written(trajectory: Trajectory, picture: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a unified model drew a picture for, and what it said of it."""
    drawn = [(trace.source, one) for trace in trajectory.steps for one in trace.attempts]
    if picture >= len(drawn):
        return {}, {}  # called off, or no picture came of it
    source, attempt = drawn[picture]
    said = attempt.critique.model_dump() if attempt.critique else None
    return {"prompt": attempt.prompt, "source": source}, {"image": attempt.image, "said": said}
