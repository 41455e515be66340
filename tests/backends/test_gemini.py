"""The real google-genai client against a local server that speaks its wire format."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from model_server import (
    CASE,
    CRITIQUE,
    MODEL,
    PLAN,
    REQUEST,
    SCORE,
    SETTINGS,
    ModelServer,
    Said,
    gemini,
    gemini_error,
    gemini_picture,
    picture,
    reason,
    remotes,
    serving,
)

from interloom.backends.gemini import GeminiChat, GeminiImages
from interloom.backends.ledger import Ledger
from interloom.errors import InterloomError
from interloom.records import Failure, Plan, Score
from interloom.roles import CritiqueCase, GenerationJob


def chat(folder: Path, server: ModelServer, **changes: Any) -> GeminiChat:
    backend = remotes(folder, "gemini", server.url, **changes).open("gemini")
    return GeminiChat(backend, MODEL, SETTINGS.teacher)


def painter(folder: Path, server: ModelServer, **call: object) -> GeminiImages:
    backend = remotes(folder, "gemini", server.url).open("gemini")
    settings = SETTINGS.models.generator.model_copy(
        update={"backend": "gemini", "model": MODEL, "call": call}
    )
    return GeminiImages(backend, settings)


def test_plan(tmp_path: Path):
    with serving(gemini(PLAN)) as server:
        (plan,) = chat(tmp_path, server).plan([REQUEST])
    assert isinstance(plan, Plan)
    assert [step.prompt for step in plan.steps] == ["a sun over the sea", "a moon over the sea"]
    (asked,) = server.asked
    assert asked.path.endswith(f"/models/{MODEL}:generateContent")
    assert asked.headers["x-goog-api-key"] == "key-1"
    config = asked.json["generationConfig"]
    assert config["responseMimeType"] == "application/json"
    assert config["maxOutputTokens"] == SETTINGS.teacher.max_output_tokens
    assert config["temperature"] == 0.0
    steps = config["responseJsonSchema"]["$defs"]["StepForm"]
    assert steps["required"] == list(PLAN["execution_plan"][0])
    said = asked.json["systemInstruction"]["parts"][0]["text"]
    assert "Answer with one JSON object." in said and "<answer>" not in said


def test_critique_and_score(tmp_path: Path):
    case = CritiqueCase(before=None, after=picture(), prompt="a moon", used_prompt="moon")
    with serving(gemini(CRITIQUE), gemini(SCORE)) as server:
        model = chat(tmp_path, server)
        (critique,) = model.critique([case])
        (score,) = model.score([CASE])
    assert not isinstance(critique, Failure)
    assert not critique.success and critique.refine_prompt == "a round yellow moon"
    assert score == Score(semantic=6.5, quality=7)
    sent = [
        [base64.urlsafe_b64decode(p["inlineData"]["data"]) for p in parts if "inlineData" in p]
        for parts in (asked.json["contents"][0]["parts"] for asked in server.asked)
    ]
    assert sent[0][1] == case.after and len(sent[0]) == 2
    assert sent[1] == [CASE.before, CASE.after]


def test_usage_counts_thoughts_and_is_paid(tmp_path: Path):
    with serving(gemini(SCORE, tokens=(1000, 200, 300))) as server:
        chat(tmp_path, server).score([CASE])
    (cost,) = Ledger(tmp_path / "ledger.sqlite").costs()
    assert (cost.calls, cost.failures, cost.input_tokens, cost.output_tokens) == (1, 0, 1000, 500)
    assert cost.usd == pytest.approx((1000 * 1 + 500 * 10) / 1e6)
    assert (cost.backend, cost.model, cost.purpose) == ("gemini", MODEL, "tests")


def test_picture_and_edit(tmp_path: Path):
    made = picture("green", kind="JPEG")
    with serving(gemini_picture(made, "image/jpeg")) as server:
        model = painter(tmp_path, server, aspect_ratio="1:1")
        jobs = [
            GenerationJob(prompt="a sea", seed=2**40),
            GenerationJob(prompt="add a sun", seed=2, source=CASE.before),
        ]
        assert [model.generate([job]) for job in jobs] == [[made], [made]]
    drawn, edited = (asked.json for asked in server.asked)
    assert drawn["generationConfig"]["imageConfig"] == {"aspectRatio": "1:1"}
    assert drawn["generationConfig"]["responseModalities"] == ["IMAGE"]
    assert len(drawn["contents"][0]["parts"]) == 1
    assert "inlineData" in edited["contents"][0]["parts"][0]
    (cost,) = Ledger(tmp_path / "ledger.sqlite").costs()
    assert cost.images == 2


def test_unknown_call_setting(tmp_path: Path):
    with serving(Said()) as server, pytest.raises(InterloomError, match="size"):
        painter(tmp_path, server, size=3)


QUOTA = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.05s"}


@pytest.mark.parametrize(
    "trouble",
    [
        gemini_error(429, "RESOURCE_EXHAUSTED", QUOTA),
        gemini_error(429, "RESOURCE_EXHAUSTED", headers={"retry-after": "0"}),
        gemini_error(500, "INTERNAL"),
        gemini_error(503, "UNAVAILABLE"),
        Said(b"<html>bad gateway</html>", 502),
        Said(json.dumps({"candidates": []}).encode()[:-3]),
        gemini(SCORE, cut=True),
        Said(b""),
        Said({"candidates": [], "usageMetadata": {"promptTokenCount": 5}}),
        Said({"candidates": [{"finishReason": "STOP", "index": 0}]}),
        Said({"candidates": [{"content": {"role": "model"}, "finishReason": "OTHER"}]}),
        gemini(SCORE, "MAX_TOKENS"),
        gemini([{"text": '{"reasoning": "cut o'}]),
        gemini(SCORE | {"artifacts": 11}),
        gemini(PLAN),
    ],
)
def test_trouble_that_passes(trouble: Said, tmp_path: Path):
    with serving(trouble, gemini(SCORE)) as server:
        (score,) = chat(tmp_path, server).score([CASE])
    assert score == Score(semantic=6.5, quality=7)
    assert len(server.asked) == 2


def test_an_unusable_answer_is_asked_for_again_in_another_way(tmp_path: Path):
    with serving(gemini(PLAN), gemini_error(500, "INTERNAL"), gemini(SCORE)) as server:
        chat(tmp_path, server).score([CASE])
    configs = [asked.json["generationConfig"] for asked in server.asked]
    assert [config["seed"] for config in configs] == [0, 1, 1]
    assert [config["temperature"] for config in configs] == [0.0, 0.7, 0.7]


def test_the_question_or_the_answer_is_blocked(tmp_path: Path):
    blocked = Said(
        {
            "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
            "usageMetadata": {"promptTokenCount": 7},
        }
    )
    safety = Said({"candidates": [{"finishReason": "SAFETY", "index": 0}]})
    unheard = Said({"promptFeedback": {"blockReason": "SOMETHING_NEW"}})
    with serving(blocked, safety, unheard) as server:
        model = chat(tmp_path, server)
        said = [reason(model.plan([REQUEST])[0]) for _ in range(3)]
    assert said[0].startswith("refused: the question was blocked: PROHIBITED_CONTENT")
    assert said[1] == "refused: SAFETY"
    assert "SOMETHING_NEW" in said[2]
    assert len(server.asked) == 3, "a refusal is not asked again, and is not kept"
    (cost,) = Ledger(tmp_path / "ledger.sqlite").costs()
    assert cost.failures == 3 and cost.input_tokens == 7


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (gemini([{"text": "I cannot draw"}]), "text and no picture: 'I cannot draw'"),
        (gemini_picture(b"<svg/>", "text/html"), "text/html instead of a picture"),
        (gemini_picture(b"no picture", "image/png"), "unreadable answer"),
        (gemini([], "NO_IMAGE"), "an empty answer (NO_IMAGE)"),
    ],
)
def test_no_picture(answer: Said, said: str, tmp_path: Path):
    with serving(answer) as server:
        (failure,) = painter(tmp_path, server).generate([GenerationJob(prompt="x", seed=1)])
    assert said in reason(failure)
    seeds = [asked.json["generationConfig"]["seed"] for asked in server.asked]
    assert seeds == [1, 2, 3]


def test_wrong_key(tmp_path: Path):
    detail = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
    }
    with (
        serving(gemini_error(400, "INVALID_ARGUMENT", detail)) as server,
        pytest.raises(InterloomError, match="refuses the key in GEMINI_API_KEY"),
    ):
        chat(tmp_path, server).plan([REQUEST])
    assert len(server.asked) == 1


def test_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with serving(Said()) as server, pytest.raises(InterloomError, match="Gemini takes no calls"):
        chat(tmp_path, server, api_key_env=())
    monkeypatch.delenv("GEMINI_API_KEY")
    with serving(Said()) as server, pytest.raises(InterloomError, match="set GEMINI_API_KEY"):
        chat(tmp_path, server)
