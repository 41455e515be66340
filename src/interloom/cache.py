"""Model calls kept on disk by their content, so that a killed run loses only the calls in flight.

One SQLite file holds every answer under the hash of role, model and everything the call saw.
Failures are not kept: they are tried again.

Local models answer in batches, and the batch is in the answer's last digits: ``Cached…`` keep and
find whole batches. Remote answers are single and cost money: ``backends.remote`` keeps each as it
arrives.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from interloom.databases import told_if_damaged
from interloom.records import Critique, Failure, Plan, Record, Request, Score
from interloom.roles import (
    Critic,
    CritiqueCase,
    GenerationJob,
    Generator,
    Judge,
    JudgeCase,
    Planner,
    Teacher,
)

CACHE = ".interloom/cache"
"""Where a project keeps remote answers, a folder for each stage; they outlive changed params."""
ASKED_AGAIN = "the answers that it keeps are then asked for, and paid, again"
Answer = TypeVar("Answer")
Item = TypeVar("Item", bound=Record)


def call_key(role: str, model: str, item: BaseModel) -> bytes:
    """sha256 over role, model and the item; images count by their bytes."""
    hasher = hashlib.sha256(f"{role}\0{model}\0".encode())
    for name in type(item).model_fields:
        value = getattr(item, name)
        hasher.update(f"\0{name}\0".encode())
        for part in value if isinstance(value, tuple) else (value,):
            data = part if isinstance(part, bytes) else json.dumps(part).encode()
            hasher.update(f"{type(part).__name__} {len(data)} ".encode())
            hasher.update(data)
    return hasher.digest()


class CallCache:
    """Answers by key. ``calls`` and ``hits`` count what was asked and what was known.

    Args:
        shared: whether processes on other machines use the file at the same time.

    Raises:
        InterloomError: the file is damaged.
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Remote answers come in on another thread than the one that opens the file.
        self._db = sqlite3.connect(path, timeout=60, check_same_thread=False)
        # A power cut may lose the last batches, never the file; a killed process loses nothing.
        with told_if_damaged(path, ASKED_AGAIN):
            self._db.execute(f"PRAGMA journal_mode={'TRUNCATE' if shared else 'WAL'}")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("CREATE TABLE IF NOT EXISTS calls (key BLOB PRIMARY KEY, answer BLOB)")
        self.calls = 0
        self.hits = 0

    def close(self) -> None:
        self._db.close()

    def get(self, key: bytes) -> bytes | None:
        """The answer, if it is known."""
        found = self._db.execute("SELECT answer FROM calls WHERE key = ?", (key,)).fetchone()
        self.calls += 1
        self.hits += found is not None
        return found and found[0]

    def put(self, key: bytes, answer: bytes) -> None:
        """Keep one answer; from now on it survives a kill."""
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO calls VALUES (?, ?)", (key, answer))

    def through(
        self,
        keys: Sequence[bytes],
        ask: Callable[[list[int]], list[Answer | Failure]],
        encode: Callable[[Answer], bytes],
        decode: Callable[[bytes], Answer],
    ) -> list[Answer | Failure]:
        """Known answers from disk, the rest from ``ask`` (given their places) in one batch.

        A batch is stored in one transaction. So a rerun meets a batch that is known whole or not
        at all, and the model sees the same batches, with the same rounding, as in the first run.
        """
        answers: dict[int, Answer | Failure] = {}
        for place, key in enumerate(keys):
            known = self.get(key)
            if known is not None:
                answers[place] = decode(known)
        missing = [place for place in range(len(keys)) if place not in answers]
        if missing:
            new = dict(zip(missing, ask(missing), strict=True))
            answers |= new
            with self._db:
                self._db.executemany(
                    "INSERT OR REPLACE INTO calls VALUES (?, ?)",
                    [
                        (keys[place], encode(answer))
                        for place, answer in new.items()
                        if not isinstance(answer, Failure)
                    ],
                )
        return [answers[place] for place in range(len(keys))]


def kept_answers(root: Path) -> tuple[int, int]:
    """How many remote answers a project keeps, and their bytes on disk."""
    count = size = 0
    for path in (root / CACHE).glob("*/answers.sqlite"):
        # To look must not hinder those that write.
        with (
            told_if_damaged(path, ASKED_AGAIN),
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as answers,
        ):
            count += answers.execute("SELECT COUNT(*) FROM calls").fetchone()[0]
        size += path.stat().st_size
    return count, size


def _to_json(answer: BaseModel) -> bytes:
    return answer.model_dump_json().encode()


def _same(data: bytes) -> bytes:
    return data


class CachedGenerator:
    """A generator behind a cache; ``identity`` tells models and their settings apart."""

    def __init__(self, inner: Generator, cache: CallCache, identity: str = "") -> None:
        self.name = inner.name
        self._inner, self._cache, self._identity = inner, cache, f"{inner.name} {identity}"

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        keys = [call_key("generator", self._identity, job) for job in jobs]
        return self._cache.through(
            keys, lambda places: self._inner.generate([jobs[i] for i in places]), _same, _same
        )


class CachedPlanner:
    """A planner behind a cache."""

    def __init__(self, inner: Planner, cache: CallCache, identity: str = "") -> None:
        self.name = inner.name
        self._inner, self._cache, self._identity = inner, cache, f"{inner.name} {identity}"

    def plan(self, requests: Sequence[Request]) -> list[Plan | Failure]:
        keys = [call_key("planner", self._identity, request) for request in requests]
        return self._cache.through(
            keys,
            lambda places: self._inner.plan([requests[i] for i in places]),
            _to_json,
            Plan.model_validate_json,
        )


class CachedTeacher:
    """A planner that is a critic too, behind a cache."""

    def __init__(self, inner: Teacher, cache: CallCache, identity: str = "") -> None:
        self.name = inner.name
        self.plan = CachedPlanner(inner, cache, identity).plan
        self.critique = CachedCritic(inner, cache, identity).critique


class CachedCritic:
    """A critic behind a cache."""

    def __init__(self, inner: Critic, cache: CallCache, identity: str = "") -> None:
        self.name = inner.name
        self._inner, self._cache, self._identity = inner, cache, f"{inner.name} {identity}"

    def critique(self, cases: Sequence[CritiqueCase]) -> list[Critique | Failure]:
        keys = [call_key("critic", self._identity, case) for case in cases]
        return self._cache.through(
            keys,
            lambda places: self._inner.critique([cases[i] for i in places]),
            _to_json,
            Critique.model_validate_json,
        )


class CachedJudge:
    """A judge behind a cache."""

    def __init__(self, inner: Judge, cache: CallCache, identity: str = "") -> None:
        self.name = inner.name
        self._inner, self._cache, self._identity = inner, cache, f"{inner.name} {identity}"

    def score(self, cases: Sequence[JudgeCase]) -> list[Score | Failure]:
        keys = [call_key("judge", self._identity, case) for case in cases]
        return self._cache.through(
            keys,
            lambda places: self._inner.score([cases[i] for i in places]),
            _to_json,
            Score.model_validate_json,
        )
