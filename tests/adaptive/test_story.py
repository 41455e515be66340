from __future__ import annotations

import pytest
from hypothesis import given
from pydantic import ValidationError
from sample_stories import BAD, FIX, GOOD, PROMPT, direct, multi_step, picture, reflection, stories

from interloom.adaptive.story import (
    TAGS,
    Draft,
    Prompt,
    Round,
    Story,
    StoryError,
    evaluation_text,
    parse_story,
    read_blocks,
    read_evaluation,
    reflection_text,
)
from interloom.records import Evaluation, Reflection

E = evaluation_text(GOOD)
R = reflection_text(FIX)
G = picture(1)


@given(stories)
def test_a_story_is_read_back_from_its_stream(story: Story):
    assert parse_story(story.prompt, story.segments()) == story


@given(stories)
def test_spans_are_the_segments_with_prompt_and_end(story: Story):
    spans = story.spans()
    assert spans[-1].kind == "end" and spans[0].content == "USER: "
    told = [span for span in spans if span.kind not in ("prompt", "end")]
    assert [span.content for span in told if span.kind == "image"] == list(story.images)
    texts = "".join(s.content for s in told if isinstance(s.content, str))
    assert texts == "".join(part for part in story.segments() if isinstance(part, str))
    assert [s for s in spans if s.content in story.prompt.references] or not story.prompt.references


def test_the_three_modes():
    assert (direct().mode, reflection().mode, multi_step().mode) == (
        "direct", "reflection", "multi_step",
    )  # fmt: skip
    names = [span.name for span in reflection().spans()]
    assert names == ["prompt"] * 3 + ["G1", "E1", "R1", "G2", "E2", "R2", "G3", "E3", "end"]
    names = [span.name for span in multi_step(2).spans()]
    assert names == ["prompt"] * 2 + ["G1", "E1", "S1", "G2", "E2", "S2", "G3", "E3", "end"]
    assert multi_step().final.image == picture(4)


@pytest.mark.parametrize(
    ("violation", "segments"),
    [
        ("no-image", [E]),
        ("no-image", []),
        ("image-missing", [E, G, E]),
        ("unexpected-image", [G, E, G, E]),
        ("image-missing", [G, E + R]),
        ("image-missing", [G, E + R + E]),
        ("evaluation-missing", [G]),
        ("evaluation-missing", [G, G, E]),
        ("evaluation-missing", [G, R, G, E]),
        ("evaluation-unreadable", [G, "<evaluate>fine</evaluate>"]),
        ("score-out-of-range", [G, E.replace("quality 5", "quality 6")]),
        ("unexpected-text", [G, E + E]),
        ("unexpected-text", [G, E + "and so on"]),
        ("tag-unclosed", [G, "<evaluate>scores: instruction 5"]),
        ("tag-unclosed", [G, E.replace("</evaluate>", "</step>")]),
        ("tag-unclosed", [G, E + "<failure_analysis>why <evaluate>", G, E]),
        ("reflection-incomplete", [G, E + "<failure_analysis>a</failure_analysis>", G, E]),
        ("reflection-incomplete", [G, E + "<improvement_plan>a</improvement_plan>", G, E]),
        ("empty-text", [G, E + R.replace("add a red sun at the center", " "), G, E]),
        ("empty-text", [G, E + "<step_1></step>", G, E]),
        ("step-order", [G, E + "<step_2>add</step>", G, E]),
        ("step-order", [G, E + "<step_1>add</step>", G, E + "<step_1>add</step>", G, E]),
        ("too-few-steps", [G, E + "<step_1>add</step>", G, E]),
        ("modes-mixed", [G, E + R, G, E + "<step_1>add</step>", G, E]),
        ("too-many-rounds", [G, E, *[part for _ in range(4) for part in (R, G, E)]]),
        (
            "too-many-steps",
            [G, E, *[part for i in range(1, 7) for part in (f"<step_{i}>a</step>", G, E)]],
        ),
    ],
)  # fmt: skip
def test_every_violation_has_its_name(violation, segments):
    with pytest.raises(StoryError) as caught:
        parse_story(PROMPT, segments)
    assert caught.value.violation == violation


def test_a_story_that_was_cut_off_is_none():
    with pytest.raises(StoryError, match="cut-off"):
        parse_story(PROMPT, direct().segments(), ended=False)


def test_parts_of_a_malformed_stream_can_still_be_read():
    blocks, problem = read_blocks([G, E + "hm" + R, G])
    assert problem is not None and problem.violation == "unexpected-text"
    tags = ["image", "evaluate", "failure_analysis", "improvement_plan", "image"]
    assert [block.tag for block in blocks] == tags
    assert read_evaluation(blocks[1].text) == GOOD


@pytest.mark.parametrize("tag", TAGS)
def test_marks_cannot_be_smuggled_into_texts(tag):
    with pytest.raises(ValidationError, match="cannot stand"):
        Prompt(id="p", instruction=f"draw {tag} me")
    with pytest.raises(ValidationError, match="cannot stand"):
        reflection = Reflection(failure_analysis=f"a{tag}", improvement_plan="b")
        Round(image=G, evaluation=GOOD, reflection=reflection)
    with pytest.raises(ValidationError, match="cannot stand"):
        Draft(image=G, evaluation=GOOD.model_copy(update={"reasoning": f"fine{tag}"}))


def test_records_refuse_what_is_no_story():
    first = Draft(image=G, evaluation=BAD)
    with pytest.raises(ValidationError, match="not both"):
        Story(prompt=PROMPT, first=first, rounds=reflection().rounds, steps=multi_step().steps)
    with pytest.raises(ValidationError, match="at least 2"):
        Story(prompt=PROMPT, first=first, steps=multi_step().steps[:1])
    with pytest.raises(ValidationError):
        Evaluation(instruction=0, consistency=5, quality=5, knowledge=5)
