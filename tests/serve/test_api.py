"""The API as the unmodified ``openai`` client sees it."""

from __future__ import annotations

import base64
import io
import json
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace

import openai
import pytest
from openai.types.responses import (
    ResponseCompletedEvent,
    ResponseImageGenCallPartialImageEvent,
    ResponseOutputMessage,
)
from openai.types.responses.response_output_item import ImageGenerationCall
from served import TEXT, Counted, Gate, pipeline

from interloom import images
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, Sprite
from interloom.records import Failure, Plan, Request, Step

SUN = images.to_png(render(Scene.of({0: Sprite("red", "sun")}, "day")))


def client(at) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{at.url}/v1", api_key="none", max_retries=0)


def data_url(picture: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def with_picture(text: str, picture: bytes = SUN) -> list:
    parts = [
        {"type": "input_text", "text": text},
        {"type": "input_image", "image_url": data_url(picture), "detail": "auto"},
    ]
    return [{"role": "user", "content": parts}]


def test_text_becomes_a_sequence(server):
    made = client(server).responses.create(
        model="pocket", input=TEXT, metadata={"a": "b"}, extra_body={"seed": 5}
    )
    assert made.status == "completed" and made.metadata == {"a": "b"} and made.error is None
    kinds = [item.type for item in made.output]
    assert kinds == ["message", "image_generation_call"] * 2
    for message, picture in zip(made.output[::2], made.output[1::2], strict=True):
        assert isinstance(message, ResponseOutputMessage) and made.output_text
        assert isinstance(picture, ImageGenerationCall) and picture.status == "completed"
        assert images.size(base64.b64decode(picture.result or "")) == (96, 96)
    assert made.usage is not None and made.usage.total_tokens == 0
    again = client(server).responses.create(model="pocket", input=TEXT, extra_body={"seed": 5})
    assert [item.result for item in again.output[1::2]] == [i.result for i in made.output[1::2]]  # type: ignore[union-attr]
    report = made.interloom  # type: ignore[attr-defined]
    assert report["seed"] == 5 and report["images"] >= 2 and len(report["plan"]) == 2
    assert [step["passed"] for step in report["steps"]] == [True, True]
    assert client(server).responses.retrieve(made.id).output == made.output


def test_pictures_go_in_and_are_edited(server):
    made = client(server).responses.create(input=with_picture("add a blue cup at the center"))
    assert made.status == "completed"
    picture = made.output[1]
    assert isinstance(picture, ImageGenerationCall) and picture.action == "edit"
    # The answer goes back as it came, and is gone on from.
    turn = [*with_picture("add a blue cup at the center"), *made.output]
    turn.append({"role": "user", "content": "add a green tree at the top right"})
    more = client(server).responses.create(input=turn[1:])  # type: ignore[arg-type]
    assert more.status == "completed" and len(more.output) == 2


def test_texts_for_pictures(server):
    made = client(server).responses.create(
        input=with_picture("tell what you see"), extra_body={"kind": "text_response"}
    )
    assert [item.type for item in made.output] == ["message"] and "red sun" in made.output_text


def test_the_stream_tells_of_every_step(server):
    stream = client(server).responses.create(
        input=TEXT, stream=True, extra_body={"include_attempts": True, "seed": 3}
    )
    events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.in_progress", "interloom.plan"]
    step = kinds[3 : kinds.index("response.output_item.done", 10) + 1]
    assert step == [
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.image_generation_call.in_progress",
        "response.image_generation_call.generating",
        *["response.image_generation_call.partial_image", "interloom.attempt"]
        * kinds[:20].count("interloom.attempt"),
        "response.image_generation_call.completed",
        "response.output_item.done",
    ]
    last = events[-1]
    assert isinstance(last, ResponseCompletedEvent)
    partial = [e for e in events if isinstance(e, ResponseImageGenCallPartialImageEvent)]
    attempts = [
        attempt
        for step in last.response.interloom["steps"]  # type: ignore[attr-defined]
        for attempt in step["attempts"]
    ]
    assert [event.partial_image_b64 for event in partial] == [a["image"] for a in attempts]
    assert sum(attempt["success"] for attempt in attempts) == 2


def test_the_clients_own_stream_helper(server):
    with client(server).responses.stream(input=TEXT, model="pocket") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert len(deltas) == 2 and "".join(deltas) == final.output_text


def test_other_clients_get_no_events_that_they_do_not_know(server):
    stream = client(server).responses.create(
        input=TEXT, stream=True, tools=[{"type": "image_generation", "partial_images": 1}]
    )
    kinds = {event.type for event in stream}
    assert "response.image_generation_call.partial_image" in kinds
    assert all(kind.startswith("response.") for kind in kinds)


def test_budgets(server):
    ask = client(server).responses.create
    short = ask(input=TEXT, max_tool_calls=1)
    assert short.status == "incomplete" and len(short.output) == 2
    assert short.incomplete_details.reason == "image_budget"  # type: ignore[union-attr]
    enough = ask(input=TEXT, extra_body={"image_budget": 2, "t_max": 3})
    assert enough.status == "completed" and enough.interloom["images"] == 2  # type: ignore[attr-defined]


def test_what_cannot_be_planned_fails_in_the_answer(server):
    made = client(server).responses.create(input="frobnicate the quux")
    assert made.status == "failed" and made.output == []
    assert made.error is not None and made.error.code == "planner_failed"
    *_, last = client(server).responses.create(input="frobnicate the quux", stream=True)
    assert last.type == "response.failed"


class Verbose(Counted):
    """A planner that knows no end."""

    def plan(self, requests: Sequence[Request]) -> list[Plan | Failure]:
        steps = [Step(step_number=n, instruction="x", prompt="x") for n in range(1, 10_001)]
        return [Plan(steps=tuple(steps))] * len(requests)


def test_a_plan_of_ten_thousand_steps_is_refused(start):
    at = start(replace(pipeline(), planner=Verbose()))
    with pytest.raises(openai.BadRequestError, match="10000 steps, at most 32") as caught:
        client(at).responses.create(input=TEXT)
    assert caught.value.code == "plan_too_long"
    *_, last = client(at).responses.create(input=TEXT, stream=True)
    assert last.type == "response.failed" and last.response.output == []


@pytest.mark.parametrize(
    ("wanted", "error", "said"),
    [
        ({"input": "  "}, openai.BadRequestError, "no text"),
        ({"model": "gpt-5"}, openai.NotFoundError, "not served here"),
        ({"extra_body": {"tmax": 3}}, openai.BadRequestError, "unknown: tmax"),
        ({"extra_body": {"t_max": "3"}}, openai.BadRequestError, "t_max: Input should be a valid"),
        ({"extra_body": {"t_max": 21}}, openai.BadRequestError, "less than or equal to 20"),
        ({"extra_body": {"image_budget": 41}}, openai.BadRequestError, "at most 40"),
        ({"extra_body": {"generator": "x"}}, openai.BadRequestError, "renderer can be chosen"),
        ({"previous_response_id": "r"}, openai.BadRequestError, "is not supported"),
        ({"tools": [{"type": "web_search"}]}, openai.BadRequestError, "image_generation"),
        ({"metadata": {"a": "b" * 600}}, openai.BadRequestError, "metadata.a"),
    ],
)
def test_refusals(server, wanted: dict, error: type[openai.APIStatusError], said: str):
    with pytest.raises(error, match=said):
        client(server).responses.create(**{"input": TEXT, **wanted})


def test_results_are_listed_downloaded_and_deleted(server):
    made = client(server).responses.create(input=TEXT)
    listed = server.http.get("/interloom/results?limit=1").json()["data"]
    assert [entry["id"] for entry in listed] == [made.id] and listed[0]["images"] == 2
    page = server.http.get(f"/interloom/results/{made.id}/sequence.html")
    assert page.text.count("<img ") == 2 and "attachment" in page.headers["content-disposition"]
    data = server.http.get(f"/interloom/results/{made.id}/sequence.zip").content
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        names = file.namelist()
        assert names == ["index.html", "sequence.json", "step-01.png", "step-02.png"]
        assert file.read("step-02.png") == base64.b64decode(made.output[3].result)  # type: ignore[union-attr]
        assert json.loads(file.read("sequence.json"))["text"] == TEXT
    client(server).responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client(server).responses.retrieve(made.id)


def test_overload_and_clients_that_leave(start):
    parts = pipeline()
    gate = parts.generators["renderer"]
    assert isinstance(gate, Gate)
    gate.open.clear()
    at = start(parts, slots=1, queue=1)
    streams = [client(at).responses.create(input=TEXT, stream=True)]
    assert gate.called.wait(20)
    streams.append(client(at).responses.create(input=TEXT, stream=True))
    with pytest.raises(openai.RateLimitError) as caught:
        client(at).responses.create(input=TEXT)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.code == "server_overloaded"
    for stream in streams:
        stream.close()
    engine = at.service.host.engine
    end = time.monotonic() + 20
    while engine._waiting:
        assert time.monotonic() < end
        time.sleep(0.01)
    gate.open.set()
    assert client(at).responses.create(input=TEXT).status == "completed"
    assert len(gate.batches) == 3, "one picture for the first that left, none for the second"
    text = at.http.get("/metrics").text
    assert 'interloom_requests_total{outcome="cancelled"} 2.0' in text
    assert 'interloom_requests_total{outcome="completed"} 1.0' in text


def test_a_waiting_client_that_leaves_without_a_stream(start):
    import httpx

    parts = pipeline()
    gate = parts.generators["renderer"]
    assert isinstance(gate, Gate)
    gate.open.clear()
    at = start(parts)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{at.url}/v1/responses", json={"input": TEXT}, timeout=1)
    end = time.monotonic() + 20
    while not all(ticket.cancelled for ticket in at.service.host.engine._aboard):
        assert time.monotonic() < end
        time.sleep(0.01)
    gate.open.set()


def test_a_new_model_takes_over_without_a_failed_request(start):
    parts = pipeline()
    gate = parts.generators["renderer"]
    assert isinstance(gate, Gate)
    gate.open.clear()
    at = start(parts)
    stream = client(at).responses.create(input=TEXT, stream=True)
    assert gate.called.wait(20)
    at.service.host.swap(pipeline(version="2", generator="better"))
    new = client(at).responses.create(input=TEXT)
    assert new.interloom["version"] == "2" and new.interloom["generator"] == "better"  # type: ignore[attr-defined]
    assert at.http.get("/ready").json()["version"] == "2"
    gate.open.set()
    *_, last = stream
    assert last.response.status == "completed" and last.response.interloom["version"] == "1"  # type: ignore[union-attr]


def test_invocations_as_mlflow_has_them(server):
    rows = [{"text": TEXT}, {"text": "frobnicate"}]
    body = {"dataframe_records": rows, "params": {"max_attempts": 2, "seed": 4}}
    answer = server.http.post("/invocations", json=body)
    first, second = answer.json()["predictions"]
    assert first["failure"] == "" and len(first["images"]) == 2 and second["failure"]
    assert json.loads(first["trajectory"])["plan"][0]["step_number"] == 1
    wrong = server.http.post("/invocations", json={"dataframe_records": [{"txt": "a"}]})
    assert wrong.status_code == 400 and "text" in wrong.json()["error"]["message"]


def test_state(server):
    assert server.http.get("/health").json() == {"status": "ok"}
    assert server.http.get("/ready").json()["model"] == "pocket"
    assert client(server).models.list().data[0].id == "pocket"
    metrics = server.http.get("/metrics").text
    assert 'interloom_model{name="pocket",version="1"} 1.0' in metrics
    assert 'interloom_batch_size_bucket{le="1.0",role="planner"}' in metrics
