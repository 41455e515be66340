"""Gemini through google-genai: a chat model in all roles, and its image models.

The SDK's own retries are off: ``remote`` repeats, and counts what it repeats.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from google import genai
from google.genai import errors, types
from pydantic import ValidationError

from interloom import images
from interloom.backends.calls import Refused, Reply, Unanswered, Unusable
from interloom.backends.lanes import Lane
from interloom.backends.ledger import Usage
from interloom.backends.remote import Remote
from interloom.backends.remote_roles import (
    ChatSettings,
    Question,
    RemoteChat,
    RemoteGenerator,
    pictures_of,
)
from interloom.errors import InterloomError
from interloom.roles import GenerationJob

if TYPE_CHECKING:
    from interloom.settings.models import GeneratorSettings

REFUSALS = frozenset(
    [
        *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"),
        *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
    ]
)
"""Finish reasons with which the model declines; asking again would only cost."""
ROLES = {"user": "user", "assistant": "model"}


class _Access:
    """The SDK's client of each lane.

    Raises:
        InterloomError: there are no keys.
    """

    def __init__(self, remote: Remote) -> None:
        self.remote = remote
        if not remote.settings.api_key_env:
            raise InterloomError(f"{remote.setting('api_key_env')}: Gemini takes no calls without")
        self.clients = {
            lane: genai.Client(
                api_key=lane.key,
                vertexai=False,
                http_options=types.HttpOptions(
                    base_url=lane.url or None, httpx_async_client=remote.http
                ),
            )
            for lane in remote.lanes
        }

    async def call(
        self, lane: Lane, model: str, contents: Any, config: types.GenerateContentConfig
    ) -> types.GenerateContentResponse:
        """One ``generateContent``, with its errors as ``Unanswered`` or ``InterloomError``."""
        try:
            with warnings.catch_warnings():
                # About values that are newer than the SDK; they are handled as unknown here.
                warnings.simplefilter("ignore", UserWarning)
                return await self.clients[lane].aio.models.generate_content(
                    model=model, contents=contents, config=config
                )
        except errors.UnknownApiResponseError as error:
            raise Unanswered(f"truncated or malformed JSON ({error})", again=True) from error
        except errors.APIError as error:
            details = _details(error)
            status, said = error.code, f"{error.status}: {error.message}"
            if any(detail.get("reason") == "API_KEY_INVALID" for detail in details):
                status = 401  # Gemini says 400
            delays = [detail["retryDelay"] for detail in details if "retryDelay" in detail]
            pause = max((float(delay.removesuffix("s")) for delay in delays), default=0.0)
            headers = error.response.headers if error.response is not None else {}
            raise self.remote.problem(lane, status, said, headers, pause) from error  # type: ignore[arg-type]


def _details(error: errors.APIError) -> list[dict[str, Any]]:
    """The ``google.rpc`` details of an error body."""
    body = error.details.get("error") if isinstance(error.details, dict) else None
    return body.get("details", []) if isinstance(body, dict) else []


def _usage(response: types.GenerateContentResponse, pictures: int = 0) -> Usage:
    counted = response.usage_metadata
    if counted is None:
        return Usage(images=pictures)
    return Usage(
        input_tokens=counted.prompt_token_count or 0,
        output_tokens=(counted.candidates_token_count or 0) + (counted.thoughts_token_count or 0),
        images=pictures,
    )


def _parts(response: types.GenerateContentResponse) -> tuple[list[types.Part], str]:
    """The parts of the answer without the thoughts, and why it ended.

    Raises:
        Refused: the question or the answer was blocked.
        Unusable: no candidate, or one without any part.
    """
    usage = _usage(response)
    feedback = response.prompt_feedback
    if feedback is not None and feedback.block_reason is not None:
        said = feedback.block_reason_message or ""
        raise Refused(f"the question was blocked: {feedback.block_reason.value} {said}", usage)
    if not response.candidates:
        raise Unusable("an answer without candidates", usage)
    candidate = response.candidates[0]
    reason = candidate.finish_reason.value if candidate.finish_reason else ""
    if reason in REFUSALS:
        raise Refused(f"{reason} {candidate.finish_message or ''}".strip(), usage)
    parts = (candidate.content and candidate.content.parts) or []
    parts = [part for part in parts if not part.thought]
    if not parts and reason != "MAX_TOKENS":
        raise Unusable(f"an empty answer ({reason or 'no reason given'})", usage)
    return parts, reason


def _picture(data: bytes) -> types.Part:
    return types.Part.from_bytes(data=data, mime_type=images.mime_type(data))


class GeminiChat(RemoteChat):
    """A Gemini model such as gemini-2.5-pro, held to response schemas."""

    def __init__(self, remote: Remote, model: str, settings: ChatSettings) -> None:
        super().__init__(remote, model, settings)
        self._access = _Access(remote)

    async def send(self, lane: Lane, question: Question, unusable: int) -> Reply:
        pictures = iter(question.images)
        contents, system = [], None
        for message in question.messages:
            parts = [
                types.Part.from_text(text=part["text"])
                if part["type"] == "text"
                else _picture(next(pictures))
                for part in message["content"]
            ]
            if message["role"] == "system":
                system = types.Content(parts=parts)
            else:
                contents.append(types.Content(role=ROLES[message["role"]], parts=parts))
        config = types.GenerateContentConfig(
            system_instruction=system,
            temperature=self.temperature_of(question, unusable),
            seed=unusable,
            max_output_tokens=question.max_output_tokens,
            response_mime_type="application/json",
            response_json_schema=question.answer_schema,
        )
        response = await self._access.call(lane, self.model, contents, config)
        parts, reason = _parts(response)
        if reason == "MAX_TOKENS":
            raise Unusable(self.cut_off(), _usage(response))
        return Reply("".join(part.text or "" for part in parts).encode(), _usage(response))


class GeminiImages(RemoteGenerator):
    """A Gemini image model; ``call`` of its settings goes to ``ImageConfig``.

    Raises:
        InterloomError: there is no such setting.
    """

    decided_by = frozenset(["model", "call"])

    def __init__(self, remote: Remote, settings: GeneratorSettings) -> None:
        super().__init__(remote, settings)
        self._access = _Access(remote)
        try:
            self._image_config = types.ImageConfig.model_validate(settings.call)
        except ValidationError as error:
            wrong = "; ".join(f"{p['loc'][0]}: {p['msg']}" for p in error.errors())
            raise InterloomError(f"call of the generator {self.model}: {wrong}") from None

    async def send(self, lane: Lane, job: GenerationJob, unusable: int) -> Reply:
        parts = [*map(_picture, pictures_of(job)), types.Part.from_text(text=job.prompt)]
        config = types.GenerateContentConfig(
            seed=(job.seed + unusable) % 2**31,
            response_modalities=["IMAGE"],
            image_config=self._image_config,
        )
        response = await self._access.call(
            lane, self.model, [types.Content(role="user", parts=parts)], config
        )
        parts, _ = _parts(response)
        blobs = [part.inline_data for part in parts if part.inline_data is not None]
        if not blobs or not blobs[0].data:
            said = " ".join(part.text or "" for part in parts)
            raise Unusable(f"text and no picture: {said[:100]!r}", _usage(response))
        usage = _usage(response, pictures=1)
        kind = blobs[0].mime_type or ""
        if not kind.startswith("image/"):
            raise Unusable(f"{kind or 'something unnamed'} instead of a picture", usage)
        return Reply(blobs[0].data, usage)
