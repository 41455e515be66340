from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from sample_trajectories import odd_ones, picture, trajectory

from interloom import dialogue
from interloom.construct import critic_data
from interloom.records import Failure, Score
from interloom.roles import JudgeCase
from interloom.settings.data import CriticDataSettings
from interloom.settings.file import load_settings

OPTIONS = load_settings(Path(__file__).parents[2] / "params.yaml").critic_data


class TableJudge:
    """Scores by the picture's number; numbers in ``down`` have no answer."""

    name = "table"

    def __init__(self, scores: dict[int, float], down: Sequence[int] = ()) -> None:
        self.scores = {picture(number): score for number, score in scores.items()}
        self.down = {picture(number) for number in down}

    def score(self, cases: Sequence[JudgeCase]) -> list[Score | Failure]:
        return [
            Failure(role="judge", reason="down")
            if case.after in self.down
            else Score(semantic=self.scores[case.after], quality=self.scores[case.after])
            for case in cases
        ]


def options(**changes) -> CriticDataSettings:
    return OPTIONS.model_copy(update=changes)


def test_decompose_gives_every_iteration_with_its_context():
    made = trajectory("r", ((False, True), (True,)))
    rows = list(critic_data.decompose(made))
    assert [row["id"] for row in rows] == ["r/1/0", "r/1/1", "r/2/0"]
    assert [row["before"] for row in rows] == [None, None, picture(2)]
    assert [row["success"] for row in rows] == [False, True, True]
    assert [row["used_prompt"] for row in rows[:2]] == ["add part 1 of r", "add part 1 of r!"]
    assert rows[1]["prompt"] == "add part 1 of r" and rows[0]["refine_prompt"].endswith("!")


def test_scores_are_of_the_original_prompt_and_failures_stay_failures():
    made = [trajectory("r", ((False, True), (True,))), *odd_ones()[2:4]]
    asked: list[JudgeCase] = []

    class Recording(TableJudge):
        def score(self, cases: Sequence[JudgeCase]) -> list[Score | Failure]:
            asked.extend(cases)
            return super().score(cases)

    judge = Recording({1: 2, 2: 9}, down=[3])
    rows = [row for one in made for row in critic_data.decompose(one)]
    scored = [(row["id"], score) for row, score in critic_data.score_rows(rows, judge)]
    assert [case.prompt for case in asked] == ["add part 1 of r"] * 2 + ["add part 2 of r"]
    assert scored[0][1] == Score(semantic=2, quality=2)
    assert all(isinstance(score, Failure) for _, score in scored[2:])
    assert [name for name, _ in scored[3:]] == ["stopped/2/0", "unjudged/1/0"]


def steps(*rows: tuple[str, tuple[float | None, ...], tuple[bool, ...]]):
    return [critic_data.ScoredStep(*row) for row in rows]


def fails_then_passes(count: int, first: float = 2.0, name: str = "s"):
    return [(f"{name}{i}", (first, 9.0), (False, True)) for i in range(count)]


def test_selection_balances_and_splits():
    rows = fails_then_passes(30, 5.0) + fails_then_passes(30, 1.0, "t")
    rows += [(f"u{i}", (9.0,), (True,)) for i in range(200)]
    rows += [("low", (1.0, 2.0), (False, False)), ("lost", (9.0, None), (True, True))]
    chosen, yields, numbers = critic_data.select(steps(*rows), options(majority=0.5), 0)
    sft = {row for row, split in chosen.items() if split == "sft"}
    assert numbers["sft_rows"] == len(sft) == 80 and numbers["rl_rows"] == 40
    assert numbers["sft_positive"] == numbers["rl_positive"] == 0.5
    assert yields[0].lost == {"low": 1, "call-failed": 1}
    # The steps that vary most are for RL.
    assert {row[0] for row, split in chosen.items() if split == "rl"} == {"t"}
    assert not any(row.startswith(("low", "lost")) for row in chosen)


def test_ablation_switches():
    rows = fails_then_passes(10) + [(f"u{i}", (9.0,), (True,)) for i in range(50)]
    rows += [(f"bad{i}", (1.0,), (False,)) for i in range(10)]
    rows += [("lost", (None,), (True,))]
    whole, yields, _ = critic_data.select(steps(*rows), options(filter=False, balance=False), 0)
    assert len(whole) == 80 and yields[0].lost == {"call-failed": 1}
    unbalanced, _, numbers = critic_data.select(steps(*rows), options(balance=False), 0)
    assert len(unbalanced) == 70 and numbers["sft_positive"] > 0.8
    unfiltered, _, _ = critic_data.select(steps(*rows), options(filter=False), 0)
    assert any(row.startswith("bad") for row in unfiltered)


def test_excluded_steps_are_counted_by_reason():
    rows = fails_then_passes(10)
    excluded = {"s0": "held-out", "s1": "duplicate"}
    chosen, yields, _ = critic_data.select(steps(*rows), OPTIONS, 0, excluded)
    assert yields[0].step == "exclude" and yields[0].lost == {"held-out": 1, "duplicate": 1}
    assert not any(row.startswith(("s0/", "s1/")) for row in chosen)


def test_peoples_judgments_are_for_sft_unfiltered_and_balanced():
    rows = fails_then_passes(30, 5.0) + fails_then_passes(30, 1.0, "t")
    given = {f"feedback/a/1/{n}": n % 4 > 0 for n in range(20)}
    chosen, yields, numbers = critic_data.select(
        steps(*rows), options(majority=0.5), 0, given=given
    )
    ours = {row for row, split in chosen.items() if row in given}
    assert {chosen[row] for row in ours} == {"sft"}
    # 15 true and 5 false ones: the ten too many go from all true ones alike.
    assert numbers["sft_positive"] == 0.5 and 10 <= len(ours) < 20
    (balanced,) = (entry for entry in yields if entry.step == "balance-sft")
    assert balanced.lost == {"surplus-true": 10}
    # The cut makes room for them: the whole keeps the ratio.
    assert abs(numbers["sft_rows"] / numbers["rl_rows"] - OPTIONS.sft_rl_ratio) < 0.2


@pytest.mark.parametrize("style", ["short", "full"])
def test_conversation_for_the_trainer(style: dialogue.Style):
    row = list(critic_data.decompose(trajectory("r", ((False, True),))))[1]
    made = critic_data.to_conversation(row, style)
    assert set(made) == {"prompt", "completion", "images"}
    marks = [p for m in made["prompt"] for p in m["content"] if p["type"] == "image"]
    assert len(marks) == len(made["images"]) == 2
    assert made["images"][0].getpixel((0, 0)) == (255, 255, 255), "no picture before: white"
    answer = made["completion"][0]["content"][0]["text"]
    critique = dialogue.parse_critique(answer)
    assert critique.success and critique.reasoning == "seen 2"
