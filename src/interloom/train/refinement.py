"""Executing refined prompts: the frozen generator draws, the judge scores, one batch per call.

Used by the reward (every rollout), by checkpoint selection and by the preflight. Equal jobs are
executed once: rollouts of one group often agree, and groups come back in later epochs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from interloom.images import digest
from interloom.loop import with_retries
from interloom.records import Failure, Score
from interloom.roles import GenerationJob, Generator, Judge, JudgeCase

Key = tuple[str, str, str, int]


@dataclass(frozen=True, slots=True)
class Refinement:
    """One refined prompt to execute on ``before`` (none: text-to-image), judged by ``prompt``."""

    before: bytes | None
    prompt: str
    refined: str
    seed: int

    @property
    def key(self) -> Key:
        before = digest(self.before) if self.before is not None else ""
        return before, self.prompt, self.refined, self.seed


@dataclass(frozen=True, slots=True)
class Executed:
    """The image that a refined prompt gave, and its score."""

    image: bytes
    score: Score


class Refiner:
    """Generator and judge behind one batched, cached call.

    Args:
        retries: how often the failed calls of a batch are repeated before they count as failed.
        cache_size: how many executed refinements are remembered.
    """

    def __init__(
        self, generator: Generator, judge: Judge, *, retries: int = 2, cache_size: int = 4096
    ) -> None:
        self.generator = generator
        self.judge = judge
        self.retries = retries
        self.cache_size = cache_size
        self.images_made = 0
        self.cache_hits = 0
        self._pool = ThreadPoolExecutor(1, "refiner")
        self._begun: dict[Key, tuple[Future[list[Executed | Failure]], int]] = {}
        self._cache: OrderedDict[Key, Executed] = OrderedDict()

    def begin(self, refinements: Sequence[Refinement]) -> None:
        """Start to execute, in the background, what is not known yet; ``execute`` waits for it."""
        new = {
            r.key: r for r in refinements if r.key not in self._cache and r.key not in self._begun
        }
        if new:
            future = self._pool.submit(self._execute, list(new.values()))
            self._begun |= {key: (future, place) for place, key in enumerate(new)}

    def execute(self, refinements: Sequence[Refinement]) -> list[Executed | Failure]:
        """Images and scores in order. A failure is never remembered: the next call tries again."""
        keys = [refinement.key for refinement in refinements]
        known: dict[Key, Executed | Failure] = {}
        for key in keys:
            if key in self._begun:
                future, place = self._begun.pop(key)
                known[key] = future.result()[place]
        new = {
            key: refinement
            for key, refinement in zip(keys, refinements, strict=True)
            if key not in self._cache and key not in known
        }
        self.cache_hits += len(refinements) - len(new) - len(known)
        known |= dict(zip(new, self._execute(list(new.values())), strict=True))
        results = [known[key] if key in known else self._cache[key] for key in keys]
        self._cache.update((k, done) for k, done in known.items() if isinstance(done, Executed))
        while len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)
        return results

    def _execute(self, refinements: Sequence[Refinement]) -> list[Executed | Failure]:
        jobs = [GenerationJob(prompt=r.refined, seed=r.seed, source=r.before) for r in refinements]
        drawn = with_retries(self.generator.generate, jobs, self.retries)
        self.images_made += len(jobs)
        results: list[Executed | Failure] = []
        cases, places = [], []
        for place, (image, refinement) in enumerate(zip(drawn, refinements, strict=True)):
            if isinstance(image, Failure):
                results.append(image)
                continue
            results.append(Failure(role="judge", reason="not judged"))
            cases.append(JudgeCase(before=refinement.before, after=image, prompt=refinement.prompt))
            places.append(place)
        scores = with_retries(self.judge.score, cases, self.retries)
        for place, case, score in zip(places, cases, scores, strict=True):
            results[place] = score if isinstance(score, Failure) else Executed(case.after, score)
        return results
