"""What may come from outside, and what is refused: always a 4xx with a clear word."""

from __future__ import annotations

import base64
import io
import json
import logging
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from served import ROOT, TEXT, pipeline
from typer.testing import CliRunner

from interloom import images
from interloom.errors import InterloomError
from interloom.serve import guard
from interloom.serve.server import serve as serve_for_real

PNG = images.to_png(Image.new("RGB", (96, 96), "white"))


def encoded(data: bytes, kind: str = "png") -> dict:
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    parts = [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": url}]
    return {"input": [{"role": "user", "content": parts}]}


def saved(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is huge."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG with a compressed comment that unpacks to hundreds of megabytes."""
    note = b"k\0\0" + zlib.compress(b"\0" * 300_000_000)
    at = PNG.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(note)) + b"zTXt" + note
    return PNG[:at] + chunk + struct.pack(">I", zlib.crc32(b"zTXt" + note)) + PNG[at:]


BROKEN = {
    "not base64": ({"input": [{"role": "user", "content": [
        {"type": "input_image", "image_url": "data:image/png;base64,AAA"}]}]}, "not base64"),
    "another address": ({"input": [{"role": "user", "content": [
        {"type": "input_image", "image_url": "file:///etc/passwd"}]}]}, "image_url"),
    "a web address": ({"input": [{"role": "user", "content": [
        {"type": "input_image", "image_url": "http://169.254.169.254/x.png"}]}]}, "image_url"),
    "truncated": (encoded(saved(Image.effect_noise((96, 96), 50), "PNG")[:2000]), "damaged"),
    "disguised text": (encoded(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "no PNG, JPEG"),
    "disguised gif": (encoded(saved(Image.new("RGB", (96, 96)), "GIF")), "no PNG, JPEG"),
    "disguised tiff": (encoded(saved(Image.new("RGB", (96, 96)), "TIFF")), "no PNG, JPEG"),
    "pixel bomb": (encoded(bomb(30_000, 30_000)), "pixels"),
    "worse bomb": (encoded(bomb(2**31 - 1, 2**31 - 1)), "pixels|scale it down|no PNG"),
    "lying header": (encoded(bomb(1900, 1900)), "damaged"),
    "text bomb": (encoded(text_bomb()), "damaged|no PNG"),
    "too small": (encoded(saved(Image.new("RGB", (1, 1)), "PNG")), "at least 16 a side"),
    "too narrow": (encoded(saved(Image.new("RGB", (2000, 16)), "PNG")), "as long as wide"),
    "too many": ({"input": [{"role": "user", "content": [
        {"type": "input_text", "text": "x"},
        *encoded(PNG)["input"][0]["content"][1:] * 17]}]}, "17 pictures, at most 16"),
    "too long": ({"input": "a" * 20_001}, "at most 20000"),
    "steps by hand": ({"input": TEXT, "plan": [{}] * 10_000}, "unknown: plan"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_unfit_content_is_refused(server, name: str):
    body, said = BROKEN[name]
    answer = server.http.post("/v1/responses", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error" and len(error["message"]) < 400
    import re

    assert re.search(said, error["message"]), error["message"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"\xff\xfe{}", 400),
        (b'{"input": "\xff"}', 400),
        (b'{"input": "\\ud800"}', 400),
        (b'{"\\ud800": 1, "input": "a"}', 400),
        (b"[" * 100_000, 400),
        (b'{"input": "a", "seed": ' + b"9" * 5000 + b"}", 400),
        (b'{"input": "a", "seed": NaN}', 400),
        (b'{"input": "a", "temperature": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400),
        (b'"' + b"a" * 33_554_433 + b'"', 413),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bodies_that_are_no_request(server, content: bytes, status: int):
    headers = {"content-type": "application/json"}
    for path in ("/v1/responses", "/invocations"):
        answer = server.http.post(path, content=content, headers=headers)
        assert answer.status_code == status, (path, answer.text)
        assert answer.json()["error"]["message"]


def test_a_body_without_a_length_is_cut_off_too(server):
    def endless():
        for _ in range(40):
            yield b" " * 1_000_000

    headers = {"content-type": "application/json"}
    answer = server.http.post("/v1/responses", content=endless(), headers=headers)
    assert answer.status_code == 413


def test_a_client_that_leaves_in_the_middle_is_no_mistake_of_ours(start, caplog):
    caplog.set_level(logging.INFO, logger="interloom")
    at = start()
    host, port = at.url.removeprefix("http://").split(":")
    head = f"POST /v1/responses HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f'{head}Content-Length: 1000\r\n\r\n{{"input": "'.encode())
    end = time.monotonic() + 20
    while "the client left" not in caplog.text:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert at.http.get("/health").status_code == 200


def test_many_large_bodies_at_once_do_not_fill_the_memory(start):
    at = start(slots=2)
    begun, let_go = threading.Semaphore(0), threading.Event()

    def slow():
        begun.release()  # the head, which takes the place, is on its way before the body is
        yield b'{"input": "'
        assert let_go.wait(30)
        yield b'"}'

    headers = {"content-type": "application/json"}
    large = b'"' + b" " * (guard.LARGE_BODY + 1) + b'"'

    def send(content) -> httpx.Response:
        return httpx.post(f"{at.url}/v1/responses", content=content, headers=headers, timeout=60)

    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(send, slow()) for _ in range(2)]
        assert begun.acquire(timeout=20) and begun.acquire(timeout=20)
        answer = send(large)
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "server_overloaded"
        assert answer.headers["retry-after"] == "1"
        assert at.http.post("/v1/responses", json={"input": TEXT}).status_code == 200
        let_go.set()
        assert [one.result().status_code for one in waiting] == [400, 400]
    assert send(large).status_code == 400, "there is room again"


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=300), place=st.integers(8, 200))
def test_no_damage_to_a_picture_breaks_the_server(server, data: bytes, place: int):
    for kind in ("PNG", "JPEG", "WEBP"):
        whole = saved(Image.effect_noise((32, 32), 60).convert("RGB"), kind)
        answer = server.http.post(
            "/v1/responses", json=encoded(whole[:place] + data + whole[place:])
        )
        assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize(
    "path", ["/page/../api.py", "/page/%2e%2e%2fapi.py", "/page/..%5capi.py", "/v1/responses/../x",
             "/interloom/results/%00/sequence.zip", "/interloom/results/..%2f..%2fx/sequence.html"],
)  # fmt: skip
def test_path_tricks_lead_nowhere(server, path: str):
    answer = httpx.get(server.url + path)
    assert answer.status_code in (404, 405)


def test_other_sites_cannot_use_a_browser_to_ask(server):
    body = json.dumps({"input": TEXT})
    plain = server.http.post("/v1/responses", content=body, headers={"content-type": "text/plain"})
    assert plain.status_code == 415
    rebound = server.http.get("/interloom/results", headers={"host": "evil.example:80"})
    assert rebound.status_code == 403
    assert "access-control-allow-origin" not in server.http.get("/health").headers


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, str, str]:
    path = tmp_path / "keys.json"
    ann = guard.add_key(path, "ann", 60)
    return path, ann, guard.add_key(path, "bob", 3)


def test_keys(start, keys):
    path, ann, bob = keys
    assert ann not in path.read_text() and path.stat().st_mode & 0o77 == 0
    at = start(keys=path)

    def ask(key: str | None, method: str = "POST", route: str = "/v1/responses", **more):
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return at.http.request(method, route, headers=headers, **more)

    assert ask(None, json={"input": TEXT}).status_code == 401
    wrong = ask("il-wrong", json={"input": TEXT})
    assert wrong.status_code == 401 and wrong.json()["error"]["code"] == "invalid_api_key"
    assert ask("~", "GET", "/interloom/results").status_code == 401
    made = ask(ann, json={"input": TEXT})
    assert made.status_code == 200
    route = f"/v1/responses/{made.json()['id']}"
    assert ask(ann, "GET", route).status_code == 200
    assert ask(bob, "GET", route).status_code == 404, "results are their owner's alone"
    assert ask(bob, "GET", "/interloom/results").json()["data"] == []
    codes = [ask(bob, json={"input": " "}).status_code for _ in range(4)]
    assert codes == [400, 400, 400, 429]
    late = ask(bob, json={"input": " "})
    assert late.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(late.headers["retry-after"]) <= 21
    assert ask(ann, json={"input": " "}).status_code == 400, "another key's limit is its own"
    # A key that is taken out of the file does not open any more; a broken file changes nothing.
    entries = json.loads(path.read_text())["keys"]
    path.write_text(json.dumps({"keys": entries[:1]}))
    assert ask(bob, "GET", "/interloom/results").status_code == 401
    path.write_text("{")
    assert ask(ann, "GET", "/interloom/results").status_code == 200


def test_keys_file_faults(tmp_path: Path):
    with pytest.raises(InterloomError, match=r"serving\.keys: .* cannot be read"):
        guard.Keys(tmp_path / "none.json")
    (tmp_path / "keys.json").write_text('{"keys": [{"name": "a", "sha256": "x"}]}')
    with pytest.raises(InterloomError, match=r"keys\.0\.sha256"):
        guard.Keys(tmp_path / "keys.json")
    with pytest.raises(InterloomError, match="name 'a b'"):
        guard.add_key(tmp_path / "new.json", "a b", 1)


def test_other_machines_need_keys(tmp_path: Path):
    from served import settings as shipped

    with pytest.raises(InterloomError, match=r"serving\.keys must name a file"):
        serve_for_real(shipped(), tmp_path, "system:oracle", host="0.0.0.0", port=0)


def test_logs_hold_neither_texts_nor_keys(start, keys, caplog):
    path, ann, _ = keys
    caplog.set_level(logging.DEBUG, logger="interloom")
    at = start(pipeline(), keys=path)
    secret = "a red circle at the top left"
    headers = {"authorization": f"Bearer {ann}"}
    assert at.http.post("/v1/responses", json={"input": secret}, headers=headers).status_code == 200
    at.http.post("/v1/responses", json={"input": f"{secret} frobnicate"}, headers=headers)
    own = [r.getMessage() for r in caplog.records if r.name.startswith(("interloom", "uvicorn"))]
    assert any("completed, 1 images" in line for line in own)
    assert not [line for line in own if secret in line or ann in line]
    at.service.log_texts = True
    at.http.post("/v1/responses", json={"input": secret}, headers=headers)
    assert any(secret in record.getMessage() for record in caplog.records)


def test_the_command_makes_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import shutil

    from interloom.cli import app

    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, ["serve-key", "ann", "--per-minute", "5"])
    assert told.exit_code == 0, told.output
    key = told.output.splitlines()[0]
    held = guard.Keys(tmp_path / ".interloom/keys.json")
    assert held.owner(key, spend=True) == "ann"


def test_a_mistake_of_ours_is_told_without_its_details(start, caplog):
    at = start()
    at.service.results = None
    answer = at.http.get("/interloom/results")
    assert answer.status_code == 500 and answer.json()["error"]["type"] == "server_error"
    assert "AttributeError" in caplog.text and "Traceback" not in caplog.text


@pytest.mark.parametrize("command", ["serve", "serve-generator"])
def test_a_file_of_keys_may_be_given_with_the_command(command: str, tmp_path: Path) -> None:
    """As the pods of k8s/ do, whose params file is that of the image."""
    words = [sys.executable, "-m", "interloom.cli", command, "--host", "0.0.0.0"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "serving.keys must name a file" in done.stderr
    absent = str(tmp_path / "keys.json")
    done = subprocess.run(
        [*words, "--keys", absent], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and f"{absent} cannot be read" in done.stderr
