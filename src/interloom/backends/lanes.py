"""Ways to a backend: each is an API key at a server, with its own token bucket."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from interloom.errors import InterloomError

if TYPE_CHECKING:
    from interloom.settings.models import RemoteSettings


@dataclass(eq=False)
class Lane:
    """An API key at a server; without ``url`` it is the provider's own.

    ``interval`` seconds give one token, and ``slack`` seconds' worth of tokens are saved up.
    """

    url: str
    key: str = ""
    key_name: str = ""
    interval: float = 0.0
    slack: float = 0.0
    doubtful: bool = False
    """Whether the server has to say that it is well before the next call."""
    free_at: float = 0.0
    paused_until: float = 0.0

    def ready_at(self) -> float:
        """The time (``time.monotonic``) of the next token."""
        return max(self.free_at, self.paused_until)

    def reserve(self) -> float:
        """Take a token; gives the seconds until it may be used."""
        now = time.monotonic()
        start = max(self.ready_at(), now - self.slack)
        self.free_at = start + self.interval
        return max(0.0, start - now)

    def pause(self, seconds: float) -> None:
        """Leave this lane alone for a while."""
        self.paused_until = max(self.paused_until, time.monotonic() + seconds)


def lanes_of(name: str, settings: RemoteSettings, doubtful: bool) -> list[Lane]:
    """Every key at every server.

    Raises:
        InterloomError: API keys are asked for and none is set.
    """
    rate = settings.requests_per_minute
    interval = 60 / rate if rate else 0.0
    return [
        Lane(
            url.rstrip("/"),
            key,
            key_name,
            interval=interval,
            slack=max(0.0, 1 - interval) if rate else 0.0,
            doubtful=doubtful,
        )
        for url in settings.base_urls or ("",)
        for key_name, key in api_keys(name, settings) or [("", "")]
    ]


def api_keys(name: str, settings: RemoteSettings) -> list[tuple[str, str]]:
    """The API keys that are set, with the names of their variables, each key once.

    Raises:
        InterloomError: keys are asked for and none is set.
    """
    keys: dict[str, str] = {}
    for variable in settings.api_key_env:
        key = os.environ.get(variable, "").strip()
        if key:
            keys.setdefault(key, variable)
    if settings.api_key_env and not keys:
        raise InterloomError(
            f"remote.{name}.api_key_env: set {' or '.join(settings.api_key_env)} in the environment"
        )
    return [(variable, key) for key, variable in keys.items()]


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a ``Retry-After`` header asks for, as a number or as a date; 0 without one."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0
