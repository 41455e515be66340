"""Stories in the file formats that SAIR's authors released, read and written.

=================== ==============================================================================
``result.json``     one task of the data pipeline: first try, reflections, sub-steps, scores
rollouts            one JSON object a line: what the policy did, texts and pictures taken apart
``sharegpt``        SFT export: ``conversations`` with ``from``/``value``, and ``images``
``messages``        SFT export: ``messages`` with ``role``/``content``, and ``images``
``chatml``          SFT export: one ``text`` with ``<|im_start|>`` turns, and ``images``
=================== ==============================================================================

Images lie beside the file and are named by relative paths; ``<image>`` in a text stands for the
next one. What a format has no field for is kept under the extra key ``interloom``, which other
readers ignore and which may be absent. Every complaint names the file, the record and the field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from interloom.adaptive.story import (
    Draft,
    Prompt,
    Round,
    Story,
    StoryError,
    SubStep,
    interleave,
    marked,
    parse_story,
    read_blocks,
    read_reflection,
    reflection_text,
)
from interloom.construct.files import Place, read_json, read_lines, save_image, write_text
from interloom.construct.released import EXTRA
from interloom.dialogue import IMAGE_MARK
from interloom.errors import InterloomError
from interloom.records import AXES, Evaluation, Record, Reflection, Thresholds

RESULT = "result.json"
AnyRecord = TypeVar("AnyRecord", bound=Record)
SftForm = Literal["sharegpt", "messages", "chatml"]
ACCEPTED = Thresholds(instruction=5, consistency=3, quality=3, knowledge=3)
"""Thresholds of the released pipeline for first tries and reflections."""


class Discarded(Record):
    """A task that came to nothing, and why."""

    prompt: Prompt
    reason: str


# ---------------------------------------------------------------------------- result.json


def write_result(story: Story | Discarded, folder: Path, accepted: Thresholds = ACCEPTED) -> Path:
    """Write ``folder/result.json`` and its images; returns the file.

    The format holds one original picture: further references go under the extra key.
    """
    prompt = story.prompt
    references = [save_image(folder, data) for data in prompt.references]
    record: dict[str, Any] = {
        "task_id": prompt.id,
        "edit_key": prompt.category,
        "original_image_path": references[0] if references else None,
        "edit_prompt": prompt.instruction,
        "direct_edit_image_path": None,
        "evaluation": None,
        "reflect": [],
        "multi_step": [],
        "final_edited_image_path": None,
        "failure_reason": story.reason if isinstance(story, Discarded) else None,
        "original_success": False,
        EXTRA: {"references": references},
    }
    if isinstance(story, Story):
        record |= {
            "direct_edit_image_path": save_image(folder, story.first.image),
            "evaluation": _scores(story.first.evaluation),
            "reflect": [
                {
                    "reflect_thinking": reflection_text(one.reflection),
                    "reflect_image_path": save_image(folder, one.image),
                    "evaluation": _scores(one.evaluation),
                }
                for one in story.rounds
            ],
            "multi_step": [
                {
                    "step_instruction": one.instruction,
                    "step_image_path": save_image(folder, one.image),
                    "evaluation": _scores(one.evaluation),
                }
                for one in story.steps
            ],
            "final_edited_image_path": save_image(folder, story.final.image),
            "original_success": story.first.evaluation.passes(accepted),
        }
    path = folder / RESULT
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return path


def _scores(evaluation: Evaluation) -> dict[str, Any]:
    """Our reasoning covers all axes at once; it stands with the first."""
    return {
        name: value
        for axis in AXES
        for name, value in (
            (f"{axis}_score", getattr(evaluation, axis)),
            (f"{axis}_reasoning", evaluation.reasoning if axis == AXES[0] else ""),
        )
    }


def read_result(path: Path) -> Story | Discarded:
    """Read one ``result.json``. Reflections before sub-steps failed, and are pruned (SAIR §3.1).

    Raises:
        InterloomError: naming the file, the record and the field.
    """
    top = Place(path, "the record", read_json(path))
    extra = Place(path, EXTRA, top.get(EXTRA, dict) if top.has(EXTRA) else {})
    if extra.has("references"):
        names = [str(name) for name in extra.get("references", list)]
        references = tuple(extra.read_image("references", name) for name in names)
    else:
        original = top.image("original_image_path")
        references = (original,) if original is not None else ()
    prompt = _checked(
        top, "edit_prompt", Prompt,
        id=str(top.get("task_id", str, int)),
        instruction=top.get("edit_prompt", str),
        references=references,
        category=top.get("edit_key", str, type(None)) or "",
    )  # fmt: skip
    reason = top.get("failure_reason", str, type(None)) if top.has("failure_reason") else None
    image = top.image("direct_edit_image_path")
    if reason or image is None:
        return Discarded(prompt=prompt, reason=reason or "no picture was made")
    first = Draft(image=image, evaluation=_read_scores(top))
    steps = list(_read_steps(top))
    rounds = [] if steps else list(_read_rounds(top, first.evaluation))
    return _checked(
        top, "multi_step", Story,
        prompt=prompt, first=first, rounds=tuple(rounds), steps=tuple(steps),
    )  # fmt: skip


def _checked(place: Place, field: str, kind: type[AnyRecord], **values: Any) -> AnyRecord:
    """A record of these values, or a complaint about the field that they came from."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or field
        raise place.wrong(where, str(problem["msg"])) from error


def _read_scores(place: Place) -> Evaluation:
    found = Place(place.path, f"{place.record}, evaluation", place.get("evaluation", dict))
    reasons = {
        axis: found.get(f"{axis}_reasoning", str)
        for axis in AXES
        if found.has(f"{axis}_reasoning") and found.get(f"{axis}_reasoning", str, type(None))
    }
    if set(reasons) <= {AXES[0]}:
        reasoning = "".join(reasons.values())
    else:
        reasoning = "; ".join(f"{axis}: {text}" for axis, text in reasons.items())
    scores = {axis: found.get(f"{axis}_score", int) for axis in AXES}
    return _checked(found, "", Evaluation, reasoning=reasoning, **scores)


def _entries(top: Place, field: str) -> Iterator[Place]:
    values = top.get(field, list, type(None)) if top.has(field) else None
    for number, value in enumerate(values or ()):
        yield Place(top.path, f"{field}[{number}]", value)


def _needed_image(place: Place, field: str) -> bytes:
    image = place.image(field)
    if image is None:
        raise place.wrong(field, "an image is missing")
    return image


def _read_rounds(top: Place, evaluation: Evaluation) -> Iterator[Round]:
    for entry in _entries(top, "reflect"):
        reflection = _reflection(entry, evaluation)
        evaluation = _read_scores(entry)
        image = _needed_image(entry, "reflect_image_path")
        yield Round(reflection=reflection, image=image, evaluation=evaluation)


def _reflection(place: Place, evaluation: Evaluation) -> Reflection:
    """A reflection from its marked form, from the paper's headings, or from plain text, which says
    what to do about the axes that were scored low."""
    thinking = place.get("reflect_thinking", str)
    blocks, _ = read_blocks([thinking])
    if [block.tag for block in blocks] == ["failure_analysis", "improvement_plan"]:
        try:
            return read_reflection(blocks[0].text, blocks[1].text)
        except StoryError as error:
            raise place.wrong("reflect_thinking", str(error)) from error
    headed = re.fullmatch(
        r"\W*failure analysis\W*:\s*(.+?)\W*improvement plan\W*:\s*(.+)",
        thinking.strip(),
        re.DOTALL | re.IGNORECASE,
    )
    if headed:
        analysis, plan = headed[1], headed[2]
    else:
        low = [f"{a} {getattr(evaluation, a)} of 5" for a in AXES if getattr(evaluation, a) < 5]
        analysis, plan = ", ".join(low) or "not accepted", thinking
    return _checked(
        place, "reflect_thinking", Reflection, failure_analysis=analysis, improvement_plan=plan
    )


def _read_steps(top: Place) -> Iterator[SubStep]:
    for entry in _entries(top, "multi_step"):
        yield _checked(
            entry, "step_instruction", SubStep,
            instruction=entry.get("step_instruction", str),
            image=_needed_image(entry, "step_image_path"),
            evaluation=_read_scores(entry),
        )  # fmt: skip


# ------------------------------------------------------------------------------- rollouts


def write_rollouts(stories: Iterable[Story], path: Path) -> int:
    """One line per story in the schema of the released rollouts; returns the number.

    A plan's first picture is a try at the whole instruction, so it is its first intermediate step.
    """
    lines = []
    for story in stories:
        names = [save_image(path.parent, image) for image in story.images]
        said = [story.prompt.instruction, *(step.instruction for step in story.steps)]
        tries = zip(said, names, strict=True) if story.steps else ()
        record = {
            "instruction": story.prompt.instruction,
            "source_images": [save_image(path.parent, image) for image in story.prompt.references],
            "explanation": story.first.evaluation.reasoning,
            "assistant_text": marked(story.segments()),
            "intermediate_steps": [{"instruction": said, "image": name} for said, name in tries],
            "final_image": names[-1],
            "reflections": [
                {"prev_image": before, "text": reflection_text(one.reflection), "next_image": after}
                for one, before, after in zip(story.rounds, names, names[1:], strict=False)
            ],
            EXTRA: {"id": story.prompt.id, "category": story.prompt.category},
        }
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))
    return len(lines)


def read_rollouts(path: Path) -> Iterator[Story]:
    """Stories of a file of rollouts.

    Raises:
        InterloomError: naming the file, the record and the field; a text that tells no story says
            which rule it breaks.
    """
    for number, value in enumerate(read_lines(path)):
        record = Place(path, f"record {number}", value)
        names = [entry.get("image", str) for entry in _entries(record, "intermediate_steps")]
        if not names:
            reflections = list(_entries(record, "reflections"))
            names = [entry.get("prev_image", str) for entry in reflections]
            names.append(record.get("final_image", str))
        images = [record.read_image("final_image", name) for name in names]
        sources = [str(name) for name in record.get("source_images", list)]
        prompt = _prompt(
            record, record.get("instruction", str),
            [record.read_image("source_images", name) for name in sources],
            f"{path.stem}/{number}",
        )  # fmt: skip
        yield _told(record, "assistant_text", prompt, record.get("assistant_text", str), images)


# ---------------------------------------------------------------------------- SFT exports


def write_sft(stories: Iterable[Story], path: Path, form: SftForm) -> int:
    """Write stories as one of the released SFT exports; returns the number.

    ``sharegpt`` and ``messages`` are JSON lists, ``chatml`` has one object a line.
    """
    records = []
    for story in stories:
        asked = IMAGE_MARK * len(story.prompt.references) + story.prompt.instruction
        told = marked(story.segments())
        pictures = (*story.prompt.references, *story.images)
        record: dict[str, Any]
        if form == "sharegpt":
            turns = (("human", asked), ("gpt", told))
            record = {"conversations": [{"from": who, "value": text} for who, text in turns]}
        elif form == "messages":
            turns = (("user", asked), ("assistant", told))
            record = {"messages": [{"role": who, "content": text} for who, text in turns]}
        else:
            turns = (("user", asked), ("assistant", told))
            record = {"text": "".join(f"<|im_start|>{w}\n{t}<|im_end|>\n" for w, t in turns)}
        record["images"] = [save_image(path.parent, data) for data in pictures]
        record[EXTRA] = {"id": story.prompt.id, "category": story.prompt.category}
        records.append(record)
    if form == "chatml":
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    else:
        text = json.dumps(records, indent=1, ensure_ascii=False) + "\n"
    write_text(path, text)
    return len(records)


def read_sft(path: Path, form: SftForm) -> Iterator[Story]:
    """Stories of one of the released SFT exports.

    Raises:
        InterloomError: naming the file, the record and the field.
    """
    values = read_lines(path) if form == "chatml" else read_json(path)
    for number, value in enumerate(values):
        record = Place(path, f"record {number}", value)
        asked, told = _turns(record, form)
        names = [str(name) for name in record.get("images", list)]
        images = [record.read_image("images", name) for name in names]
        references = asked.count(IMAGE_MARK)
        prompt = _prompt(
            record, asked.replace(IMAGE_MARK, " "), images[:references], f"{path.stem}/{number}"
        )
        yield _told(record, "images", prompt, told, images[references:])


def _prompt(record: Place, instruction: str, references: Sequence[bytes], name: str) -> Prompt:
    """Id and category are of our own extra key; records of others are called ``name``."""
    extra = Place(record.path, record.record, record.get(EXTRA, dict) if record.has(EXTRA) else {})
    return _checked(
        record, "instruction", Prompt,
        id=extra.get("id", str) if extra.has("id") else name,
        category=extra.get("category", str) if extra.has("category") else "",
        instruction=instruction,
        references=tuple(references),
    )  # fmt: skip


_CHATML = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)


def _turns(record: Place, form: SftForm) -> tuple[str, str]:
    if form == "chatml":
        turns = _CHATML.findall(record.get("text", str))
        field = "text"
    else:
        field = "conversations" if form == "sharegpt" else "messages"
        who, what = ("from", "value") if form == "sharegpt" else ("role", "content")
        turns = [(e.get(who, str), e.get(what, str)) for e in _entries(record, field)]
    turns = [turn for turn in turns if turn[0] != "system"]
    if [who for who, _ in turns] not in (["human", "gpt"], ["user", "assistant"]):
        raise record.wrong(field, "expected one turn of the user and one of the assistant")
    return turns[0][1], turns[1][1]


def _told(record: Place, field: str, prompt: Prompt, text: str, images: Sequence[bytes]) -> Story:
    """The story of a text with marks for these images."""
    try:
        return parse_story(prompt, interleave(text, images))
    except StoryError as error:
        raise record.wrong(field, f"no story ({error})") from error
    except ValueError as error:
        raise record.wrong(field, str(error)) from error


def read_folder_of_results(folder: Path) -> Iterator[Story | Discarded]:
    """All ``result.json`` under a folder, in the order of their paths.

    Raises:
        InterloomError: there is none.
    """
    paths = sorted(folder.rglob(RESULT))
    if not paths:
        raise InterloomError(f"{folder}: no {RESULT} in it")
    return map(read_result, paths)
