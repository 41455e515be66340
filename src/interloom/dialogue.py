"""What is said to planners, critics and judges, and how answers are read.

The texts are files in ``dialogue_texts/<style>/<role>.txt``: ``short`` is for miniatures with a few
hundred tokens of context, ``full`` carries the instructions of InterleaveThinker (§3.2, appendix).
Trained agents answer in tags (``<think>…</think><answer>…</answer>``), remote models that are held
to a schema in one JSON object; ``form`` says which of the two is asked for.
Reading is strict: an answer that breaks a rule raises ``AnswerError`` with the rule's name, and is
never repaired or scored.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Literal, NamedTuple, NoReturn, get_args

from interloom import images
from interloom.records import Critique, Plan, Request, Segment, Step
from interloom.roles import CritiqueCase, JudgeCase

Style = Literal["short", "full"]
Form = Literal["tags", "json"]

Violation = Literal[
    "missing-tag",  # one of the four tags is absent
    "repeated-tag",  # a tag occurs twice, nested ones included
    "wrong-order",  # not <think>…</think><answer>…</answer>
    "extra-text",  # something beside the two blocks
    "too-long",  # an answer block above MAX_ANSWER characters
    "unparsable",  # neither JSON nor a python literal
    "not-a-dict",
    "missing-field",
    "wrong-type",
    "empty-prompt",
    "empty-plan",
    "step-numbering",  # step numbers do not count up by one
]
VIOLATIONS: tuple[Violation, ...] = get_args(Violation)

MAX_ANSWER = 100_000
"""Characters; ``ast.literal_eval`` on much more can exhaust the stack or the memory."""

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
IMAGE_MARK = "<image>"


class AnswerError(ValueError):
    """An answer that cannot be used; ``violation`` names the broken rule."""

    def __init__(self, violation: Violation, detail: str) -> None:
        assert violation in VIOLATIONS, violation
        super().__init__(f"{violation}: {detail}")
        self.violation: Violation = violation


class Conversation(NamedTuple):
    """Chat messages with typed parts, and the images that the parts stand for, in order."""

    messages: list[dict[str, Any]]
    images: list[bytes]


# --- what is said ---------------------------------------------------------------------------------


@cache
def _sections(style: Style, role: str) -> dict[str, str]:
    return read_sections(resources.files("interloom") / "dialogue_texts" / style / f"{role}.txt")


def read_sections(path: Traversable) -> dict[str, str]:
    """The ``[name]`` sections of a prompt text; the last line break of each is dropped."""
    pieces = re.split(r"^\[(\w+)\]\n", path.read_text("utf-8"), flags=re.MULTILINE)
    assert not pieces[0].strip(), f"{path}: text before the first section"
    return {
        name: text.removesuffix("\n") for name, text in zip(pieces[1::2], pieces[2::2], strict=True)
    }


Part = dict[str, str]
IMAGE_PART: Part = {"type": "image"}


def fill(template: str, values: dict[str, list[Part]]) -> list[Part]:
    """Template to parts. Values go in as parts, so that braces or ``<image>`` in them stay text."""
    parts: list[Part] = []
    for piece in re.split(r"(\{\w+\}|<image>)", template):
        if piece == IMAGE_MARK:
            parts.append(dict(IMAGE_PART))
        elif piece[1:-1] in values and piece[0] == "{":
            parts.extend(values[piece[1:-1]])
        else:
            parts.append({"type": "text", "text": piece})
    joined: list[Part] = []
    for part in parts:
        if part["type"] == "text" and joined and joined[-1]["type"] == "text":
            joined[-1] = {"type": "text", "text": joined[-1]["text"] + part["text"]}
        else:
            joined.append(part)
    return [part for part in joined if part["type"] == "image" or part["text"]]


def as_text(value: str) -> list[Part]:
    return [{"type": "text", "text": value}]


def chat_messages(
    sections: dict[str, str], values: dict[str, list[Part]], form: Form, user: str = "user"
) -> list[dict[str, Any]]:
    """System and user turn from the sections of a prompt text, ``values`` put in as parts."""
    messages: list[dict[str, Any]] = []
    if "system" in sections:
        system = "\n".join(sections[name] for name in ("system", form) if name in sections)
        messages.append({"role": "system", "content": as_text(system)})
    messages.append({"role": "user", "content": fill(sections[user], values)})
    return messages


def planner_messages(request: Request, style: Style, form: Form = "tags") -> Conversation:
    """The planner's prompt: the request's text, then its numbered images with their captions."""
    parts = as_text(request.text)
    for number, _ in enumerate(request.images, 1):
        caption = request.captions[number - 1] if request.captions else ""
        parts += [*as_text(f"\n{number}:"), dict(IMAGE_PART), *as_text(caption)]
    messages = chat_messages(_sections(style, "planner"), {"request": parts}, form)
    return Conversation(messages, list(request.images))


def critic_messages(case: CritiqueCase, style: Style, form: Form = "tags") -> Conversation:
    """The critic's prompt: before, after, the step's prompt, and the used prompt if it differs.

    A first step has no picture before it; it is shown a blank white one of the same size (§3.1).
    """
    sections = _sections(style, "critic")
    used = (
        []
        if case.used_prompt == case.prompt
        else fill(sections["used"], {"used_prompt": as_text(case.used_prompt)})
    )
    before = case.before or images.white(*images.size(case.after, "the picture after the step"))
    messages = chat_messages(sections, {"prompt": as_text(case.prompt), "used": used}, form)
    return Conversation(messages, [before, case.after])


def judge_messages(case: JudgeCase) -> Conversation:
    """The judge's prompt, VIEScore-like (§3.3): the picture, or both, and what was asked for."""
    user = "create" if case.before is None else "edit"
    messages = chat_messages(
        _sections("full", "judge"), {"prompt": as_text(case.prompt)}, "json", user=user
    )
    return Conversation(messages, [*filter(None, [case.before]), case.after])


AnalyzerTask = Literal[
    "evaluate", "reflect", "diagnose", "decompose", "rate_reflection", "rate_step"
]


def analyzer_messages(
    task: AnalyzerTask,
    references: Sequence[bytes],
    image: bytes | None,
    values: Mapping[str, str],
) -> Conversation:
    """The analyzer's prompt (SAIR §3.1): the given pictures, the result if there is one, the
    instruction and whatever else the task speaks of."""
    given: list[Part] = []
    for number, _ in enumerate(references, 1):
        given += [*as_text(f"Given picture {number}: "), dict(IMAGE_PART), *as_text("\n")]
    parts = {name: as_text(value) for name, value in values.items()}
    current = [*as_text("The picture as it is now: "), dict(IMAGE_PART), *as_text("\n")]
    parts |= {"given": given, "current": [] if image is None else current}
    messages = chat_messages(_sections("full", "analyzer"), parts, "json", user=task)
    return Conversation(messages, [*references, *filter(None, [image])])


UNIFIED_USER, UNIFIED_ASSISTANT = "USER: ", " ASSISTANT:"


def unified_prompt(instruction: str, references: Sequence[bytes] = ()) -> list[Segment]:
    """A turn of Emu3's chat up to where the model begins: the pictures, then the text."""
    return [UNIFIED_USER, *references, f"{instruction}{UNIFIED_ASSISTANT}"]


def answer_message(text: str) -> dict[str, Any]:
    """The assistant's turn that carries ``text``."""
    return {"role": "assistant", "content": as_text(text)}


# --- how answers are written ----------------------------------------------------------------------


def _format(reasoning: str, answer: dict[str, Any]) -> str:
    body = json.dumps(answer, ensure_ascii=False)
    for tag in TAGS:
        if tag in reasoning or tag in body:
            raise ValueError(f"the answer contains {tag}, which would end or open a block")
    return f"<think>{reasoning}</think><answer>{body}</answer>"


def plan_fields(step: Step) -> dict[str, Any]:
    """A step as the papers' files have it, all five fields present."""
    return {
        "step_number": step.step_number,
        "step_name": step.step_name,
        "instruction": step.instruction,
        "prompt": step.prompt,
        "auxiliary_text": step.auxiliary_text,
    }


def format_plan(plan: Plan) -> str:
    """The planner's answer; ``parse_plan`` reads it back."""
    return _format(plan.reasoning, {"execution_plan": [plan_fields(s) for s in plan.steps]})


def format_critique(critique: Critique) -> str:
    """The critic's answer; ``parse_critique`` reads it back.

    >>> format_critique(Critique(success=True, refine_prompt="add a red sun", reasoning="it is"))
    '<think>it is</think><answer>{"previous_step_success": true, "refine_prompt": "add a red sun"}</answer>'
    """  # noqa: E501
    return _format(
        critique.reasoning,
        {"previous_step_success": critique.success, "refine_prompt": critique.refine_prompt},
    )


# --- how answers are read -------------------------------------------------------------------------


def _blocks(text: str) -> tuple[str, str]:
    """Reasoning and answer body of ``<think>…</think><answer>…</answer>``."""
    for tag in TAGS:
        count = text.count(tag)
        if count == 0:
            raise AnswerError("missing-tag", f"no {tag}")
        if count > 1:
            raise AnswerError("repeated-tag", f"{tag} occurs {count} times")
    places = [text.index(tag) for tag in TAGS]
    if places != sorted(places):
        order = "".join(tag for _, tag in sorted(zip(places, TAGS, strict=True)))
        raise AnswerError("wrong-order", order)
    head, rest = text.split("<think>")
    reasoning, rest = rest.split("</think>")
    between, rest = rest.split("<answer>")
    body, tail = rest.split("</answer>")
    for outside in (head, between, tail):
        if outside.strip():
            raise AnswerError("extra-text", repr(outside.strip()[:60]))
    return reasoning.strip(), body.strip()


def _reject(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a value")


def read_dict(body: str) -> dict[str, Any]:
    """A JSON object or the python-style dict that the released models emit now and then.

    Nothing is evaluated: ``ast.literal_eval`` accepts literals alone.

    Raises:
        AnswerError: ``too-long``, ``unparsable`` or ``not-a-dict``.
    """
    if len(body) > MAX_ANSWER:
        raise AnswerError("too-long", f"{len(body)} characters, at most {MAX_ANSWER}")
    try:
        value = json.loads(body, parse_constant=_reject)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(body)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise AnswerError("unparsable", f"{type(error).__name__} in {body[:60]!r}") from error
    if not isinstance(value, dict):
        raise AnswerError("not-a-dict", f"{type(value).__name__} {body[:60]!r}")
    return value


def _field(answer: dict[str, Any], name: str, *types: type) -> Any:
    """A field of exactly one of these types (``True`` is no number here)."""
    if name not in answer:
        raise AnswerError("missing-field", name)
    value = answer[name]
    if type(value) not in types:
        wanted = " or ".join(kind.__name__ for kind in types)
        raise AnswerError("wrong-type", f"{name} is {type(value).__name__}, wanted {wanted}")
    return value


def read_steps(entries: list[Any]) -> tuple[Step, ...]:
    """The entries of an ``execution_plan``; names and auxiliary texts may be absent.

    Raises:
        AnswerError: ``not-a-dict``, ``missing-field``, ``wrong-type``, ``empty-prompt``,
            ``step-numbering`` or ``empty-plan``.
    """
    if not entries:
        raise AnswerError("empty-plan", "execution_plan has no steps")
    steps: list[Step] = []
    for place, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise AnswerError("not-a-dict", f"entry {place} is {type(entry).__name__}")
        fields = {"step_name": "", "auxiliary_text": None} | entry
        number = _field(fields, "step_number", int)
        if number < 1 or (steps and number != steps[-1].step_number + 1):
            raise AnswerError("step-numbering", f"entry {place} has number {number}")
        step = Step(
            step_number=number,
            step_name=_field(fields, "step_name", str, type(None)) or "",
            instruction=_field(fields, "instruction", str, type(None)),
            prompt=_field(fields, "prompt", str, type(None)),
            auxiliary_text=_field(fields, "auxiliary_text", str, type(None)),
        )
        if step.prompt is None and not step.auxiliary_text:
            raise AnswerError("empty-prompt", f"step {number} has neither prompt nor text")
        if step.prompt is not None and not step.prompt.strip():
            raise AnswerError("empty-prompt", f"step {number}")
        steps.append(step)
    return tuple(steps)


def parse_plan(text: str) -> Plan:
    """Read a planner's answer (§3.1: ``{(u_i, p_i, a_i)}``).

    Raises:
        AnswerError: with the violation's name.
    """
    reasoning, body = _blocks(text)
    entries = _field(read_dict(body), "execution_plan", list)
    return Plan(reasoning=reasoning, steps=read_steps(entries))


def parse_critique(text: str) -> Critique:
    """Read a critic's answer (§3.1: ``(j, r', R)``).

    >>> parse_critique("<think>no sun</think><answer>"
    ...     "{'previous_step_success': False, 'refine_prompt': 'add a sun'}</answer>").success
    False

    Raises:
        AnswerError: with the violation's name.
    """
    reasoning, body = _blocks(text)
    answer = read_dict(body)
    success = _field(answer, "previous_step_success", bool)
    refined = _field(answer, "refine_prompt", str)
    if not refined.strip():
        raise AnswerError("empty-prompt", "refine_prompt")
    return Critique(success=success, refine_prompt=refined, reasoning=reasoning)


def plan_faults(plan: Plan, request: Request) -> list[str]:
    """What a well-formed plan gets wrong about its request; empty when it may be used as data.

    Numbering goes on where the input images stop, a text response has one text per image and no
    picture, and no field starts with its own step number.
    """
    faults: list[str] = []
    text_only = request.kind == "text_response"
    first = len(request.images) + 1 if request.kind == "continuation" else 1
    if not plan.steps:
        return ["the plan has no steps"]
    numbers = [step.step_number for step in plan.steps]
    if numbers != list(range(first, first + len(numbers))):
        faults.append(f"steps are numbered {numbers}, expected to count up from {first}")
    if text_only and len(plan.steps) != len(request.images):
        faults.append(f"{len(plan.steps)} texts for {len(request.images)} images")
    for step in plan.steps:
        where = f"step {step.step_number}"
        if text_only and (step.prompt is not None or step.instruction is not None):
            faults.append(f"{where}: a text response has a prompt or an instruction")
        if text_only and not step.auxiliary_text:
            faults.append(f"{where}: a text response has no text")
        if not text_only and not (step.prompt and step.instruction):
            faults.append(f"{where}: prompt or instruction is missing")
        for value in (step.step_name, step.instruction, step.prompt):
            if value and re.match(r"\s*step\s*\d+\s*[:.)-]", value, re.IGNORECASE):
                faults.append(f"{where}: starts with its own number")
    return faults
