from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from executor import Executor
from transformers import TrainerCallback

from interloom.backends.pocket import PocketJudge
from interloom.cluster.executor import ROLLOUTS_VARIABLE
from interloom.errors import InterloomError
from interloom.records import Failure
from interloom.runner import StageRun
from interloom.settings.file import Settings
from interloom.train import grpo, sft
from interloom.train.critic_reward import CriticReward
from interloom.train.data import load_rows, split_held_out
from interloom.train.refinement import Refiner

Open = Callable[[str], StageRun]
Make = Callable[..., Settings]


def small(settings: Make, **changes: object) -> Settings:
    chosen = {"batch_size": 2, "group_size": 2, "max_steps": 2, "micro_batch_size": 4}
    return settings("grpo_critic", **chosen | changes)


def fit(stage: StageRun, settings: Settings, generator: Executor) -> dict[str, float]:
    rows = load_rows(stage.dep("critic-data") / "rl.parquet", stage.work / "rows")
    train, held = split_held_out([name.split("/")[0] for name in rows["id"]], 4)
    refiner = Refiner(generator, PocketJudge(), retries=0)
    options, models = settings.grpo_critic, settings.models
    grpo.fit(
        options,
        models,
        stage,
        rows=rows,
        train=train,
        held=held,
        refiner=refiner,
        seed=settings.seed,
    )
    return json.loads(stage.out("metrics").read_text())


def test_a_short_run_writes_a_model_metrics_and_samples(open_stage: Open, settings: Make):
    stage = open_stage("grpo-critic")
    metrics = fit(stage, small(settings, kl_coefficient=0.1), Executor())
    assert {"reward", "fix", "judgment_accuracy", "failed_calls"} <= metrics.keys()
    curve = stage.out("curve").read_text()
    for name in (
        "kl", "entropy", "completions/mean_length", "reward/zero_variance", "reward/wait_seconds",
        "reward/wait_share", "reward/failed_calls", "judgment/unreadable", "advantage/mean_size",
    ):  # fmt: skip
        assert f",train,{name}," in curve, name
    assert (stage.out("critic-rl") / "model.safetensors").is_file()
    assert "<img" in (stage.work / "samples-00000.html").read_text()
    rollouts = (stage.work / "rollouts-00002.html").read_text()
    assert "<img" in rollouts and "advantage" in rollouts


def test_rollouts_in_parts_are_rewarded_once_and_train(open_stage: Open, settings: Make):
    stage, generator = open_stage("grpo-critic"), Executor()
    fit(stage, small(settings, batch_size=4, micro_batch_size=8, parts=2), generator)
    curve = stage.out("curve").read_text()
    for name in ("reward/wait_share", "reward/format", "completions/mean_length"):
        assert f",train,{name}," in curve, name


def test_a_repeated_run_ends_the_same(open_stage: Open, settings: Make):
    first = open_stage("grpo-critic")
    metrics = fit(first, small(settings, learning_rate=1e-2), Executor())
    weights = (first.out("critic-rl") / "model.safetensors").read_bytes()
    again = StageRun(first._spec, first._root, first.work / "b", first.work / "aside", None)
    again.work.mkdir()
    assert fit(again, small(settings, learning_rate=1e-2), Executor()) == metrics
    assert (again.out("critic-rl") / "model.safetensors").read_bytes() == weights


class Down(Executor):
    """Fails for every second prompt that it is given."""

    def generate(self, jobs):
        made = super().generate(jobs)
        return [
            Failure(role="generator", reason="down") if place % 2 else image
            for place, image in enumerate(made)
        ]


def test_failed_calls_move_nothing_and_are_no_part_of_the_baseline(
    open_stage: Open, settings: Make, monkeypatch: pytest.MonkeyPatch
):
    """The critic is random and says nothing readable; answers of another are put in its mouth."""
    said = (
        '<think>t</think><answer>{"previous_step_success": %s, "refine_prompt": "do %d"}</answer>'
    )
    kept: list[tuple[list[float | None], list[float]]] = []

    def begin_with(reward, completions, cases, log_metric=None):
        told = [said % ("true" if i % 3 else "false", i) for i in range(len(completions))]
        return plain(reward, told, cases, log_metric)

    def look(stage, step, reward, advantages):
        kept.append(([made.total for made in reward.last], list(advantages)))

    plain = CriticReward.__call__
    monkeypatch.setattr(CriticReward, "__call__", begin_with)
    monkeypatch.setattr(grpo, "write_rollouts", look)
    stage = open_stage("grpo-critic")
    options = {"batch_size": 4, "group_size": 8, "micro_batch_size": 32, "max_steps": 1}
    metrics = fit(stage, small(settings, evaluations=1, scale_rewards="none", **options), Down())
    totals, advantages = kept[-1]
    failed = [place for place, total in enumerate(totals) if total is None]
    assert failed and metrics["training_failed_calls"] == len(failed)
    assert all(advantages[place] == 0 for place in failed)
    for start in range(0, len(totals), 8):
        known = {i: t for i in range(start, start + 8) if (t := totals[i]) is not None}
        middle = sum(known.values()) / len(known)
        assert [advantages[i] for i in known] == pytest.approx(
            [total - middle for total in known.values()], abs=1e-5
        )


def test_lora_trains_against_its_own_base_and_ships_whole_weights(open_stage: Open, settings: Make):
    stage = open_stage("grpo-critic")
    fit(stage, small(settings, lora_rank=2, kl_coefficient=0.1, learning_rate=1e-2), Executor())
    assert (stage.out("critic-rl") / "model.safetensors").is_file()
    assert not (stage.out("critic-rl") / "adapter_config.json").exists()
    assert ",train,kl," in stage.out("curve").read_text()


def test_vllm_is_a_switch(open_stage: Open, settings: Make):
    chosen = small(settings, use_vllm=True)
    config = grpo.grpo_config(
        chosen.grpo_critic, chosen.models, open_stage("grpo-critic"), 0, [5, 6]
    )
    assert config.use_vllm
    assert config.generation_kwargs == {"logit_bias": {5: -100.0, 6: -100.0}}
    assert config.vllm_mode == "colocate"


def test_the_executor_says_where_rollouts_are_written(
    open_stage: Open, settings: Make, monkeypatch: pytest.MonkeyPatch
):
    assert grpo.ROLLOUTS_VARIABLE == ROLLOUTS_VARIABLE
    monkeypatch.setenv(ROLLOUTS_VARIABLE, "http://run-rollouts:8000")
    chosen = small(settings, use_vllm=True)
    config = grpo.grpo_config(chosen.grpo_critic, chosen.models, open_stage("grpo-critic"), 0, [])
    assert (config.vllm_mode, config.vllm_server_base_url) == ("server", "http://run-rollouts:8000")


class Killed(BaseException):
    pass


class KillAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step:
            raise Killed


def test_a_killed_run_resumes_and_ends_with_the_same_model(
    open_stage: Open, settings: Make, monkeypatch: pytest.MonkeyPatch
):
    chosen = small(settings, learning_rate=1e-2, max_steps=4, evaluations=4, temperature=1.0)
    whole = open_stage("grpo-critic")
    metrics = fit(whole, chosen, Executor())
    weights = (whole.work / "best" / "model.safetensors").read_bytes()
    last = (whole.work / "checkpoints/checkpoint-4/model.safetensors").read_bytes()

    again = StageRun(whole._spec, whole._root, whole.work / "b", whole.work / "aside", None)
    again.work.mkdir()
    train = sft.train
    with monkeypatch.context() as patch:
        patch.setattr(sft, "train", lambda t, w, s: (t.add_callback(KillAt(2)), train(t, w, s)))
        with pytest.raises(Killed):
            fit(again, chosen, Executor())
    assert fit(again, chosen, Executor()) == metrics
    assert (again.work / "best" / "model.safetensors").read_bytes() == weights
    assert (again.work / "checkpoints/checkpoint-4/model.safetensors").read_bytes() == last


def test_training_goes_on_while_a_generator_is_down_but_not_without_any_number(
    open_stage: Open, settings: Make
):
    metrics = fit(open_stage("grpo-critic"), small(settings), Executor(fails=True))
    assert metrics["failed_calls"] >= 0


def test_hopeless_settings_are_refused(open_stage: Open, settings: Make):
    with pytest.raises(InterloomError, match="micro_batch_size"):
        grpo.run(small(settings, micro_batch_size=3), open_stage("grpo-critic"))
    with pytest.raises(InterloomError, match="batch_size"):
        grpo.run(small(settings, batch_size=64), open_stage("grpo-critic"))


def test_a_hopeless_critic_is_refused_before_the_first_step_and_warned_about_otherwise(
    open_stage: Open, settings: Make, capsys: pytest.CaptureFixture[str]
):
    chosen = small(settings)
    limits = chosen.grpo_critic.readiness

    def acting(act: str) -> Settings:
        readiness = limits.model_copy(update={"act": act, "cases": 4})
        grpo_critic = chosen.grpo_critic.model_copy(update={"readiness": readiness})
        return chosen.model_copy(update={"grpo_critic": grpo_critic})

    with pytest.raises(InterloomError, match=r"min_accuracy 0\.8.*min_format"):
        fit(open_stage("grpo-critic"), acting("refuse"), Executor())
    fit(open_stage("grpo-critic"), acting("warn"), Executor())
    assert "warning: greedy judgments are right in" in capsys.readouterr().out
