"""SAIR's analyzer over OpenAI's wire format, and what it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model_server import MODEL, SETTINGS, ModelServer, openai, picture, remotes, serving

from interloom.backends.openai import OpenAIChat
from interloom.backends.remote_analyzer import RemoteAnalyzer, read_evaluation, read_reflection
from interloom.records import Evaluation, Failure, Reflection
from interloom.roles import DraftCase, FailedCase, ReflectionCase, StepCase

GIVEN, MADE = picture("blue"), picture("green")
CASE = DraftCase(instruction="make it {green}", references=(GIVEN,), image=MADE)
SCORES = {"instruction": 4, "consistency": 5, "quality": 3, "knowledge": 5}
SEEN = Evaluation(reasoning="a green sea", **SCORES)
FAILED = FailedCase(**dict(CASE), evaluation=SEEN)
FIX = Reflection(kind="under-editing", failure_analysis="too pale", improvement_plan="darker")


def analyzer(folder: Path, server: ModelServer) -> RemoteAnalyzer:
    backend = remotes(folder, "openai", f"{server.url}/v1").open("openai")
    return RemoteAnalyzer(OpenAIChat(backend, MODEL, SETTINGS.teacher))


def told(asked: Any) -> tuple[str, int]:
    """The user's text and the number of pictures in a request."""
    parts = asked.json["messages"][-1]["content"]
    text = "".join(part.get("text", "▣") for part in parts)
    return text, sum(part["type"] == "image_url" for part in parts)


def test_every_task_over_the_wire(tmp_path: Path):
    answers = [
        {"reasoning": "a green sea", **SCORES},
        FIX.model_dump(),
        {"reasoning": "much at once", "cause": "instruction_too_complex"},
        {"steps": ["paint the sea ", "paint the sky"]},
        {"reasoning": "r", "validity": 0.75},
        {"reasoning": "r", "validity": 0.5},
    ]
    with serving(*(openai(answer) for answer in answers)) as server:
        one = analyzer(tmp_path, server)
        assert one.evaluate([CASE]) == [SEEN]
        assert one.reflect([FAILED]) == [FIX]
        assert one.diagnose([FAILED]) == ["instruction_too_complex"]
        assert one.decompose([FAILED]) == [("paint the sea", "paint the sky")]
        rated = ReflectionCase(**dict(FAILED), reflection=FIX)
        assert one.rate_reflections([rated]) == [0.75]
        step = StepCase(instruction="x", references=(), current=None, step="draw a sea")
        assert one.rate_steps([step]) == [0.5]
        texts = [told(asked) for asked in server.asked]
    assert texts[0][0].startswith("Given picture 1: ▣\nThe result: ▣")
    assert "The instruction: make it {green}" in texts[0][0], "braces in values stay text"
    assert [count for _, count in texts] == [2, 2, 2, 2, 2, 0]
    assert "a green sea (instruction 4, consistency 5, quality 3, knowledge 5)" in texts[1][0]
    assert "too pale" in texts[4][0] and "darker" in texts[4][0]
    form = server.asked[0].json["response_format"]["json_schema"]
    assert form["strict"] is True and form["schema"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        (read_evaluation, {"reasoning": "", **SCORES, "quality": 6}),
        (read_evaluation, {"reasoning": "", "instruction": 5}),
        (read_evaluation, {"reasoning": "", **SCORES, "beauty": 5}),
        (read_reflection, {"kind": "bad luck", "failure_analysis": "a", "improvement_plan": "b"}),
        (read_reflection, {"kind": "logic flaw", "failure_analysis": " ", "improvement_plan": "b"}),
    ],
)
def test_answers_of_another_form_are_refused(read, answer):
    with pytest.raises(ValueError, match=r"validation error"):
        read(json.dumps(answer).encode())


def test_an_answer_that_never_comes_is_a_failure(tmp_path: Path):
    bad = openai({"steps": ["", "paint"]})
    with serving(*[bad] * 20) as server:
        (answer,) = analyzer(tmp_path, server).decompose([FAILED])
    assert isinstance(answer, Failure)
