from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from executor import Executor

from interloom.backends.pocket import PocketJudge
from interloom.dialogue import format_critique
from interloom.records import Critique, Failure
from interloom.roles import GenerationJob
from interloom.study.repairs import judge_critic, make_cases, read_outcome, try_critics
from interloom.train.refinement import Refiner


class Careless(Executor):
    """Does nothing at all in every third call."""

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        made = super().generate(jobs)
        return [
            (job.source or b"" if i % 3 == 0 else image)
            for i, (job, image) in enumerate(zip(jobs, made, strict=True))
        ]


class Knowing:
    """Says that everything failed, and asks for the same again."""

    def __init__(self, cases) -> None:
        self.cases = cases

    def generate(self, conversations: Any, **_: Any) -> list[str]:
        return [
            format_critique(Critique(success=False, refine_prompt=case.prompt, reasoning="r"))
            for case in self.cases
        ]


def test_cases_are_failed_and_good_steps_of_the_evaluation_split():
    cases = make_cases(Careless(), 12, seed=1, wording="canonical")
    assert [case.success for case in cases] == [False] * 12 + [True] * 4
    assert all(case.after == case.before for case in cases[:12])
    assert make_cases(Careless(), 12, seed=1, wording="canonical") == cases


def test_a_critic_is_scored_on_judgments_and_on_repairs():
    cases = make_cases(Careless(), 6, seed=1, wording="canonical")
    chat: Any = Knowing(cases)
    outcome = judge_critic(chat, cases, Refiner(Executor(), PocketJudge()), "short")
    assert outcome.fix == dict.fromkeys([f"{i:04d}" for i in range(6)], 1.0)
    assert list(outcome.judgment.values()) == [1.0] * 6 + [0.0] * 2
    down = judge_critic(
        chat, cases, Refiner(Executor(fails=True), PocketJudge(), retries=0), "short"
    )
    assert down.fix == {} and down.judgment == outcome.judgment


def test_critics_are_tried_on_the_same_cases_and_each_once(tmp_path: Path):
    asked: list[str] = []

    def critic(name: str) -> Callable[[], Any]:
        def load() -> Any:
            asked.append(name)
            return Knowing(make_cases(Careless(), 6, seed=1, wording="canonical"))

        return load

    try_critics(tmp_path, {"a": critic("a")}, Careless(), 6, 1, "short", "canonical")
    both = {"a": critic("a"), "b": critic("b")}
    try_critics(tmp_path, both, Careless(), 6, 1, "short", "canonical")
    assert asked == ["a", "b"]
    assert read_outcome(tmp_path, "a").judgment == read_outcome(tmp_path, "b").judgment
    assert len(read_outcome(tmp_path, "b").fix) == 6
