"""Chat and pictures over HTTP as OpenAI has them; the official client reads the same answers."""

from __future__ import annotations

import base64
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
    openai,
    openai_error,
    openai_picture,
    picture,
    reason,
    remotes,
    serving,
)

from interloom.backends.ledger import Ledger
from interloom.backends.openai import OpenAIChat, OpenAIImages
from interloom.errors import InterloomError
from interloom.records import Critique, Plan, Score
from interloom.roles import CritiqueCase, GenerationJob

JOB = GenerationJob(prompt="a sea", seed=3)


def chat(folder: Path, server: ModelServer, **changes: Any) -> OpenAIChat:
    backend = remotes(folder, "openai", f"{server.url}/v1", **changes).open("openai")
    return OpenAIChat(backend, MODEL, SETTINGS.teacher)


def painter(folder: Path, server: ModelServer, **call: Any) -> OpenAIImages:
    backend = remotes(folder, "openai", f"{server.url}/v1/").open("openai")
    settings = SETTINGS.models.generator.model_copy(
        update={"backend": "openai", "model": MODEL, "call": call, "image_size": 1024}
    )
    return OpenAIImages(backend, settings)


def test_all_roles(tmp_path: Path):
    case = CritiqueCase(before=CASE.before, after=CASE.after, prompt="a moon", used_prompt="moon")
    with serving(openai(PLAN), openai(CRITIQUE), openai(SCORE)) as server:
        model = chat(tmp_path, server)
        (plan,), (critique,), (score,) = (
            model.plan([REQUEST]),
            model.critique([case]),
            model.score([CASE]),
        )
    assert isinstance(plan, Plan) and len(plan.steps) == 2
    assert isinstance(critique, Critique) and not critique.success
    assert score == Score(semantic=6.5, quality=7)
    asked = server.asked[2]
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == "Bearer key-1"
    form = asked.json["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["strict"] is True
    assert form["json_schema"]["schema"]["additionalProperties"] is False
    system, user = asked.json["messages"]
    assert system["role"] == "system"
    urls = [part["image_url"]["url"] for part in user["content"] if part["type"] == "image_url"]
    sent = [base64.b64decode(url.removeprefix("data:image/png;base64,")) for url in urls]
    assert sent == [CASE.before, CASE.after]
    cost = Ledger(tmp_path / "ledger.sqlite").costs()[0]
    assert (cost.calls, cost.input_tokens, cost.output_tokens) == (3, 300, 150)


def test_no_key_is_sent_where_none_is_wanted(tmp_path: Path):
    with serving(openai(SCORE)) as server:
        chat(tmp_path, server, api_key_env=()).score([CASE])
    assert "authorization" not in server.asked[0].headers


def test_pictures_and_edits(tmp_path: Path):
    made = picture("green")
    edit = JOB.model_copy(update={"source": CASE.before})
    merged = edit.model_copy(update={"references": (picture("white", kind="JPEG"),)})
    with serving(openai_picture(made)) as server:
        model = painter(tmp_path, server, quality="low")
        assert model.generate([JOB]) == model.generate([edit]) == model.generate([merged]) == [made]
    drawn, one, two = server.asked
    assert drawn.path == "/v1/images/generations"
    wanted = {"model": MODEL, "prompt": "a sea", "n": 1, "size": "1024x1024", "quality": "low"}
    assert drawn.json == wanted
    assert one.path == two.path == "/v1/images/edits"
    assert b'name="image"' in one.body and CASE.before is not None and CASE.before in one.body
    assert two.body.count(b'name="image[]"') == 2 and b"image/jpeg" in two.body
    (cost,) = Ledger(tmp_path / "ledger.sqlite").costs()
    assert cost.images == 3
    assert cost.usd == pytest.approx(3 * (20 * 1 + 30 * 10) / 1e6 + 3 * 0.01)


@pytest.mark.parametrize(
    "trouble",
    [
        openai_error(429, "rate_limit_exceeded", headers={"retry-after": "0.05"}),
        openai_error(500, None),
        Said(b"<html>bad gateway</html>", 502),
        Said(b"[]", 503),
        Said(openai(SCORE).content[:-20]),
        openai(SCORE, cut=True),
        Said({"choices": []}),
        openai(None),
        openai(SCORE, "length"),
        openai(PLAN),
    ],
)
def test_trouble_that_passes(trouble: Said, tmp_path: Path):
    with serving(trouble, openai(SCORE)) as server:
        assert chat(tmp_path, server).score([CASE]) == [Score(semantic=6.5, quality=7)]
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (openai(None, refusal="I won't"), "refused: I won't"),
        (openai(None, "content_filter"), "refused: content_filter"),
        (openai_error(400, "content_policy_violation"), "refused: content_policy_violation"),
        (openai_error(400, "invalid_value"), "400 so it is"),
    ],
)
def test_asked_once_and_failed(answer: Said, said: str, tmp_path: Path):
    with serving(answer) as server:
        (failure,) = chat(tmp_path, server).score([CASE])
    assert said in reason(failure)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (openai_error(401, "invalid_api_key"), "refuses the key in OPENAI_API_KEY"),
        (openai_error(429, "insufficient_quota"), "out of credit"),
        (openai_error(404, "model_not_found"), r"remote\.openai\.base_urls: .* no such model"),
    ],
)
def test_nothing_can_be_answered(answer: Said, said: str, tmp_path: Path):
    with serving(answer) as server, pytest.raises(InterloomError, match=said):
        chat(tmp_path, server).score([CASE])
    assert len(server.asked) == 1


def test_no_picture(tmp_path: Path):
    with serving(openai_picture(b"GIF89a no PNG")) as server:
        (failure,) = painter(tmp_path, server).generate([JOB])
    assert "unreadable answer" in reason(failure) and len(server.asked) == 3
    with serving(Said({"created": 1, "data": []})) as server:
        (failure,) = painter(tmp_path, server).generate([JOB])
    assert reason(failure) == "an answer without pictures"
    link = Said({"created": 1, "data": [{"url": "https://x"}]})
    with serving(link) as server, pytest.raises(InterloomError, match="response_format: b64_json"):
        painter(tmp_path, server).generate([JOB])
    assert len(server.asked) == 1


def test_the_official_client_reads_the_servers_answers():
    """So what the tests above take for OpenAI's wire format is it."""
    from openai import OpenAI, RateLimitError

    made = picture("green")
    limited = openai_error(429, "rate_limit_exceeded")
    with serving(openai(SCORE), openai_picture(made), limited) as server:
        client = OpenAI(base_url=f"{server.url}/v1", api_key="k", max_retries=0)
        completion = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hello"}]
        )
        assert completion.choices[0].message.content and completion.usage
        assert completion.usage.prompt_tokens == 100
        result = client.images.edit(image=picture(), prompt="x", model=MODEL)
        assert result.data and base64.b64decode(result.data[0].b64_json or "") == made
        with pytest.raises(RateLimitError) as caught:
            client.images.generate(prompt="x", model=MODEL)
    assert caught.value.code == "rate_limit_exceeded"
    assert server.asked[0].path == "/v1/chat/completions"
    assert server.asked[1].path == "/v1/images/edits"
    assert b'name="image"' in server.asked[1].body
    assert server.asked[2].path == "/v1/images/generations"
