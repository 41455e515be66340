"""Calls to remote models: how many, what they cost, and how long the rate limits stretch them.

Tokens per call are the project's own where its ledger has calls of that model for that stage, else
the calibration's. Prices and limits are those of the section ``remote``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from interloom.backends.ledger import Cost
from interloom.errors import InterloomError
from interloom.planning.calibration import Calibration
from interloom.planning.volumes import Volumes
from interloom.settings.file import Settings

RemoteName = Literal["gemini", "openai", "http"]
What = Literal["words", "plans", "critiques", "scores", "pictures", "analyses", "repairs", "grades"]
REMOTE: tuple[RemoteName, ...] = ("gemini", "openai", "http")


@dataclass(frozen=True)
class PerCall:
    """Mean use of one call."""

    input: float
    output: float
    images: float = 0.0


Measured = Mapping[tuple[str, str], PerCall]
"""``(model, stage)`` → mean use, from the ledger."""
NOTHING_MEASURED: Measured = {}


def measured(costs: Iterable[Cost]) -> dict[tuple[str, str], PerCall]:
    """Mean use per call of each model in each stage that has called it.

    A stage's critiques and scores by one model are not told apart: their mean stands for both.
    """
    return {
        (cost.model, cost.purpose): PerCall(
            cost.input_tokens / cost.calls,
            cost.output_tokens / cost.calls,
            cost.images / cost.calls,
        )
        for cost in costs
        if cost.calls
    }


@dataclass(frozen=True)
class Calls:
    """Calls of one kind to one model."""

    stage: str
    what: What
    backend: RemoteName
    model: str
    count: float
    each: PerCall
    from_ledger: bool
    """Whether ``each`` was measured here."""
    usd: float
    hours: float
    """At least, under ``requests_per_minute`` and ``concurrency``."""


def calls_of(
    stage: str,
    what: What,
    count: float,
    settings: Settings,
    known: Calibration,
    seen: Measured,
    *,
    pictures: float = 0.0,
) -> list[Calls]:
    """The calls that a stage makes for some work; none if who does it is no remote backend.

    Args:
        pictures: that one call shows to the model.

    Raises:
        InterloomError: ``remote.*.prices`` has none for the model.
    """
    backend, model = _who(what, settings)
    if backend not in REMOTE or not count:
        return []
    each, from_ledger = seen.get((model, stage)), True
    if each is None:
        each, from_ledger = _supposed(what, pictures, known), False
    remote = settings.remote.named(backend)
    if model not in remote.prices:
        raise InterloomError(f"remote.{backend}.prices has none for {model}")
    price = remote.prices[model]
    usd = count * (
        (each.input * price.input + each.output * price.output) / 1e6 + each.images * price.image
    )
    lanes = max(1, len(remote.base_urls)) * max(1, len(remote.api_key_env))
    seconds = count * known.calls.seconds.value / remote.concurrency
    if remote.requests_per_minute:
        seconds = max(seconds, count * 60 / (remote.requests_per_minute * lanes))
    hours = seconds / 3600
    return [Calls(stage, what, backend, model, count, each, from_ledger, usd, hours)]


def _who(what: What, settings: Settings) -> tuple[str, str]:
    """Backend and model for a kind of work."""
    teacher, adaptive = settings.teacher, settings.adaptive_data
    match what:
        case "pictures":
            weak = settings.models.generator_weak
            return weak.backend, weak.model
        case "scores":
            return teacher.judge_backend, teacher.judge_model
        case "analyses":
            return adaptive.analyzer_backend, adaptive.analyzer_model
        case "repairs":
            mends = settings.models.generator_named(adaptive.generator)
            return mends.backend, mends.model
        case "grades":
            return settings.grading.backend, settings.grading.model
        case "words" | "plans" | "critiques":
            return teacher.backend, teacher.model


def _supposed(what: What, pictures: float, known: Calibration) -> PerCall:
    calls = known.calls
    seen = pictures * calls.image_tokens.value
    match what:
        case "words":
            return PerCall(calls.plan_input.value, calls.words_output.value)
        case "plans":
            return PerCall(calls.plan_input.value + seen, calls.plan_output.value)
        case "critiques" | "analyses":
            return PerCall(calls.critique_input.value + seen, calls.critique_output.value)
        case "scores" | "grades":
            return PerCall(calls.score_input.value + seen, calls.score_output.value)
        case "pictures" | "repairs":
            return PerCall(seen, calls.picture_output.value, images=1.0)


def data_calls(
    settings: Settings, known: Calibration, amounts: Volumes, seen: Measured
) -> list[Calls]:
    """All calls of the data stages: words for the banks, plans, critiques, pictures, scores."""
    found: list[Calls] = []
    if settings.prompts.edition == "taxonomy" and settings.prompts.expand:
        from interloom.construct import taxonomy

        banks = len(taxonomy.load().banks)
        found += calls_of("prompts", "words", banks, settings, known, seen)
    edited = known.data.edited_share.value
    work: tuple[tuple[What, float, float], ...] = (
        ("plans", amounts.requests, settings.prompts.picture_share),
        ("critiques", amounts.attempts, 2.0),
        ("pictures", amounts.weak, edited),
    )
    for what, count, pictures in work:
        found += calls_of("trajectories", what, count, settings, known, seen, pictures=pictures)
    found += calls_of(
        "critic-data", "scores", amounts.attempts, settings, known, seen, pictures=2.0
    )
    return found
