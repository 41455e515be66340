"""The unified model as it is served: batches of stories, and the API as the ``openai`` client sees
it. The model is the shipped one, taught stories of every mode."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import replace
from typing import Any

import openai
import pytest
from openai.types.responses import ResponseImageGenCallPartialImageEvent
from served import Gated, Heard, engine, order
from taught_umm import ANALYSIS, DIRECT, EDIT, MULTI_STEP, REFLECTION, REPAIR, STEP_TEXTS, SUN
from taught_umm import picture as drawn

from interloom import images
from interloom.adaptive.reasoner import AdaptiveReasoner, Budget
from interloom.adaptive.story import parse_story
from interloom.adaptive.trajectories import answer, prompt_of
from interloom.serve.events import Began, Drawn, Judged, StepDone, Wrote
from interloom.serve.reasoner import Reasoner

SEEN = {DIRECT: 1, REFLECTION: 2, MULTI_STEP: 3}
"""Pictures that each request takes."""


def asked(text: str, **changes: Any):
    return order(text, **{"generator": "", "max_attempts": 0, **changes})


def gated(served: Reasoner) -> tuple[Gated, Reasoner]:
    gate = Gated(served.reasoner)
    return gate, replace(served, reasoner=gate)


# --- the engine ---------------------------------------------------------------------------------


def test_stories_are_carried_out_as_the_reasoner_tells_them(reasoner: Reasoner):
    at = engine(reasoner)
    orders = [asked(text) for text in SEEN]
    heard = [Heard(at, one) for one in orders]
    ends = [one.end() for one in heard]
    assert [end.outcome for end in ends] == ["completed"] * 3
    requests = [one.request for one in orders]
    expected = answer(reasoner.reasoner, requests, [Budget(40)] * 3, 1)
    assert [end.trajectory for end in ends] == expected
    for one, request, told in zip(heard, requests, expected, strict=True):
        attempts = [attempt for trace in told.steps for attempt in trace.attempts]
        assert len(attempts) == SEEN[request.text] == one.ticket.flight.images
        assert [e.attempt.image for e in one.events if isinstance(e, Drawn)] == [
            attempt.image for attempt in attempts
        ]
        assert [e.attempt for e in one.events if isinstance(e, Judged)] == attempts
        assert [e.trace for e in one.events if isinstance(e, StepDone)] == list(told.steps)
        (*_, last) = [event for event in one.events if isinstance(event, Wrote)]
        assert told.plan is not None and last.mode == told.plan.reasoning
        assert last.violation is None
    assert at.close()


def test_a_sub_step_is_told_of_before_it_is_drawn(reasoner: Reasoner):
    gate, served = gated(reasoner)
    heard = Heard(engine(served), asked(MULTI_STEP))
    assert gate.called.wait(20)
    assert isinstance(heard._queue.get(timeout=5), Began), "the first picture is for the request"
    gate.called.clear()
    gate.open.set()
    heard.end()
    kinds = [type(event) for event in heard.events]
    assert kinds == [
        Wrote,
        *[Drawn, Judged, StepDone, Began, Wrote] * 2,
        *[Drawn, Judged, StepDone, Wrote],
        type(heard.end()),
    ]
    began = [event for event in heard.events if isinstance(event, Began)]
    assert [(event.place, event.step.prompt) for event in began] == [
        (1, STEP_TEXTS[0]),
        (2, STEP_TEXTS[1]),
    ]


def test_newcomers_join_the_next_round(reasoner: Reasoner):
    gate, served = gated(reasoner)
    at = engine(served)
    first = Heard(at, asked(MULTI_STEP))
    assert gate.called.wait(20)
    others = [Heard(at, asked(text)) for text in (DIRECT, REFLECTION)]
    while len(at._begun) < 2:
        pass
    gate.open.set()
    assert {one.end().outcome for one in (first, *others)} == {"completed"}
    assert gate.batches == [1, 3, 2], "three rounds, and who is done makes room"
    calls = [(call.role, call.batch, call.number) for call in first.ticket.calls]
    assert calls == [
        ("encoder", 1, 0),
        ("reasoner", 1, 0),
        ("reasoner", 3, 1),
        ("reasoner", 2, 2),
    ]
    used = [call.usage for call in first.ticket.calls]
    assert used[0].input_tokens > 10 and all(usage.output_tokens > 20 for usage in used[1:])


def test_a_request_that_breaks_a_batch_fails_alone_and_one_that_is_gone_costs_nothing(
    reasoner: Reasoner,
):
    gate, served = gated(reasoner)
    at = engine(served, gather=0.2)
    heard = [Heard(at, asked(text)) for text in (DIRECT, "explode", MULTI_STEP)]
    assert gate.called.wait(20)
    heard[2].ticket.cancel()
    gate.open.set()
    ends = [one.end() for one in heard[:2]]
    assert [end.outcome for end in ends] == ["completed", "error"]
    assert ends[1].message == "the reasoner failed: RuntimeError"
    assert at.close() and gate.batches == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "ending", "mode", "pictures"),
    [
        ({"text": REFLECTION, "image_budget": 1}, ("incomplete", "image_budget"), "direct", 1),
        ({"text": MULTI_STEP, "image_budget": 2}, ("incomplete", "image_budget"), "multi_step", 2),
        ({"text": DIRECT, "image_budget": 1}, ("completed", ""), "direct", 1),
        ({"text": REFLECTION, "image_budget": 2}, ("completed", ""), "reflection", 2),
        ({"text": MULTI_STEP, "reluctance": 50.0}, ("completed", ""), "direct", 1),
        ({"text": "red sun " * 1200}, ("failed", "input_too_long"), "", 0),
    ],
)
def test_how_a_story_ends(reasoner: Reasoner, changes: dict, ending, mode: str, pictures: int):
    end = Heard(engine(reasoner), asked(**changes)).end()
    assert (end.outcome, end.code) == ending
    assert sum(len(trace.attempts) for trace in end.trajectory.steps) == pictures
    assert (end.trajectory.plan.reasoning if end.trajectory.plan else "") == mode


@pytest.mark.parametrize(
    ("tokens", "ending", "violation"),
    [
        (30, ("incomplete", "max_output_tokens"), "tag-unclosed"),
        (6, ("failed", "generator_failed"), "no-image"),
    ],
)
def test_a_story_that_is_cut_off(reasoner: Reasoner, tokens: int, ending, violation: str):
    short = AdaptiveReasoner(reasoner.reasoner.unified, max_tokens=tokens)
    heard = Heard(engine(replace(reasoner, reasoner=short)), asked(DIRECT))
    end = heard.end()
    assert (end.outcome, end.code) == ending
    (*_, last) = [event for event in heard.events if isinstance(event, Wrote)]
    assert last.violation == violation


# --- the API ------------------------------------------------------------------------------------


def client(at) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{at.url}/v1", api_key="none", max_retries=0)


def test_the_answer_is_the_story(start, reasoner: Reasoner):
    at = start(reasoner)
    made = client(at).responses.create(
        input=REFLECTION, extra_body={"include_attempts": True, "seed": 5}
    )
    assert made.status == "completed"
    assert [item.type for item in made.output] == ["message", "image_generation_call"]
    report = made.interloom  # type: ignore[attr-defined]
    assert (report["mode"], report["images"], report["violation"]) == ("reflection", 2, None)
    assert report["t_max"] is None and report["generator"] is None and report["reluctance"] == 0
    first, second = report["steps"][0]["attempts"]
    assert (first["success"], second["success"]) == (False, True)
    assert ANALYSIS in first["reasoning"] and first["refine_prompt"] == REPAIR == second["prompt"]
    assert made.output[1].result == second["image"]  # type: ignore[union-attr]
    assert images.size(base64.b64decode(second["image"])) == (96, 96)
    assert report["story"].count("<image>") == 2 and "<improvement_plan>" in report["story"]
    assert made.usage is not None and made.usage.output_tokens > 80 > made.usage.input_tokens > 10
    # The story is of the one format: whoever has its pictures can read it back.
    pieces = report["story"].split("<image>")
    pictures = [base64.b64decode(one["image"]) for one in (first, second)]
    segments = [part for pair in zip(pictures, pieces[1:], strict=True) for part in pair]
    assert parse_story(prompt_of(order(REFLECTION).request), segments).mode == "reflection"
    listed = client(at).models.list().data[0]
    assert listed.interloom["options"] == ["reluctance"]  # type: ignore[attr-defined]
    text = at.http.get("/metrics").text
    assert "interloom_images_total 2.0" in text
    assert 'interloom_tokens_total{kind="output",role="reasoner"}' in text


def test_the_stream_unfolds(start, reasoner: Reasoner):
    at = start(reasoner)
    stream = client(at).responses.create(
        input=MULTI_STEP, stream=True, extra_body={"include_attempts": True}
    )
    events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    own = [e for e in events if e.type.startswith("interloom.")]
    kinds = [event.type.removeprefix("interloom.") for event in own]
    assert kinds == ["step", "story", *["attempt", "step", "story"] * 2, "attempt", "story"]
    steps = [event.step for event in own if event.type == "interloom.step"]  # type: ignore[union-attr]
    assert [step["step_number"] for step in steps] == [1, 2, 3]
    assert [step["prompt"] for step in steps] == [MULTI_STEP, *STEP_TEXTS]
    modes = [event.mode for event in own if event.type == "interloom.story"]  # type: ignore[union-attr]
    assert modes == ["direct", "multi_step", "multi_step", "multi_step"]
    partial = [e for e in events if isinstance(e, ResponseImageGenCallPartialImageEvent)]
    assert len(partial) == 3
    done = [e.item for e in events if e.type == "response.output_item.done"]
    calls = [item for item in done if item.type == "image_generation_call"]
    assert [item.result for item in calls] == [e.partial_image_b64 for e in partial]
    last = events[-1]
    assert last.type == "response.completed" and len(last.response.output) == 6
    # Other clients get no events that they do not know.
    plain = client(at).responses.create(input=DIRECT, stream=True)
    assert all(event.type.startswith("response.") for event in plain)


def test_pictures_go_in_and_budgets_hold(start, reasoner: Reasoner):
    at = start(reasoner)
    url = f"data:image/png;base64,{base64.b64encode(drawn({0: SUN})).decode()}"
    content = [{"type": "input_text", "text": EDIT}, {"type": "input_image", "image_url": url}]
    ask = client(at).responses.create
    made = ask(input=[{"role": "user", "content": content}])  # type: ignore[arg-type,list-item]
    assert made.status == "completed" and made.output[1].action == "edit"  # type: ignore[union-attr]
    assert made.interloom["steps"][0]["step_number"] == 2  # type: ignore[attr-defined]
    short = ask(input=MULTI_STEP, max_tool_calls=1)
    assert short.status == "incomplete" and short.interloom["images"] == 1  # type: ignore[attr-defined]
    assert short.incomplete_details.reason == "image_budget"  # type: ignore[union-attr]
    dear = ask(input=MULTI_STEP, extra_body={"reluctance": 50})
    assert dear.status == "completed" and dear.interloom["mode"] == "direct"  # type: ignore[attr-defined]
    assert dear.interloom["reluctance"] == 50 and dear.interloom["images"] == 1  # type: ignore[attr-defined]


def test_refusals(start, server, reasoner: Reasoner):
    at = start(reasoner)
    marked = "a sun <evaluate>fine</evaluate>"
    for wanted, said in (
        ({"extra_body": {"t_max": 3}}, "t_max: story has no such choice"),
        ({"extra_body": {"generator": "x"}}, "generator: story has no such choice"),
        ({"extra_body": {"reluctance": -1}}, "reluctance"),
        ({"extra_body": {"image_budget": 41}}, "at most 40"),
        ({"input": marked}, "'<evaluate>' marks a story's parts"),
        ({"input": "two <image> in it"}, "'<image>' marks"),
        ({"input": "a sun <|image start|>3*3"}, r"'<\|image start\|>' marks"),
        ({"input": "red sun " * 1200}, "tokens, at most"),
    ):
        with pytest.raises(openai.BadRequestError, match=said):
            client(at).responses.create(**{"input": DIRECT, **wanted})
    with pytest.raises(openai.BadRequestError, match="reluctance: pocket has no such choice"):
        client(server).responses.create(input=DIRECT, extra_body={"reluctance": 1})
    url = f"data:image/png;base64,{base64.b64encode(drawn({0: SUN})).decode()}"
    content = [{"type": "input_image", "image_url": url}]
    with pytest.raises(openai.BadRequestError, match="text_response"):
        client(at).responses.create(
            input=[{"role": "user", "content": content}],  # type: ignore[arg-type,list-item]
            extra_body={"kind": "text_response"},
        )


def test_invocations_as_the_registered_model_answers(start, reasoner: Reasoner):
    at = start(reasoner)
    rows = [{"text": DIRECT}, {"text": MULTI_STEP}]
    body = {"dataframe_records": rows, "params": {"image_budget": 2, "seed": 4}}
    first, second = at.http.post("/invocations", json=body).json()["predictions"]
    assert (first["mode"], first["images_used"]) == ("direct", 1)
    assert (second["mode"], second["images_used"]) == ("multi_step", 2)
    assert len(second["images"]) == 2 and second["failure"] == ""
    assert json.loads(second["trajectory"])["steps"][0][0]["success"] is False
    for params in ({"image_budget": -1}, {"reluctance": -1.0}, {"seed": -1}):
        wrong = {"dataframe_records": rows, "params": params}
        answered = at.http.post("/invocations", json=wrong)
        assert answered.status_code == 400, answered.text
        assert next(iter(params)) in answered.json()["error"]["message"]


def test_many_clients_share_rounds(start, reasoner: Reasoner):
    gate, served = gated(reasoner)
    at = start(served)
    made: list[Any] = []

    def ask(text: str) -> None:
        made.append(client(at).responses.create(input=text))

    threads = [threading.Thread(target=ask, args=(text,)) for text in [*SEEN] * 3]
    for thread in threads:
        thread.start()
    while len(at.service.host.engine._aboard) < 9:
        pass
    gate.open.set()
    for thread in threads:
        thread.join()
    assert [one.status for one in made] == ["completed"] * 9
    assert len(gate.batches) <= 5, "not three rounds of each of nine requests"
    assert sum(gate.batches) == sum(SEEN.values()) * 3
