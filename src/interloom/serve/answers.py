"""What the engine tells becomes a Response of OpenAI's API, and the events of its stream."""

from __future__ import annotations

import time
import uuid
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from interloom.adaptive.story import Mode
from interloom.backends.ledger import Usage
from interloom.dialogue import plan_fields
from interloom.records import Step, StepTrace
from interloom.registered.answers import attempt_fields, to_text
from interloom.serve.events import (
    Began,
    Drawn,
    Ended,
    Event,
    Judged,
    Order,
    Planned,
    StepDone,
    Wrote,
)
from interloom.serve.schema import CreateResponse
from interloom.serve.system import System

Status = Literal["in_progress", "completed", "incomplete", "failed"]
Fields = dict[str, Any]


class OutputText(BaseModel):
    """The text of a step."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class OutputMessage(BaseModel):
    """A step's text as an output item."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Status = "completed"
    content: list[OutputText]


class ImageCall(BaseModel):
    """A step's picture as an output item; ``revised_prompt`` is the prompt that made it."""

    id: str
    type: Literal["image_generation_call"] = "image_generation_call"
    status: Literal["in_progress", "generating", "completed", "failed"]
    result: str | None = None
    action: Literal["generate", "edit"] = "generate"
    output_format: Literal["png"] = "png"
    revised_prompt: str | None = None


class Details(BaseModel):
    """Parts of the token counts that nothing here has."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(BaseModel):
    reasoning_tokens: int = 0


class UsageBody(BaseModel):
    """Tokens of planner and critic, or of the unified model, read and written."""

    input_tokens: int
    input_tokens_details: Details = Details()
    output_tokens: int
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int


class Failed(BaseModel):
    code: str
    message: str


class Incomplete(BaseModel):
    reason: Literal["image_budget", "max_output_tokens"]


class StepReport(BaseModel):
    """How a step went. ``attempts`` is filled if ``include_attempts`` was set."""

    step_number: int
    tries: int
    passed: bool | None
    """The critic's, or the unified model's own, verdict on the shown picture; null if it was not
    judged."""
    attempts: list[dict[str, Any]] | None = None


class Report(BaseModel):
    """Our extension of a Response.

    What a system has no such thing of is null: a unified model ``generator`` and ``t_max``, the
    others ``reluctance``, ``mode``, ``story`` and ``violation``.
    """

    version: str
    """Of the model."""
    seed: int
    generator: str | None
    t_max: int | None
    image_budget: int
    reluctance: float | None = None
    images: int = 0
    seconds: float = 0.0
    reasoning: str | None = None
    plan: list[dict[str, Any]] | None = None
    """The steps; a unified model's as they came."""
    steps: list[StepReport] = []
    mode: Mode | None = None
    """How the unified model went about it."""
    story: str | None = None
    """All that it wrote, ``<image>`` in the place of each picture; if ``include_attempts``."""
    violation: str | None = None
    """What makes that no story, by name."""


class ResponseBody(BaseModel):
    """A Response of OpenAI's API; ``interloom`` is our extension."""

    model_config = ConfigDict(extra="forbid")

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status
    model: str
    output: list[OutputMessage | ImageCall] = []
    error: Failed | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None = None
    metadata: dict[str, str] = {}
    usage: UsageBody | None = None
    parallel_tool_calls: bool = False
    tool_choice: Literal["auto"] = "auto"
    tools: list[dict[str, Any]] = []
    temperature: float | None = None
    top_p: float | None = None
    previous_response_id: str | None = None
    store: bool = True
    background: bool = False
    interloom: Report


class Composer:
    """Builds a Response from the engine's events, and gives the stream's events on the way.

    Items come in the order of the sequence: a step's text as soon as the step begins, and then its
    picture as soon as the step is done.
    """

    def __init__(self, asked: CreateResponse, order: Order, system: System[Any]) -> None:
        self._attempts = asked.include_attempts
        tools = asked.tools or []
        self._partial = self._attempts or any(tool.partial_images for tool in tools)
        self._sequence = 0
        self._planned = False
        self._steps: list[Step] = []
        self.story: str | None = None
        self._before = bool(order.request.images)  # whether the next picture is an edit
        self._began = time.monotonic()
        self.body = ResponseBody(
            id=f"resp_{uuid.uuid4().hex}",
            created_at=int(time.time()),
            status="in_progress",
            model=system.name,
            instructions=asked.instructions,
            metadata=asked.metadata or {},
            tools=[{"type": "image_generation"}],
            store=asked.store is not False,
            interloom=Report(
                version=system.version,
                seed=order.seed,
                generator=order.generator or None,
                t_max=order.max_attempts or None,
                image_budget=order.image_budget,
                reluctance=order.reluctance if "reluctance" in system.options else None,
            ),
        )

    def opening(self) -> list[Fields]:
        """The events before anything was done."""
        shown = self.body.model_dump()
        return [
            self._event(f"response.{kind}", response=shown) for kind in ("created", "in_progress")
        ]

    def add(self, event: Event, usage: Usage) -> list[Fields]:
        """Take an engine's event in; ``usage`` is all that the request used so far."""
        made: list[Fields] = []
        report = self.body.interloom
        match event:
            case Planned(plan=plan):
                self._planned, self._steps = True, list(plan.steps)
                report.plan = [plan_fields(step) for step in plan.steps]
                report.reasoning = plan.reasoning
                made = self._extra("plan", reasoning=plan.reasoning, steps=report.plan)
            case Began(step=step):
                if not self._planned:
                    made = self._add_step(step)
                made += [*self._text(step), *self._open_picture()]
            case Drawn(attempt=attempt, number=number) if self._partial and attempt.image:
                picture = {"partial_image_b64": to_text(attempt.image), "output_format": "png"}
                made = [self._picture_event("partial_image", partial_image_index=number, **picture)]
            case Judged(place=place, number=number, attempt=attempt):
                told = attempt_fields(attempt) | {"image": ""}  # sent as the partial image
                step_number = self._steps[place].step_number
                made = self._extra("attempt", step_number=step_number, number=number, **told)
            case StepDone(trace=trace):
                made = self._close_step(trace)
            case Wrote(mode=mode, story=story, violation=violation):
                report.mode, report.violation, self.story = mode, violation, story
                report.story = story if self._attempts else None
                made = self._extra("story", mode=mode, story=story)
            case Ended():
                made = self._end(event, usage)
        return made

    # --- items ----------------------------------------------------------------------------------

    def _add_step(self, step: Step) -> list[Fields]:
        """A step that no plan foretold."""
        fields, report = plan_fields(step), self.body.interloom
        self._steps.append(step)
        report.plan = [*(report.plan or []), fields]
        return self._extra("step", step=fields)

    def _text(self, step: Step) -> list[Fields]:
        said = step.auxiliary_text or step.instruction or ""
        item = OutputMessage(id=f"msg_{uuid.uuid4().hex}", content=[OutputText(text=said)])
        at = {"item_id": item.id, "output_index": len(self.body.output), "content_index": 0}
        self.body.output.append(item)
        index = at["output_index"]
        whole = item.model_dump()
        begun = whole | {"status": "in_progress", "content": []}
        part = whole["content"][0]
        return [
            self._event("response.output_item.added", output_index=index, item=begun),
            self._event("response.content_part.added", **at, part=part | {"text": ""}),
            self._event("response.output_text.delta", **at, delta=said, logprobs=[]),
            self._event("response.output_text.done", **at, text=said, logprobs=[]),
            self._event("response.content_part.done", **at, part=part),
            self._event("response.output_item.done", output_index=index, item=whole),
        ]

    def _open_picture(self) -> list[Fields]:
        action = "edit" if self._before else "generate"
        item = ImageCall(id=f"ig_{uuid.uuid4().hex}", status="in_progress", action=action)
        self.body.output.append(item)
        index = len(self.body.output) - 1
        return [
            self._event("response.output_item.added", output_index=index, item=item.model_dump()),
            self._picture_event("in_progress"),
            self._picture_event("generating"),
        ]

    def _close_step(self, trace: StepTrace) -> list[Fields]:
        if trace.step.prompt is None:
            return self._text(trace.step)
        shown = trace.accepted
        critique = None if shown is None else shown.critique
        self.body.interloom.steps.append(
            StepReport(
                step_number=trace.step.step_number,
                tries=len(trace.attempts),
                passed=None if critique is None else critique.success,
                attempts=[attempt_fields(a) for a in trace.attempts] if self._attempts else None,
            )
        )
        item = self._picture()
        events = []
        if shown is None:
            item.status = "failed"
        else:
            item.status, item.result = "completed", to_text(shown.image)
            item.revised_prompt = shown.prompt
            self._before = True
            events = [self._picture_event("completed")]
        index = len(self.body.output) - 1
        done = self._event("response.output_item.done", output_index=index, item=item.model_dump())
        return [*events, done]

    def _picture(self) -> ImageCall:
        item = self.body.output[-1]
        assert isinstance(item, ImageCall)
        return item

    # --- end ------------------------------------------------------------------------------------

    def _end(self, event: Ended, usage: Usage) -> list[Fields]:
        body = self.body
        for item in body.output:
            if isinstance(item, ImageCall) and item.status == "in_progress":
                item.status = "failed"
        match event.outcome:
            case "completed":
                body.status = "completed"
            case "incomplete":
                body.status = "incomplete"
                whole = event.code == "image_budget"
                reason = "image_budget" if whole else "max_output_tokens"
                body.incomplete_details = Incomplete(reason=reason)
            case _:
                body.status = "failed"
                body.error = Failed(code=event.code, message=event.message)
        body.usage = UsageBody(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            total_tokens=usage.input_tokens + usage.output_tokens,
        )
        body.interloom.images = usage.images
        body.interloom.seconds = round(time.monotonic() - self._began, 3)
        return [self._event(f"response.{body.status}", response=body.model_dump())]

    # --- events ---------------------------------------------------------------------------------

    def _event(self, kind: str, **fields: Any) -> Fields:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event

    def _picture_event(self, kind: str, **fields: Any) -> Fields:
        at = {"item_id": self._picture().id, "output_index": len(self.body.output) - 1}
        return self._event(f"response.image_generation_call.{kind}", **at, **fields)

    def _extra(self, kind: str, **fields: Any) -> list[Fields]:
        """An event of ours; only for those who asked, as other clients may not expect it."""
        return [self._event(f"interloom.{kind}", **fields)] if self._attempts else []
