"""Generator servers behind the Images API: they take turns, and a sick one is passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_server import (
    MODEL,
    SETTINGS,
    Said,
    openai_error,
    openai_picture,
    picture,
    remotes,
    serving,
)
from tiny_project.project import free_port

from interloom.backends.http import HttpImages
from interloom.errors import InterloomError
from interloom.records import Failure
from interloom.roles import GenerationJob

MADE = picture("green")
JOBS = [GenerationJob(prompt=f"a sea {n}", seed=n) for n in range(6)]


def painter(folder: Path, *urls: str, **changes: Any) -> HttpImages:
    backend = remotes(folder, "http", *urls, **{"tries": 8, **changes}).open("http")
    settings = SETTINGS.models.generator.model_copy(
        update={"backend": "http", "model": MODEL, "steps": 4, "guidance": 1.5, "call": {}}
    )
    return HttpImages(backend, settings)


def test_what_is_sent(tmp_path: Path):
    with serving(openai_picture(MADE)) as server:
        assert painter(tmp_path, server.url).generate(JOBS[:1]) == [MADE]
    (asked,) = server.asked
    assert asked.path == "/v1/images/generations"
    side = SETTINGS.models.generator.image_size
    assert asked.json == {
        "model": MODEL,
        "prompt": "a sea 0",
        "n": 1,
        "size": f"{side}x{side}",
        "response_format": "b64_json",
        "seed": 0,
        "num_inference_steps": 4,
        "guidance_scale": 1.5,
    }


def test_servers_take_turns(tmp_path: Path):
    slow = openai_picture(MADE, delay=0.05)
    with serving(slow) as one, serving(slow) as two:
        made = painter(tmp_path, one.url, two.url).generate(JOBS)
    assert made == [MADE] * 6
    assert len(one.asked) == len(two.asked) == 3


def test_a_sick_server_gets_no_calls(tmp_path: Path):
    with serving(openai_picture(MADE)) as sick, serving(openai_picture(MADE)) as well:
        sick.healthy = False
        made = painter(tmp_path, sick.url, well.url).generate(JOBS)
    assert made == [MADE] * 6
    assert not sick.asked and len(well.asked) == 6


def test_a_server_that_is_gone_is_done_without(tmp_path: Path):
    gone = f"http://127.0.0.1:{free_port()}"
    with serving(openai_picture(MADE)) as server:
        made = painter(tmp_path, gone, server.url).generate(JOBS)
    assert made == [MADE] * 6 and len(server.asked) == 6


def test_a_server_that_fails_later_has_to_say_that_it_is_well(tmp_path: Path):
    busy = openai_error(503, None, headers={"retry-after": "0.05"})
    with serving(busy, openai_picture(MADE)) as server:
        assert painter(tmp_path, server.url).generate(JOBS[:1]) == [MADE]
    assert len(server.asked) == 2


def test_no_server_at_all(tmp_path: Path):
    gone = f"http://127.0.0.1:{free_port()}"
    (failure,) = painter(tmp_path, gone, tries=2).generate(JOBS[:1])
    assert isinstance(failure, Failure) and "ConnectError" in failure.reason
    with pytest.raises(InterloomError, match=r"remote\.http\.base_urls: name the generator's"):
        painter(tmp_path)


def test_wrong_picture(tmp_path: Path):
    with serving(openai_picture(b"<svg/>"), Said(b"{}"), openai_picture(MADE)) as server:
        assert painter(tmp_path, server.url).generate(JOBS[:1]) == [MADE]
    assert [asked.json["seed"] for asked in server.asked] == [0, 1, 2]
