from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from executor import Executor

from interloom.backends.pocket import PocketJudge
from interloom.backends.transformers import ChatModel
from interloom.dialogue import Conversation, critic_messages, format_critique
from interloom.records import Critique
from interloom.runner import StageRun
from interloom.settings.file import Settings
from interloom.train.critic_reward import Case, CriticReward, case_from
from interloom.train.data import load_rows, plain_rows
from interloom.train.readiness import measure, problems
from interloom.train.refinement import Refiner
from interloom.train.sft_critic import case_of


class Critic(ChatModel):
    """Says greedily that all is well; of four samples one is a right correction."""

    def __init__(self, model: Any, cases: Sequence[Case]) -> None:
        self.model, self.cases = model, cases

    def generate(
        self, conversations: Sequence[Conversation], *, temperature: float = 0.0, **_: Any
    ) -> list[str]:
        answers = []
        for place in range(len(conversations)):
            right = temperature > 0 and place % 4 == 0
            case = self.cases[place * len(self.cases) // len(conversations)]
            success = case.success if right else True
            said = Critique(success=success, refine_prompt=case.prompt, reasoning="r")
            answers.append("?" if temperature > 0 and place % 4 == 1 else format_critique(said))
        return answers


class Model:
    training = False

    def eval(self) -> None: ...

    def train(self, mode: bool) -> None: ...


def test_greedy_and_sampled_answers_are_compared(
    open_stage: Callable[[str], StageRun], settings: Callable[..., Settings]
):
    stage = open_stage("grpo-critic")
    rows = plain_rows(
        load_rows(stage.dep("critic-data") / "rl.parquet", stage.work / "rows"), range(8)
    )
    cases = [case_from(row, seed=0) for row in rows]
    options = settings("grpo_critic", group_size=4).grpo_critic
    figures = measure(
        Critic(Model(), cases),
        [critic_messages(case_of(row), "short") for row in rows],
        cases,
        CriticReward(Refiner(Executor(), PocketJudge()), options),
        options,
        seed=1,
    )
    assert figures == pytest.approx(
        {
            "accuracy": 0.5,
            "format": 0.75,
            "greedy_fix": 0.0,
            "sampled_fix": 0.25,
            "best_fix": 1.0,
            "zero_variance": 0.0,
        }
    )
    found = problems(figures, options.readiness)
    assert [problem.split(" are ")[0] for problem in found] == [
        "greedy judgments",
        "sampled answers",
    ]
