from __future__ import annotations

import json

import pytest

from interloom import dialogue, images
from interloom.dialogue import AnswerError, parse_critique, parse_plan
from interloom.records import Critique, Plan, Request, Step
from interloom.roles import CritiqueCase

PNG = images.white(8, 6)
OTHER = images.white(4, 4)


def critic_answer(body: str, think: str = "seen") -> str:
    return f"<think>{think}</think><answer>{body}</answer>"


GOOD = '{"previous_step_success": true, "refine_prompt": "add a red sun"}'


def text_of(conversation: dialogue.Conversation) -> str:
    return "".join(
        part.get("text", "<image>")
        for message in conversation.messages
        for part in message["content"]
    )


# --- what is said ---------------------------------------------------------------------------------


def test_short_critic_is_one_line():
    case = CritiqueCase(before=OTHER, after=PNG, prompt="add a sun", used_prompt="add a sun")
    conversation = dialogue.critic_messages(case, "short")
    assert text_of(conversation) == "Before:<image>After:<image>step: add a sun"
    assert conversation.images == [OTHER, PNG]
    refined = case.model_copy(update={"used_prompt": "add a red sun"})
    text = text_of(dialogue.critic_messages(refined, "short"))
    assert text == "Before:<image>After:<image>step: add a sun | used: add a red sun"


def test_first_step_is_shown_a_blank_white_picture_of_the_same_size():
    case = CritiqueCase(before=None, after=PNG, prompt="a", used_prompt="a")
    assert dialogue.critic_messages(case, "short").images == [images.white(8, 6), PNG]


def test_short_planner_carries_images_and_captions_in_order():
    request = Request(id="r", text="go on", images=(PNG, OTHER), captions=("a sun", ""))
    conversation = dialogue.planner_messages(request, "short")
    text = text_of(conversation)
    assert text.endswith("as auxiliary_text: request: go on\n1:<image>a sun\n2:<image>")
    assert all(field in text for field in ("execution_plan", *Step.model_fields))
    assert conversation.images == [PNG, OTHER]
    assert [m["role"] for m in conversation.messages] == ["user"]


@pytest.mark.parametrize("style", ["short", "full"])
def test_requests_are_quoted_as_they_are(style: dialogue.Style):
    nasty = "draw {prompt} and <image> and {used}"
    conversation = dialogue.planner_messages(Request(id="r", text=nasty), style)
    assert conversation.images == [] and nasty in text_of(conversation)
    assert all(part["type"] == "text" for m in conversation.messages for part in m["content"])


def test_full_style_states_the_rules():
    case = CritiqueCase(before=None, after=PNG, prompt="add a sun", used_prompt="a red sun")
    critic = text_of(dialogue.critic_messages(case, "full"))
    planner = text_of(dialogue.planner_messages(Request(id="r", text="x"), "full"))
    assert "previous_step_success" in critic and "a red sun" in critic
    assert "execution_plan" in planner and '{"step_number": 1' in planner
    assert "{{" not in planner + critic


# --- how answers are written and read -------------------------------------------------------------


@pytest.mark.parametrize(
    "critique",
    [
        Critique(success=True, refine_prompt="add a red sun", reasoning="all good"),
        Critique(success=False, refine_prompt='say "so" {now}\nplease', reasoning=""),
        Critique(success=False, refine_prompt="größer, 大きい", reasoning="a: b; c."),
    ],
)
def test_critique_round_trip(critique: Critique):
    assert parse_critique(dialogue.format_critique(critique)) == critique


def plan(*prompts: str | None, first: int = 1) -> Plan:
    return Plan(
        reasoning="why",
        steps=tuple(
            Step(
                step_number=first + place,
                step_name=f"name {place}",
                instruction=prompt and f"please {prompt}",
                prompt=prompt,
                auxiliary_text=None if prompt else "text",
            )
            for place, prompt in enumerate(prompts)
        ),
    )


@pytest.mark.parametrize("value", [plan("a"), plan("a", "b", first=3), plan(None, None)])
def test_plan_round_trip(value: Plan):
    assert parse_plan(dialogue.format_plan(value)) == value


def test_python_style_dicts_are_read():
    read = parse_critique(
        critic_answer("{'previous_step_success': False, 'refine_prompt': 'it\\'s'}")
    )
    assert read == Critique(success=False, refine_prompt="it's", reasoning="seen")
    text = (
        "<think>t</think>\n<answer>\n{'execution_plan': [{'step_number': 1, 'step_name': 'x', "
        "'instruction': 'i', 'prompt': 'p', 'auxiliary_text': None}]}\n</answer>\n"
    )
    assert parse_plan(text).steps[0].auxiliary_text is None


def test_nothing_is_evaluated(tmp_path):
    target = tmp_path / "made"
    for body in (
        f"__import__('pathlib').Path({str(target)!r}).touch()",
        f"{{'previous_step_success': open({str(target)!r}, 'w'), 'refine_prompt': 'x'}}",
    ):
        with pytest.raises(AnswerError, match="unparsable"):
            parse_critique(critic_answer(body))
    assert not target.exists()


@pytest.mark.parametrize(
    ("text", "violation"),
    [
        (f"<answer>{GOOD}</answer>", "missing-tag"),
        (f"<think>x<answer>{GOOD}</answer>", "missing-tag"),
        (f"<think>x</think>{GOOD}", "missing-tag"),
        ("", "missing-tag"),
        (f"<answer>{GOOD}</answer><think>x</think>", "wrong-order"),
        (f"<think>x<answer>{GOOD}</answer></think>", "wrong-order"),
        (f"<think>x<think>y</think></think><answer>{GOOD}</answer>", "repeated-tag"),
        (critic_answer(GOOD) + critic_answer(GOOD), "repeated-tag"),
        ("Sure! " + critic_answer(GOOD), "extra-text"),
        (critic_answer(GOOD) + " Done.", "extra-text"),
        (f"<think>x</think> so <answer>{GOOD}</answer>", "extra-text"),
        (critic_answer(GOOD[:-1]), "unparsable"),
        (critic_answer("```json\n" + GOOD + "\n```"), "unparsable"),
        (critic_answer(""), "unparsable"),
        (critic_answer("[" * 50_000), "unparsable"),
        (critic_answer("[1, 2]"), "not-a-dict"),
        (critic_answer("true"), "not-a-dict"),
        (critic_answer("'" + "x" * dialogue.MAX_ANSWER + "'"), "too-long"),
        (critic_answer('{"refine_prompt": "x"}'), "missing-field"),
        (critic_answer('{"previous_step_success": true}'), "missing-field"),
        (critic_answer('{"previous_step_success": "true", "refine_prompt": "x"}'), "wrong-type"),
        (critic_answer('{"previous_step_success": 1, "refine_prompt": "x"}'), "wrong-type"),
        (critic_answer('{"previous_step_success": true, "refine_prompt": null}'), "wrong-type"),
        (critic_answer('{"previous_step_success": true, "refine_prompt": NaN}'), "unparsable"),
        (critic_answer('{"previous_step_success": true, "refine_prompt": " "}'), "empty-prompt"),
    ],
)
def test_critic_violations_are_named(text: str, violation: str):
    with pytest.raises(AnswerError, match=f"^{violation}: ") as caught:
        parse_critique(text)
    assert caught.value.violation == violation


STEP = {"step_number": 1, "step_name": "n", "instruction": "i", "prompt": "p"}


@pytest.mark.parametrize(
    ("entries", "violation"),
    [
        ([], "empty-plan"),
        ("none", "wrong-type"),
        ([1], "not-a-dict"),
        ([STEP | {"step_number": 0}], "step-numbering"),
        ([STEP, STEP], "step-numbering"),
        ([STEP, STEP | {"step_number": 3}], "step-numbering"),
        ([STEP | {"step_number": "1"}], "wrong-type"),
        ([STEP | {"step_number": True}], "wrong-type"),
        ([STEP | {"prompt": 5}], "wrong-type"),
        ([STEP | {"prompt": "  "}], "empty-prompt"),
        ([STEP | {"prompt": None}], "empty-prompt"),
        ([{"step_number": 1, "instruction": "i"}], "missing-field"),
    ],
)
def test_planner_violations_are_named(entries: object, violation: str):
    body = json.dumps({"execution_plan": entries})
    with pytest.raises(AnswerError, match=f"^{violation}: "):
        parse_plan(critic_answer(body))


@pytest.mark.parametrize("tag", dialogue.TAGS)
def test_tags_inside_an_answer_are_never_written(tag: str):
    with pytest.raises(ValueError, match=tag):
        dialogue.format_critique(Critique(success=True, refine_prompt=f"x {tag}"))
    with pytest.raises(ValueError, match=tag):
        dialogue.format_critique(Critique(success=True, refine_prompt="x", reasoning=tag))


def test_plan_faults():
    create = Request(id="r", text="t")
    going_on = Request(id="r", text="t", images=(PNG, PNG), kind="continuation")
    describing = Request(id="r", text="t", images=(PNG, PNG), kind="text_response")
    assert dialogue.plan_faults(plan("a", "b"), create) == []
    assert dialogue.plan_faults(plan("a", first=3), going_on) == []
    assert dialogue.plan_faults(plan(None, None), describing) == []
    assert "count up from 3" in dialogue.plan_faults(plan("a"), going_on)[0]
    assert "1 texts for 2 images" in dialogue.plan_faults(plan(None), describing)[0]
    assert "has a prompt" in dialogue.plan_faults(plan("a", "b"), describing)[0]
    assert "starts with its own number" in dialogue.plan_faults(plan("Step 1: a"), create)[0]
    assert "missing" in dialogue.plan_faults(plan(None), create)[0]
