"""Who grades, out of the ``grading`` section, and what that is going to cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from interloom import cast
from interloom.backends.ledger import LEDGER, Ledger
from interloom.backends.remote import Remotes
from interloom.benchmarks.editions import Edition, Grader, open_edition
from interloom.errors import InterloomError
from interloom.settings.evaluation import AskedSettings, GradingSettings
from interloom.settings.file import Settings
from interloom.settings.models import TeacherSettings

GUESSED_INPUT, GUESSED_OUTPUT = 2500, 400
"""Tokens of a judge call, pictures and thinking included, while none has been made."""


def open_grader(settings: Settings, remotes: Remotes, editions: Sequence[Edition] = ()) -> Grader:
    """The judge that the ``grading`` section names.

    Args:
        editions: what is going to be graded: the detector is loaded only where it is needed.

    Raises:
        InterloomError: it is the training's judge and that is not allowed, or cannot be reached.
    """
    options = settings.grading
    check_judges(options, settings.teacher)
    chat = None
    if options.backend != "pocket":
        chat = cast.chat(options.backend, options.model, options, remotes)
    detector = None
    if options.detector and any(edition.detectable for edition in editions):
        from interloom.benchmarks.detector import ObjectDetector

        detector = ObjectDetector(options.detector, options.colour_model)
    return Grader(options, chat, detector)


def is_training_judge(options: GradingSettings, teacher: TeacherSettings) -> bool:
    """Whether the judge of the benchmarks is the one that scored data and gave rewards."""
    return (options.backend, options.model) == (teacher.judge_backend, teacher.judge_model)


def check_judges(options: GradingSettings, teacher: TeacherSettings) -> None:
    """Refuse the training's judge unless it is allowed by name.

    Raises:
        InterloomError: naming both settings.
    """
    if is_training_judge(options, teacher) and not options.allow_training_judge:
        raise InterloomError(
            f"grading.model = {options.model} is the training's judge too (teacher.judge_model): "
            "choose another one, or set grading.allow_training_judge: true, and the report says so"
        )


@dataclass(frozen=True)
class Estimate:
    """What grading one benchmark is going to take at most: answers that are kept cost nothing."""

    benchmark: str
    systems: int
    calls: int
    usd: float
    minutes: float

    def line(self) -> str:
        """For the terminal."""
        return (
            f"{self.benchmark:<12} × {self.systems} systems: {self.calls:>7} judge calls, "
            f"{self.usd:>9.2f} US$, {self.minutes:>7.1f} min"
        )


def estimates(
    settings: Settings, root: Path, options: AskedSettings, systems: Sequence[str]
) -> list[Estimate]:
    """One estimate per benchmark; nothing is called.

    A call is taken to cost what the calls of this stage and model have cost on average so far, and
    while there are none, as much as ``GUESSED_INPUT`` and ``GUESSED_OUTPUT`` tokens do.
    """
    check_judges(settings.grading, settings.teacher)
    usd, minutes = _of_one_call(settings, root)
    found = []
    for edition in editions_of(options, settings):
        free = settings.grading.backend == "pocket" or (
            edition.detectable and bool(settings.grading.detector)
        )
        calls = 0 if free else edition.calls() * len(systems)
        found.append(Estimate(edition.name, len(systems), calls, calls * usd, calls * minutes))
    return found


def editions_of(options: AskedSettings, settings: Settings) -> Iterator[Edition]:
    """All benchmarks that a section names."""
    for name in options.benchmarks:
        yield open_edition(name, options, settings.seed, settings.grading.wise_protocol)


def _of_one_call(settings: Settings, root: Path) -> tuple[float, float]:
    """US dollars and minutes that a judge call takes."""
    options = settings.grading
    if options.backend == "pocket":
        return 0.0, 0.0
    remote = settings.remote.named(options.backend)
    if options.model not in remote.prices:
        raise InterloomError(f"remote.{options.backend}.prices: no price for {options.model}")
    price = remote.prices[options.model]
    tokens = GUESSED_INPUT * price.input + GUESSED_OUTPUT * price.output
    usd = tokens / 1e6
    if (root / LEDGER).exists():
        ledger = Ledger(root / LEDGER)
        known = [
            row
            for row in ledger.costs()
            if (row.backend, row.model) == (options.backend, options.model)
            and row.purpose == "evaluate"
        ]
        ledger.close()
        if known and known[0].calls > known[0].failures:
            usd = known[0].usd / (known[0].calls - known[0].failures)
    rate = (
        remote.requests_per_minute * max(1, len(remote.api_key_env)) * max(1, len(remote.base_urls))
    )
    return usd, 1 / rate if rate else 0.0


def summary(found: Sequence[Estimate]) -> list[str]:
    """All estimates and their sum, a line each."""
    total = Estimate(
        "altogether",
        max((one.systems for one in found), default=0),
        sum(one.calls for one in found),
        sum(one.usd for one in found),
        sum(one.minutes for one in found),
    )
    return [*(one.line() for one in found), total.line()]
