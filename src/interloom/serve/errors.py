"""Refusals in the error format of OpenAI's API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ErrorDetail(BaseModel):
    """What is wrong; ``param`` is the field that it is about."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class ApiError(Exception):
    """A refusal with an HTTP status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The answer's JSON."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        detail = ErrorDetail(
            # Field names come from the client, and may be no valid Unicode.
            message=_clean(str(self)),
            type=TYPES.get(self.status, kind),
            param=None if self.param is None else _clean(self.param),
            code=self.code,
        )
        return ErrorBody(error=detail).model_dump()


def overloaded(retry_after: float) -> ApiError:
    """The queue is full."""
    return ApiError(
        429,
        "The server is overloaded: too many requests wait already.",
        code="server_overloaded",
        headers={"Retry-After": f"{max(1, round(retry_after))}"},
    )


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
