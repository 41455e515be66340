from __future__ import annotations

from collections.abc import Callable

import pytest
from executor import Executor

from interloom.backends.pocket import PocketJudge
from interloom.dialogue import format_critique
from interloom.records import Critique
from interloom.runner import StageRun
from interloom.settings.file import Settings
from interloom.settings.training import GrpoSettings
from interloom.train.critic_reward import Case, CriticReward, case_from
from interloom.train.data import load_rows, plain_rows
from interloom.train.refinement import Refiner

Open = Callable[[str], StageRun]
Make = Callable[..., Settings]


def options(settings: Make) -> GrpoSettings:
    return settings("grpo_critic", batch_size=2, group_size=2).grpo_critic


@pytest.fixture
def cases(open_stage: Open) -> list[Case]:
    stage = open_stage("grpo-critic")
    rows = load_rows(stage.dep("critic-data") / "rl.parquet", stage.work / "rows")
    return [case_from(row, seed=0) for row in plain_rows(rows, range(4))]


def answers_for(cases: list[Case]) -> list[str]:
    return [
        format_critique(Critique(success=case.success, refine_prompt=case.prompt, reasoning="r"))
        for case in cases
    ]


def test_only_failed_steps_are_executed_in_one_batch(cases: list[Case], settings: Make):
    generator = Executor()
    reward = CriticReward(
        Refiner(generator, PocketJudge()),
        options(settings),
    )
    totals = reward(answers_for(cases), cases)
    assert [case.success for case in cases] == [True, False, True, False]
    assert generator.batches == [2]
    # success: 0.5 + 0.5·(0.2 + 0.8·0.5); repaired from 0 to 10: 0.5 + 0.5·(0.2 + 0.6·1 + 0.2·0.5)
    assert totals == pytest.approx([0.8, 0.95, 0.8, 0.95])


def test_failed_calls_are_left_out_and_counted(cases: list[Case], settings: Make):
    logged: dict[str, float] = {}
    reward = CriticReward(
        Refiner(Executor(fails=True), PocketJudge(), retries=1),
        options(settings),
    )
    totals = reward(answers_for(cases), cases, logged.__setitem__)
    assert totals == [0.8, None, 0.8, None]
    assert logged["reward/failed_calls"] == 2
    assert logged["reward/zero_variance"] == 1.0


def test_an_empty_refined_prompt_repeats_the_used_one(cases: list[Case], settings: Make):
    reward = CriticReward(
        Refiner(Executor(), PocketJudge()),
        options(settings),
    )
    empty = format_critique(Critique(success=False, refine_prompt="", reasoning="r"))
    assert reward([empty], [cases[1]]) == pytest.approx([0.95])
