from __future__ import annotations

from collections.abc import Sequence

from interloom.records import Failure, Score
from interloom.roles import GenerationJob, JudgeCase
from interloom.train.refinement import Executed, Refinement, Refiner

BUSY = Failure(role="generator", reason="busy")


class Draws:
    """A generator that fails the first ``failures`` times it sees a prompt that starts with
    "hard"."""

    name = "draws"

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.batches: list[list[str]] = []

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        self.batches.append([job.prompt for job in jobs])
        tries = len(self.batches)
        return [
            BUSY
            if job.prompt.startswith("hard") and tries <= self.failures
            else job.prompt.encode()
            for job in jobs
        ]


class Counts:
    """A judge that scores by the length of the image; it cannot see the image ``b"hidden"``."""

    name = "counts"

    def score(self, cases: Sequence[JudgeCase]) -> list[Score | Failure]:
        return [
            Failure(role="judge", reason="unreadable")
            if case.after == b"hidden"
            else Score(semantic=len(case.after) % 10, quality=10)
            for case in cases
        ]


def refinement(refined: str, before: bytes | None = b"x") -> Refinement:
    return Refinement(before=before, prompt="p", refined=refined, seed=0)


def test_equal_refinements_are_executed_once_and_remembered():
    generator = Draws()
    refiner = Refiner(generator, Counts())
    first = refiner.execute([refinement("a"), refinement("bb"), refinement("a")])
    assert [r.score.semantic for r in first if isinstance(r, Executed)] == [1, 2, 1]
    assert generator.batches == [["a", "bb"]]
    refiner.execute([refinement("bb"), refinement("a", before=None)])
    assert generator.batches[1:] == [["a"]]
    assert (refiner.images_made, refiner.cache_hits) == (3, 2)


def test_failed_calls_are_repeated_alone_and_stay_failures_in_the_end():
    refiner = Refiner(Draws(failures=1), Counts(), retries=1)
    assert all(
        isinstance(r, Executed) for r in refiner.execute([refinement("hard"), refinement("a")])
    )
    assert refiner.generator.batches == [["hard", "a"], ["hard"]]  # type: ignore[attr-defined]
    hopeless = Refiner(Draws(failures=9), Counts(), retries=2)
    assert hopeless.execute([refinement("hard"), refinement("a")])[0] == BUSY


def test_a_failure_is_not_remembered():
    refiner = Refiner(Draws(failures=1), Counts(), retries=0)
    assert refiner.execute([refinement("hard")]) == [BUSY]
    assert isinstance(refiner.execute([refinement("hard")])[0], Executed)


def test_a_judge_failure_is_a_failure():
    result = Refiner(Draws(), Counts(), retries=1).execute([refinement("hidden"), refinement("a")])
    assert isinstance(result[0], Failure) and result[0].role == "judge"
    assert isinstance(result[1], Executed)


def test_the_cache_is_bounded():
    refiner = Refiner(Draws(), Counts(), cache_size=2)
    refiner.execute([refinement(text) for text in ("a", "b", "c")])
    refiner.execute([refinement("c"), refinement("a")])
    assert refiner.cache_hits == 1


def test_what_was_begun_in_the_background_is_waited_for_and_executed_once():
    generator = Draws(failures=1)
    refiner = Refiner(generator, Counts(), retries=0)
    refiner.begin([refinement("a"), refinement("hard")])
    refiner.begin([refinement("a")])
    results = refiner.execute([refinement("hard"), refinement("bb"), refinement("a")])
    assert [isinstance(result, Executed) for result in results] == [False, True, True]
    assert generator.batches == [["a", "hard"], ["bb"]]
    # A failure is not remembered, also not in the background.
    refiner.begin([refinement("hard")])
    assert isinstance(refiner.execute([refinement("hard")])[0], Executed)
