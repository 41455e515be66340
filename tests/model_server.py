"""A local server that speaks the wire formats of Gemini, OpenAI and the Images API, for tests."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

from interloom import images
from interloom.backends.remote import RemoteName, Remotes
from interloom.records import Failure, Request
from interloom.roles import JudgeCase
from interloom.settings.file import load_settings
from interloom.settings.models import PriceSettings, RemoteSettings, RemotesSettings

SETTINGS = load_settings(Path(__file__).parents[1] / "params.yaml")
MODEL = "tested-model"
KEYS = {"gemini": "GEMINI_API_KEY", "openai": "OPENAI_API_KEY"}


@dataclass(frozen=True)
class Asked:
    """A request as it came in, and how many came before it."""

    number: int
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Said:
    """What the server answers; ``cut`` breaks the connection after half of it."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class ModelServer:
    """A running server; ``answer`` decides what is said, ``asked`` keeps what came in.

    ``/health`` is answered by ``healthy`` and not kept.
    """

    def __init__(self, answer: Callable[[Asked], Said], port: int = 0) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.healthy = True
        self.at_once = 0
        """The most requests that were there at the same time."""
        self._now = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._say(Said(b"{}", 200 if server.healthy else 503))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                with server._lock:
                    server._now += 1
                    server.at_once = max(server.at_once, server._now)
                    asked = Asked(
                        len(server.asked),
                        self.path,
                        {name.lower(): value for name, value in self.headers.items()},
                        body,
                    )
                    server.asked.append(asked)
                said = server.answer(asked)
                time.sleep(said.delay)
                with server._lock:
                    server._now -= 1
                self._say(said)

            def _say(self, said: Said) -> None:
                self.send_response(said.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(said.content)))
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                half = len(said.content) // 2
                self.wfile.write(said.content[:half] if said.cut else said.content)
                self.close_connection = said.cut

            def handle(self) -> None:
                with suppress(BrokenPipeError, ConnectionResetError):  # a client did not wait
                    super().handle()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serving(*said: Said | Callable[[Asked], Said]) -> Iterator[ModelServer]:
    """A server that says these one after the other, the last one for ever; or calls a function."""

    def answer(asked: Asked) -> Said:
        chosen = said[min(asked.number, len(said) - 1)]
        return chosen if isinstance(chosen, Said) else chosen(asked)

    server = ModelServer(answer)
    try:
        yield server
    finally:
        server.close()


def remotes_settings(name: RemoteName, *urls: str, **changes: Any) -> RemotesSettings:
    """The shipped settings with quick retries and these servers."""
    quick: dict[str, Any] = {
        "base_urls": urls,
        "tries": 3,
        "max_wait_seconds": 0.1,
        "requests_per_minute": 0.0,
        "prices": {MODEL: PriceSettings(input=1.0, output=10.0, image=0.01)},
        "budget_usd": 1000.0,
    }
    settings = SETTINGS.remote.named(name).model_copy(update=quick | changes)
    RemoteSettings.model_validate_json(settings.model_dump_json())
    return SETTINGS.remote.model_copy(update={name: settings})


def remotes(folder: Path, name: RemoteName, *urls: str, **changes: Any) -> Remotes:
    """Backends whose ledger and answers are in ``folder``."""
    settings = remotes_settings(name, *urls, **changes)
    return Remotes(settings, folder / "ledger.sqlite", folder / "answers.sqlite", "tests")


def picture(colour: str = "red", side: int = 32, kind: str = "PNG") -> bytes:
    """An image of one colour."""
    import io

    image = Image.new("RGB", (side, side), colour)
    if kind == "PNG":
        return images.to_png(image)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def reason(answer: object) -> str:
    """Why a remote backend has no answer; its failures are final."""
    assert isinstance(answer, Failure) and answer.final
    return answer.reason


REQUEST = Request(id="r", text="a sun, then a moon")
CASE = JudgeCase(before=picture("blue"), after=picture("red"), prompt="paint it red")
PLAN = {
    "reasoning": "a sun, then a moon",
    "execution_plan": [
        {
            "step_number": number,
            "step_name": name,
            "instruction": f"add a {name}",
            "prompt": f"a {name} over the sea",
            "auxiliary_text": None,
        }
        for number, name in enumerate(("sun", "moon"), 1)
    ],
}
CRITIQUE = {
    "reasoning": "no moon",
    "previous_step_success": False,
    "refine_prompt": "a round yellow moon",
}
SCORE = {
    "reasoning": "fine",
    "instruction": 8,
    "preservation": 6.5,
    "naturalness": 9,
    "artifacts": 7,
}


def gemini(
    answer: Any, finish: str = "STOP", *, tokens: tuple[int, int, int] = (100, 40, 10), **more: Any
) -> Said:
    """A ``generateContent`` answer; ``answer`` is the JSON text's value, or parts."""
    parts = (
        answer
        if isinstance(answer, list)
        else [{"text": "hm", "thought": True}, {"text": json.dumps(answer)}]
    )
    read, written, thought = tokens
    return Said(
        {
            "candidates": [
                {
                    "content": {"role": "model", "parts": parts},
                    "finishReason": finish,
                    "index": 0,
                }
            ],
            "usageMetadata": {
                "promptTokenCount": read,
                "candidatesTokenCount": written,
                "thoughtsTokenCount": thought,
                "totalTokenCount": read + written + thought,
            },
            "modelVersion": MODEL,
            "responseId": "r",
        },
        **more,
    )


def gemini_picture(data: bytes, mime_type: str = "image/png") -> Said:
    inline = {"mimeType": mime_type, "data": base64.b64encode(data).decode()}
    return gemini([{"inlineData": inline}])


def gemini_error(status: int, name: str, *details: Mapping[str, Any], **more: Any) -> Said:
    error = {"code": status, "message": "so it is", "status": name, "details": list(details)}
    return Said({"error": error}, status, **more)


def openai(answer: Any, finish: str = "stop", refusal: str | None = None, **more: Any) -> Said:
    """A chat completion."""
    message = {
        "role": "assistant",
        "content": None if answer is None else json.dumps(answer),
        "refusal": refusal,
    }
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
    return Said(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [choice],
            "usage": usage,
        },
        **more,
    )


def openai_picture(data: bytes, **more: Any) -> Said:
    """An answer of the Images API."""
    usage = {"input_tokens": 20, "output_tokens": 30, "total_tokens": 50}
    encoded = base64.b64encode(data).decode()
    return Said({"created": 1, "data": [{"b64_json": encoded}], "usage": usage}, **more)


def openai_error(status: int, code: str | None, **more: Any) -> Said:
    error = {"message": "so it is", "type": "some_error", "param": None, "code": code}
    return Said({"error": error}, status, **more)
