"""Any server that speaks OpenAI's API: chat with images, and the Images API.

Spoken with plain HTTP: what is needed of the API is three addresses, and vLLM and its like differ
from OpenAI in details that a client library hides or refuses.
"""

from __future__ import annotations

from typing import Any

import httpx
from pydantic import Base64Bytes, BaseModel

from interloom import images
from interloom.backends.calls import Refused, Reply, Unusable
from interloom.backends.lanes import Lane
from interloom.backends.ledger import Usage
from interloom.backends.remote import Remote
from interloom.backends.remote_roles import (
    Question,
    RemoteChat,
    RemoteGenerator,
    pictures_of,
)
from interloom.errors import InterloomError
from interloom.roles import GenerationJob

OWN_URL = "https://api.openai.com/v1"
REFUSALS = ("moderation_blocked", "content_policy_violation", "content_filter")
"""Codes of a 400 with which the server declines the content."""


class _Counted(BaseModel):
    """Tokens as chat completions count them, or as the Images API does."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Answer(BaseModel):
    """What is read of an answer, whatever else a server may send."""

    usage: _Counted | None = None

    def used(self, pictures: int = 0) -> Usage:
        counted = self.usage or _Counted()
        return Usage(
            input_tokens=counted.prompt_tokens + counted.input_tokens,
            output_tokens=counted.completion_tokens + counted.output_tokens,
            images=pictures,
        )


class _Completion(_Answer):
    choices: list[_Choice] = []


class _Picture(BaseModel):
    b64_json: Base64Bytes | None = None


class _Pictures(_Answer):
    data: list[_Picture] = []


async def post(remote: Remote, lane: Lane, address: str, **body: Any) -> bytes:
    """POST to an address of the API; ``body`` is httpx's ``json`` or ``data`` and ``files``.

    Raises:
        Unanswered: or one of its kinds, or ``InterloomError``, by the status.
    """
    headers = {"Authorization": f"Bearer {lane.key}"} if lane.key else {}
    response = await remote.http.post(address, headers=headers, **body)
    if response.status_code != 200:
        code, said = _error(response)
        if code in REFUSALS:
            raise Refused(f"{code}: {said}")
        if code == "insufficient_quota":
            raise InterloomError(f"{address}: the account is out of credit ({said})")
        raise remote.problem(lane, response.status_code, said, response.headers)
    return response.content


def _error(response: httpx.Response) -> tuple[str, str]:
    """Code and message of an error body; proxies send anything."""
    try:
        error = response.json()["error"]
        return str(error.get("code")), str(error["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", response.text


class OpenAIChat(RemoteChat):
    """A chat model that sees images, held to a JSON schema (GPT, or Qwen3-VL on vLLM)."""

    async def send(self, lane: Lane, question: Question, unusable: int) -> Reply:
        pictures = iter(question.images)
        messages = [
            message
            | {
                "content": [
                    part
                    if part["type"] == "text"
                    else {
                        "type": "image_url",
                        "image_url": {"url": images.data_url(next(pictures))},
                    }
                    for part in message["content"]
                ]
            }
            for message in question.messages
        ]
        schema = {"name": "answer", "schema": question.answer_schema, "strict": True}
        content = await post(
            self.remote,
            lane,
            f"{lane.url or OWN_URL}/chat/completions",
            json={
                "model": self.model,
                "messages": messages,
                "temperature": self.temperature_of(question, unusable),
                "seed": unusable,
                "max_completion_tokens": question.max_output_tokens,
                "response_format": {"type": "json_schema", "json_schema": schema},
            },
        )
        answer = _Completion.model_validate_json(content)
        if not answer.choices:
            raise Unusable("an answer without choices", answer.used())
        message, reason = answer.choices[0].message, answer.choices[0].finish_reason
        if message.refusal or reason == "content_filter":
            raise Refused(message.refusal or "content_filter", answer.used())
        if reason == "length":
            raise Unusable(self.cut_off(), answer.used())
        if not message.content:
            raise Unusable(f"an empty answer ({reason or 'no reason given'})", answer.used())
        return Reply(message.content.encode(), answer.used())


class OpenAIImages(RemoteGenerator):
    """An image model of the Images API; ``call`` of its settings goes into the request."""

    decided_by = frozenset(["model", "image_size", "call"])

    def address(self, lane: Lane) -> str:
        """Where the API begins."""
        return lane.url or OWN_URL

    def extras(self, seed: int) -> dict[str, Any]:
        """What a request holds beside model, prompt and size; OpenAI's own takes no seed."""
        return dict(self.settings.call)

    async def send(self, lane: Lane, job: GenerationJob, unusable: int) -> Reply:
        side = self.settings.image_size
        fields = {
            "model": self.model,
            "prompt": job.prompt,
            "n": 1,
            "size": f"{side}x{side}",
            **self.extras(job.seed + unusable),
        }
        pictures = pictures_of(job)
        if pictures:
            # One picture is `image`, several are `image[]`: the API's own way.
            name = "image" if len(pictures) == 1 else "image[]"
            files = [(name, (f"{i}", p, images.mime_type(p))) for i, p in enumerate(pictures)]
            address = f"{self.address(lane)}/images/edits"
            content = await post(self.remote, lane, address, data=fields, files=files)
        else:
            address = f"{self.address(lane)}/images/generations"
            content = await post(self.remote, lane, address, json=fields)
        answer = _Pictures.model_validate_json(content)
        if not answer.data:
            raise Unusable("an answer without pictures", answer.used())
        if answer.data[0].b64_json is None:
            raise InterloomError(
                f"{address}: a link instead of a picture; "
                f"set `response_format: b64_json` in the `call` of the generator {self.model}"
            )
        return Reply(answer.data[0].b64_json, answer.used(pictures=1))
