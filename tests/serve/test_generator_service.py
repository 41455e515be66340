"""The generator service, as OpenAI's client and as our own backend ask it."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
import uvicorn
from model_server import SETTINGS, remotes
from PIL import Image
from schema_check import examine
from served import settings
from tiny_project.project import free_port

from interloom import images
from interloom.backends.diffusers import DiffusersGenerator
from interloom.backends.http import HttpImages
from interloom.records import Failure
from interloom.roles import GenerationJob
from interloom.serve.generator_service import Service, make_app
from interloom.serve.guard import LOOPBACK
from interloom.serve.metrics import Metrics
from interloom.settings.models import PriceSettings

CALL = {
    "height": 96,
    "width": 96,
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "max_sequence_length": 40,
    "text_encoder_out_layers": [1, 2, 3],
}
RED = images.to_png(Image.new("RGB", (96, 96), "red"))


class Counted(DiffusersGenerator):
    """Notes the sizes of its batches; ``open`` lets it go on."""

    batches: list[int]
    open: threading.Event

    def generate(self, jobs):
        self.batches.append(len(jobs))
        assert self.open.wait(60)
        return super().generate(jobs)


@pytest.fixture(scope="module")
def generator(tiny_generator: Path) -> Counted:
    made = Counted(tiny_generator, CALL, batch_size=8)
    made.batches, made.open = [], threading.Event()
    made.open.set()
    return made


@contextmanager
def running(generator: Counted, **serving: object) -> Iterator[str]:
    service = Service(settings(**serving).serving, Metrics(), None)
    port = free_port()
    app = make_app(service, hosts=LOOPBACK)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    url = f"http://127.0.0.1:{port}"
    assert httpx.get(f"{url}/health").status_code == 503, "not loaded yet"
    service.open(generator)
    yield url
    server.should_exit = True
    thread.join(20)
    service.close()


@pytest.fixture(scope="module")
def server(generator: Counted) -> Iterator[str]:
    with running(generator) as url:
        yield url


def client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def test_openais_client_draws_and_edits(server: str, generator: Counted):
    one = client(server).images.generate(prompt="a sea", extra_body={"seed": 3})
    (alone,) = generator.generate([GenerationJob(prompt="a sea", seed=3)])
    assert one.data is not None and base64.b64decode(one.data[0].b64_json or "") == alone
    three = client(server).images.generate(
        prompt="a sea",
        n=3,
        size="128x96",
        response_format="b64_json",
        quality="high",  # type: ignore[call-overload]
    )
    sizes = [images.size(base64.b64decode(each.b64_json)) for each in three.data]
    assert sizes == [(128, 96)] * 3 and len({each.b64_json for each in three.data}) == 3
    edited = client(server).images.edit(
        image=[("a.png", RED), ("b.png", RED)], prompt="a sea", extra_body={"seed": 3}
    )
    (expected,) = generator.generate(
        [GenerationJob(prompt="a sea", seed=3, source=RED, references=(RED,))]
    )
    assert edited.data is not None
    assert base64.b64decode(edited.data[0].b64_json or "") == expected


def test_our_backend_speaks_to_it(server: str, generator: Counted, tmp_path: Path):
    backend = remotes(
        tmp_path, "http", f"http://127.0.0.1:{free_port()}", server, tries=8,
        prices={generator.name: PriceSettings(input=0.0, output=0.0, image=0.0)},
    ).open("http")  # fmt: skip
    chosen = SETTINGS.models.generator.model_copy(
        update={"backend": "http", "model": generator.name, "steps": 2, "guidance": 1.0}
    )
    jobs = [GenerationJob(prompt=f"a sea {n}", seed=n) for n in range(6)]
    jobs += [GenerationJob(prompt="a sea", seed=n, source=RED) for n in range(2)]
    generator.batches.clear()
    made = HttpImages(backend, chosen).generate(jobs)
    assert not [answer for answer in made if isinstance(answer, Failure)]
    assert sum(generator.batches) == 8 and len(generator.batches) < 8, "calls are shared"
    for answer, job in zip(made, jobs, strict=True):
        (alone,) = generator.generate([job])
        assert isinstance(answer, bytes) and isinstance(alone, bytes)
        assert images.size(answer) == (96, 96)


def test_calls_that_differ_are_not_shared(generator: Counted):
    with running(generator, queue=4) as url, ThreadPoolExecutor(8) as pool:
        generator.batches.clear()
        generator.open.clear()

        def ask(steps: int) -> int:
            body = {"prompt": "a sea", "num_inference_steps": steps}
            return httpx.post(f"{url}/v1/images/generations", json=body, timeout=60).status_code

        first = pool.submit(ask, 2)
        while not generator.batches:
            time.sleep(0.01)
        rest = [pool.submit(ask, steps) for steps in (2, 1, 2, 1)]
        while "interloom_waiting 4.0" not in httpx.get(f"{url}/metrics").text:
            time.sleep(0.01)
        late = httpx.post(f"{url}/v1/images/generations", json={"prompt": "x"})
        assert late.status_code == 429 and int(late.headers["retry-after"]) >= 1
        generator.open.set()
        assert [future.result() for future in (first, *rest)] == [200] * 5
    assert generator.batches == [1, 2, 2]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "prompt: Field required"),
        ({"prompt": "x", "n": 9}, 400, "n: "),
        ({"prompt": "x", "size": "97x97"}, 400, "steps of 16"),
        ({"prompt": "x", "size": "9600x9600"}, 400, "steps of 16"),
        ({"prompt": "x", "num_inference_steps": 1000}, 400, "less than or equal to 100"),
        ({"prompt": "x", "output_type": "latent"}, 400, "unknown: output_type"),
        ({"prompt": "x", "max_sequence_length": 10**9}, 400, "at most 160"),
        ({"prompt": "x", "text_encoder_out_layers": "all"}, 400, "text_encoder_out_layers"),
        ({"prompt": "x", "model": "dall-e-3"}, 404, "The model here is tiny-generator"),
        ({"prompt": "x", "response_format": "url"}, 400, "response_format"),
    ],
)
def test_refusals(server: str, body: dict, status: int, said: str):
    answer = httpx.post(f"{server}/v1/images/generations", json=body)
    assert answer.status_code == status and said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "content type"),
        ({"image": b"<svg/>"}, "no PNG, JPEG"),
        ({"mask": RED}, "mask: no such picture"),
        ({f"image{n}": RED for n in range(20)}, "Too many files"),
    ],
)
def test_edits_that_are_refused(server: str, files: dict, said: str):
    url = f"{server}/v1/images/edits"
    answer = httpx.post(url, data={"prompt": "x"}, files=files)
    assert 400 <= answer.status_code < 500 and said in answer.json()["error"]["message"]


def test_schemathesis_finds_nothing(server: str, tmp_path: Path):
    examine(server, tmp_path)


def test_the_shipped_settings_fit(tiny_generator: Path):
    """What the backend ``http`` sends of the shipped params is known to the service."""
    from interloom import cast
    from interloom.serve.generator_service import Generate, call_of

    chosen = settings().models.generator.model_copy(update={"model": str(tiny_generator)})
    made = cast.generator(chosen)
    assert isinstance(made, DiffusersGenerator)
    asked = Generate.model_validate(
        {"prompt": "x", "size": "96x96", "num_inference_steps": 4, "guidance_scale": 1.0}
        | chosen.model_dump(mode="json")["call"]
    )
    assert call_of(asked, made, settings().serving) == ()
