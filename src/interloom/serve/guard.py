"""Who may ask, how often, and how much at a time."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import time
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect

from interloom.errors import InterloomError
from interloom.serve.errors import ApiError, overloaded

log = logging.getLogger(__name__)
NOBODY = ""
"""The owner of everything where no keys are asked for."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
LARGE_BODY = 1 << 20


class KeyEntry(BaseModel):
    """One key of the keys file; the key itself is nowhere."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    requests_per_minute: Annotated[float, Field(ge=0)] = 0
    """0 sets no limit."""


class KeysFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    keys: list[KeyEntry] = []


class Keys:
    """The keys file, read again when it changes, and each key's token bucket.

    A bucket holds one minute's requests, and fills evenly.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_at: tuple[int, int] | None = None
        self._entries: dict[str, KeyEntry] = {}
        self._tokens: dict[str, tuple[float, float]] = {}  # name → tokens, at which time
        self._refresh()

    def owner(self, key: str | None, *, spend: bool) -> str:
        """Whose key this is, if it is one; ``spend`` takes a token of its bucket.

        Raises:
            ApiError: 401 for no key or a wrong one, 429 for one too many requests.
        """
        try:
            self._refresh()
        except InterloomError as error:
            log.error("the keys as they were go on: %s", error)
        entry = self._entries.get(_hash(key)) if key else None
        if entry is None:
            raise ApiError(
                401,
                "Incorrect API key." if key else "An API key is needed: Authorization: Bearer …",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if spend:
            self._take(entry)
        return entry.name

    def _take(self, entry: KeyEntry) -> None:
        most = entry.requests_per_minute
        if not most:
            return
        now = time.monotonic()
        tokens, then = self._tokens.get(entry.name, (max(1.0, most), now))
        tokens = min(max(1.0, most), tokens + (now - then) * most / 60)
        if tokens < 1:
            self._tokens[entry.name] = (tokens, now)
            wait = (1 - tokens) * 60 / most
            raise ApiError(
                429,
                f"The rate limit of this key is {most:g} requests per minute.",
                code="rate_limit_exceeded",
                headers={"Retry-After": f"{max(1, round(wait + 0.5))}"},
            )
        self._tokens[entry.name] = (tokens - 1, now)

    def _refresh(self) -> None:
        try:
            state = self._path.stat()
        except OSError as error:
            raise InterloomError(
                f"serving.keys: {self._path} cannot be read ({error.strerror}); "
                "`interloom serve-key NAME` makes it"
            ) from error
        if (state.st_mtime_ns, state.st_size) != self._read_at:
            self._entries = {entry.sha256: entry for entry in read_keys(self._path).keys}
            self._read_at = (state.st_mtime_ns, state.st_size)


def read_keys(path: Path) -> KeysFile:
    """The keys file.

    Raises:
        InterloomError: it is not one.
    """
    try:
        return KeysFile.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InterloomError(f"{path}: {where or 'file'}: {first['msg']}") from None


def add_key(path: Path, name: str, requests_per_minute: float) -> str:
    """Make a key, put its hash into the file, and give the key: it is shown this once.

    Raises:
        InterloomError: the name is taken or unfit.
    """
    present = read_keys(path).keys if path.exists() else []
    if any(entry.name == name for entry in present):
        raise InterloomError(f"{path} has a key called {name!r}: remove its entry first")
    key = f"il-{secrets.token_urlsafe(32)}"
    try:
        entry = KeyEntry(
            name=name, sha256=_hash(key), requests_per_minute=float(requests_per_minute)
        )
    except ValidationError as error:
        raise InterloomError(f"name {name!r}: {error.errors()[0]['msg']}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.touch(mode=0o600)
    part.write_text(json.dumps(KeysFile(keys=[*present, entry]).model_dump(), indent=1) + "\n")
    part.replace(path)
    return key


def _hash(key: str) -> str:
    # A plain hash suffices for keys of 256 random bits: there is no dictionary to try.
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


class Envelope:
    """ASGI middleware: host names, the size of bodies, headers of every answer.

    Args:
        hosts: names by which a page may call us; none allows all. Without keys, another site could
            point its own name at this machine and read our answers in a browser.
        large_bodies: how many bodies above ``LARGE_BODY`` may be here at a time, so that many
            uploads at once cannot fill the memory.
    """

    def __init__(
        self, app: Any, max_body: int, large_bodies: int, hosts: tuple[str, ...] = ()
    ) -> None:
        self.app, self.max_body, self.hosts = app, max_body, hosts
        self.large_bodies, self._large = large_bodies, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        large = _may_be_large(headers)
        refusal = self._refusal(headers, large)
        if refusal is not None:
            await _answer(refusal, send)
            return
        self._large += large
        try:
            await self._pass_on(scope, receive, send)
        finally:
            self._large -= large

    async def _pass_on(self, scope: Any, receive: Any, send: Any) -> None:
        started = False

        async def sent(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, self._limited(receive), _with_headers(sent))
        except ClientDisconnect:
            log.info("%s %s: the client left before its request was whole", *_named(scope))
        except Exception as error:
            # A mistake of ours. Its message may quote the request, which is not for the log.
            log.error("%s %s: %s", *_named(scope), type(error).__name__)
            log.debug("the mistake", exc_info=error)
            if started:
                raise ConnectionError("the answer was broken off") from None
            await _answer(ApiError(500, "The server made a mistake; its log says more."), send)

    def _refusal(self, headers: dict[bytes, bytes], large: bool) -> ApiError | None:
        host = headers.get(b"host", b"").decode("latin-1")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if self.hosts and name.strip("[]") not in self.hosts:
            return ApiError(403, "This server answers to its own name alone.", code="wrong_host")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > self.max_body:
            return too_large(self.max_body)
        if large and self._large >= self.large_bodies:
            return overloaded(1)
        return None

    def _limited(self, receive: Any) -> Any:
        got = 0

        async def limited() -> Any:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > self.max_body:
                raise too_large(self.max_body)
            return message

        return limited


def _named(scope: Any) -> tuple[str, str]:
    return scope["method"], scope["path"]


def _may_be_large(headers: dict[bytes, bytes]) -> bool:
    """Whether the body is large, or does not say how large it is."""
    length = headers.get(b"content-length", b"0")
    unknown = b"transfer-encoding" in headers
    return unknown or (length.isdigit() and int(length[:20]) > LARGE_BODY)


def too_large(limit: int) -> ApiError:
    """The body is larger than allowed."""
    return ApiError(413, f"The body is larger than {limit} bytes.", code="body_too_large")


def _with_headers(send: Any) -> Any:
    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message["headers"],
                (b"x-content-type-options", b"nosniff"),
                (b"referrer-policy", b"no-referrer"),
                (b"x-frame-options", b"DENY"),
            ]
        await send(message)

    return sent


async def _answer(error: ApiError, send: Any) -> None:
    body = json.dumps(error.body()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
