"""The file formats that the papers' authors released, read and written.

======================== ==========================================================================
``execution_record.json`` one raw trajectory: the plan, and one entry per iteration in order
``critic_rl.jsonl``       one recorded iteration per line with its scores
``planner_sft.json``      chats in LLaMA-Factory's form: in ``chats.py``
``critic_sft.json``       the same, for the critic
======================== ==========================================================================

Images lie beside the file and are named by relative paths; ``white.png`` stands for "no image".
What a format has no field for (seeds, request kinds, ids) is kept under the extra key
``interloom``, which other readers ignore and which may be absent. Every complaint names the file,
the record and the field.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from interloom import dialogue
from interloom.construct import critic_data
from interloom.construct.files import Place, read_json, read_lines, save_image, write_text
from interloom.dialogue import AnswerError
from interloom.records import Attempt, Critique, Plan, Request, StepTrace, Trajectory

EXTRA = "interloom"


# --- execution_record.json ------------------------------------------------------------------------


def write_execution_record(trajectory: Trajectory, folder: Path) -> Path:
    """Write ``folder/execution_record.json`` and its images; returns the file.

    Raises:
        ValueError: the trajectory has no plan, and so nothing was executed.
    """
    plan, request = trajectory.plan, trajectory.request
    if plan is None:
        raise ValueError(f"request {request.id} has no plan to write")
    steps: list[dict[str, Any]] = []
    for trace in trajectory.steps:
        for attempt in trace.attempts:
            critique = attempt.critique
            steps.append(
                {
                    "step": trace.step.step_number,
                    "prompt": attempt.prompt,
                    "refine_prompt": critique and critique.refine_prompt,
                    "source_img": save_image(folder, trace.source),
                    "target_img": attempt.image and save_image(folder, attempt.image),
                    "success": critique and critique.success,
                    "reasoning": critique and critique.reasoning,
                    EXTRA: attempt.model_dump(
                        mode="json", include={"seed", "generator", "score", "failure"}
                    ),
                }
            )
    about = request.model_dump(mode="json", exclude={"text", "images"})
    about["images"] = [save_image(folder, data) for data in request.images]
    about["failure"] = trajectory.failure and trajectory.failure.model_dump(mode="json")
    about["begun"] = len(trajectory.steps)
    record = {
        "user_input": request.text,
        "global_context": {
            "reasoning": plan.reasoning,
            "execution_plan": [dialogue.plan_fields(step) for step in plan.steps],
        },
        "steps": steps,
        EXTRA: about,
    }
    path = folder / "execution_record.json"
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return path


def _read_plan(top: Place) -> Plan:
    context = Place(top.path, "global_context", top.get("global_context", dict))
    reasoning = context.get("reasoning", str) if context.has("reasoning") else ""
    try:
        steps = dialogue.read_steps(context.get("execution_plan", list))
    except AnswerError as error:
        raise context.wrong("execution_plan", str(error)) from error
    return Plan(reasoning=reasoning, steps=steps)


def _read_attempt(entry: Place) -> Attempt:
    critique = None
    success = entry.get("success", bool, type(None))
    if success is not None:
        critique = Critique(
            success=success,
            refine_prompt=entry.get("refine_prompt", str, type(None)) or "",
            reasoning=entry.get("reasoning", str, type(None)) or "",
        )
    extra = entry.get(EXTRA, dict) if entry.has(EXTRA) else {}
    try:
        return Attempt.model_validate(
            {"seed": 0} | extra | {
                "prompt": entry.get("prompt", str),
                "image": entry.image("target_img"),
                "critique": critique,
            }
        )  # fmt: skip
    except ValidationError as error:
        raise entry.wrong(EXTRA, str(error.errors()[0]["msg"])) from error


def read_execution_record(path: Path) -> Trajectory:
    """Read one raw trajectory; a record without our extra key gets the folder's name as its id.

    Raises:
        InterloomError: naming the file, the record and the field.
    """
    top = Place(path, "the record", read_json(path))
    plan = _read_plan(top)
    about = Place(path, EXTRA, top.get(EXTRA, dict) if top.has(EXTRA) else {})
    fields = {k: v for k, v in about.value.items() if k not in ("images", "failure", "begun")}
    inputs = about.get("images", list) if about.has("images") else []
    pictures = tuple(about.read_image("images", str(name)) for name in inputs)
    attempts: dict[int, list[Attempt]] = {}
    sources: dict[int, bytes | None] = {}
    for number, value in enumerate(top.get("steps", list)):
        entry = Place(path, f"steps[{number}]", value)
        step = entry.get("step", int)
        if step not in [planned.step_number for planned in plan.steps]:
            raise entry.wrong("step", f"{step} is not in the execution plan")
        if attempts and step < max(attempts):
            raise entry.wrong("step", f"{step} comes after step {max(attempts)}")
        sources[step] = entry.image("source_img")
        attempts.setdefault(step, []).append(_read_attempt(entry))
    last = max(attempts, default=0)
    begun = about.get("begun", int) if about.has("begun") else None
    if begun is None:
        begun = sum(step.step_number <= last for step in plan.steps)
    traces = tuple(
        StepTrace(
            step=step,
            source=sources.get(step.step_number),
            attempts=tuple(attempts.get(step.step_number, ())),
        )
        for step in plan.steps[:begun]
    )
    try:
        request = Request.model_validate(
            {"id": path.parent.name}
            | fields
            | {"text": top.get("user_input", str), "images": pictures}
        )
        failure = about.value.get("failure")
        return Trajectory.model_validate(
            {"request": request, "plan": plan, "steps": traces, "failure": failure}
        )
    except ValidationError as error:
        problem = error.errors()[0]
        raise about.wrong(".".join(map(str, problem["loc"])), str(problem["msg"])) from error


# --- critic_rl.jsonl ------------------------------------------------------------------------------


def write_critic_rl(rows: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Write critic rows as ``critic_rl.jsonl`` with their images; returns the number."""
    lines: list[str] = []
    has_place = {"before", "after", "prompt", "used_prompt", "success", "semantic", "quality"}
    extra = [name for name in critic_data.critic_schema().names if name not in has_place]
    for row in rows:
        record = {
            "origin_prompt": row["prompt"],
            "rewritten_prompt": row["used_prompt"],
            "origin_image_path": save_image(path.parent, row["before"]),
            "edited_image_path": save_image(path.parent, row["after"]),
            "evaluation": {
                "semantics": row["semantic"],
                "quality": row["quality"],
                "success": row["success"],
            },
            EXTRA: {name: row[name] for name in extra},
        }
        lines.append(json.dumps(record, ensure_ascii=False))
    write_text(path, "".join(line + "\n" for line in lines))
    return len(lines)


def _score(place: Place, field: str) -> float:
    value = float(place.get(field, int, float))
    if not 0 <= value <= 10:
        raise place.wrong(field, f"{value} is not within 0–10")
    return value


def read_critic_rl(path: Path) -> Iterator[dict[str, Any]]:
    """Critic rows of a ``critic_rl.jsonl``; ``previous_prompt`` is read as ``rewritten_prompt``.

    Raises:
        InterloomError: naming the file, the record and the field.
    """
    for number, value in enumerate(read_lines(path)):
        record = Place(path, f"record {number}", value)
        used = "previous_prompt" if record.has("previous_prompt") else "rewritten_prompt"
        judged = Place(path, f"record {number}, evaluation", record.get("evaluation", dict))
        after = record.image("edited_image_path")
        if after is None:
            raise record.wrong("edited_image_path", "a judged image is missing")
        extra = record.get(EXTRA, dict) if record.has(EXTRA) else {}
        blank = critic_data.critic_schema().names
        yield {
            **dict.fromkeys(blank),
            **{"id": f"{path.stem}/{number}", "attempt": 0, "split": "rl"},
            **{name: extra[name] for name in blank if name in extra},
            "prompt": record.get("origin_prompt", str),
            "used_prompt": record.get(used, str),
            "before": record.image("origin_image_path"),
            "after": after,
            "semantic": _score(judged, "semantics"),
            "quality": _score(judged, "quality"),
            "success": judged.get("success", bool),
        }


def read_folder_of_records(folder: Path) -> Iterator[Trajectory]:
    """All ``execution_record.json`` under a folder, in the order of their paths."""
    return (read_execution_record(path) for path in sorted(folder.rglob("execution_record.json")))


def write_folder_of_records(trajectories: Iterable[Trajectory], folder: Path) -> int:
    """One sub-folder per trajectory that has a plan, named by its request; returns the number."""
    written = 0
    for trajectory in trajectories:
        if trajectory.plan is not None:
            write_execution_record(trajectory, folder / trajectory.request.id.replace("/", "-"))
            written += 1
    return written
