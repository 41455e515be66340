"""The critic's reward as TRL calls it: refined prompts executed and judged, one batch a step.

Formulas: ``rewards.py``. Where the truth is "success" no image is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from interloom import ranks
from interloom.records import Failure, Score
from interloom.seeding import derive_seed
from interloom.settings.training import GrpoSettings
from interloom.train.data import Row
from interloom.train.measure import mean, repaired
from interloom.train.refinement import Executed, Refinement, Refiner
from interloom.train.rewards import (
    After,
    Rewards,
    Weights,
    confusion,
    critic_rewards,
    read_answer,
    zero_variance_share,
)
from interloom.train.watch import Metrics

LogMetric = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Case:
    """One recorded iteration, as the reward needs it. ``seed`` is the generator's, fixed per
    case."""

    before: bytes | None
    after: bytes
    prompt: str
    used_prompt: str
    success: bool
    score: Score
    seed: int


class Rollout(NamedTuple):
    """One rewarded completion."""

    completion: str
    case: Case
    after: After
    total: float | None


def case_from(row: Row, seed: int) -> Case:
    """A row of critic data as a case."""
    return Case(
        before=row["before"],
        after=row["after"],
        prompt=row["prompt"],
        used_prompt=row["used_prompt"],
        success=row["success"],
        score=Score(semantic=row["semantic"], quality=row["quality"]),
        seed=derive_seed(seed, "refinement", row["id"]),
    )


class CriticReward:
    """The reward of a whole batch of completions, as TRL calls it.

    Completions of one prompt stand together (``group_size`` of them). Parts, failures, the
    zero-variance share and the seconds spent waiting for generator and judge go to the trainer's
    ``log_metric``.
    """

    def __init__(self, refiner: Refiner, settings: GrpoSettings) -> None:
        self.refiner = refiner
        self.settings = settings
        self.weights = Weights(
            format=settings.format_weight, alpha=settings.alpha, semantic=settings.semantic_share
        )
        self.last: list[Rollout] = []
        """The rollouts of the last step, as they were rewarded."""
        self._ended: float | None = None

    def _refinements(
        self, completions: Sequence[str], cases: Sequence[Case]
    ) -> tuple[list[int], list[Refinement]]:
        """What has to be executed, and for which places of the batch."""
        answers = [read_answer(completion) for completion in completions]
        wanted = [i for i, case in enumerate(cases) if not case.success and answers[i] is not None]
        refinements = []
        for i in wanted:
            case, answer = cases[i], answers[i]
            assert answer is not None
            # An empty refined prompt means: the same again.
            refined = answer.refine_prompt.strip() or case.used_prompt
            refinements.append(Refinement(case.before, case.prompt, refined, case.seed))
        return wanted, refinements

    def begin(self, completions: Sequence[str], cases: Sequence[Case]) -> None:
        """Generator and judge start on a part of the batch while the policy still writes."""
        self.refiner.begin(self._refinements(completions, cases)[1])

    def execute(self, completions: Sequence[str], cases: Sequence[Case]) -> list[After]:
        """Scores of the images that the refined prompts give, in one batch."""
        wanted, refinements = self._refinements(completions, cases)
        after: list[After] = ["no image" if case.success else "unreadable" for case in cases]
        for i, result in zip(wanted, self.refiner.execute(refinements), strict=True):
            after[i] = result.score if isinstance(result, Executed) else result
        return after

    def compose(
        self, completions: Sequence[str], cases: Sequence[Case], after: Sequence[After]
    ) -> Rewards:
        """Parts and totals by the settings' formula and weights."""
        return critic_rewards(
            completions,
            [case.success for case in cases],
            [case.score for case in cases],
            after,
            formula=self.settings.formula,
            weights=self.weights,
        )

    def __call__(
        self, completions: Sequence[str], cases: Sequence[Case], log_metric: LogMetric | None = None
    ) -> list[float | None]:
        """One total per completion, ``None`` where a generator or judge call failed for good."""
        started = time.monotonic()
        made = self.refiner.images_made
        after = self.execute(completions, cases)
        rewards = self.compose(completions, cases, after)
        self.last = [*map(Rollout, completions, cases, after, rewards.total)]
        if log_metric is not None:
            waited = time.monotonic() - started
            log_metric("reward/wait_seconds", waited)
            if self._ended is not None:
                log_metric("reward/wait_share", waited / (time.monotonic() - self._ended))
            self._ended = time.monotonic()
            log_metric("reward/images", float(self.refiner.images_made - made))
            for name, value in reward_metrics(
                completions, cases, after, rewards, self.settings.group_size
            ).items():
                log_metric(name, value)
        return rewards.total


def reward_metrics(
    completions: Sequence[str],
    cases: Sequence[Case],
    after: Sequence[After],
    rewards: Rewards,
    group_size: int,
) -> Metrics:
    """What a batch of rewards looks like: means of the parts, failures, judgments, ties."""
    failed = sum(isinstance(result, Failure) for result in after)
    figures: Metrics = {
        "reward/format": mean(rewards.format),
        "reward/accuracy": mean(rewards.accuracy),
        # The trainer averages over processes; this makes it their sum.
        "reward/failed_calls": float(failed * ranks.world()),
        "reward/zero_variance": zero_variance_share(rewards.total, group_size),
    }
    faulty = [i for i, case in enumerate(cases) if not case.success]
    for name, values in (("semantic", rewards.semantic), ("quality", rewards.quality)):
        known = [value for i in faulty if (value := values[i]) is not None]
        if known:
            figures[f"reward/{name}_step"] = mean(known)
    if faulty:
        figures["reward/repaired"] = mean([repaired(after[i]) for i in faulty])
    for name, count in confusion(completions, [case.success for case in cases]).items():
        figures[f"judgment/{name}"] = count / len(cases)
    return figures


def fix_hits(answers: Sequence[str], cases: Sequence[Case], after: Sequence[After]) -> list[float]:
    """Per faulty case 1 if it was judged false and repaired, else 0; failed calls are left out."""
    hits: list[float] = []
    for answer, case, result in zip(answers, cases, after, strict=True):
        if case.success or isinstance(result, Failure):
            continue
        said = read_answer(answer)
        hits.append(float(said is not None and not said.success and repaired(result) > 0))
    return hits
