"""The plan: by hand where a hand can do it, else by how it must move with the settings."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from manifests import ROOT

from interloom.backends.ledger import Cost
from interloom.errors import InterloomError
from interloom.planning import adaptive
from interloom.planning.calibration import load
from interloom.planning.estimate import GB, Plan, StagePlan, make_plan
from interloom.planning.remote import measured
from interloom.planning.show import as_json, as_text
from interloom.planning.volumes import Rows, volumes
from interloom.settings.fields import BenchmarkName
from interloom.settings.file import Settings, load_settings, settings_from

KNOWN = load()
PAPER = load_settings(ROOT / "profiles/paper.yaml")
PUBLISHED = Rows.published(KNOWN)


def changed(base: Settings = PAPER, **sections: dict[str, Any]) -> Settings:
    """The settings with some values changed: ``changed(grpo_critic={"epochs": 2.0})``."""
    raw = base.model_dump(mode="json")
    for name, values in sections.items():
        for key, value in values.items():
            *path, last = key.split("__")
            place = raw[name]
            for part in path:
                place = place[part]
            place[last] = value
    return settings_from(raw, "test")


def of(plan: Plan, stage: str) -> StagePlan:
    return next(found for found in plan.stages if found.stage == stage)


# ------------------------------------------------------------------------------- by hand


def test_amounts_by_hand() -> None:
    """40,000 requests of 4 steps with 1.8 pictures; the planner's 80k rows are the paper's own."""
    amounts = volumes(PAPER, KNOWN)
    assert (amounts.requests, amounts.steps, amounts.attempts) == (40_000, 160_000, 288_000)
    assert amounts.rows.planner == PUBLISHED.planner == 80_000
    assert amounts.rows.critic + amounts.rows.rl == pytest.approx(125_000, rel=0.001)
    assert amounts.rows.critic / amounts.rows.rl == pytest.approx(2)
    assert amounts.image_tokens == 1024
    assert amounts.critic_tokens == 1000 + 2 * 1024 + 400


def test_sft_hours_by_hand() -> None:
    """112k rows, two epochs, 3448 tokens, 8 FLOP a parameter and token, 8 cards at 0.3 of 989."""
    flop = 8 * 8.77e9 * 112_000 * 2 * 3448
    hours = flop / (8 * 0.3 * 989e12) / 3600
    stage = of(make_plan(PAPER, KNOWN, rows=PUBLISHED), "sft-critic")
    assert stage.parts["training"] == pytest.approx(hours)
    assert stage.gpus == 8 and stage.gpu_hours == pytest.approx(8 * sum(stage.parts.values()))


def test_grpo_pictures_by_hand() -> None:
    """13k prompts × 8 rollouts, half of them after "false", and 512 held-out rows five times."""
    stage = of(make_plan(PAPER, KNOWN, rows=PUBLISHED), "grpo-critic")
    (scores,) = stage.calls
    assert scores.count == 13_000 * 8 / 2 + 512 * 5 / 2
    tokens = KNOWN.calls
    seen = tokens.score_input.value + 2 * tokens.image_tokens.value
    usd = scores.count * (seen * 1.25 + tokens.score_output.value * 10) / 1e6
    assert scores.usd == pytest.approx(usd)
    # 32 calls of 15 s at a time take longer than 150 a minute.
    assert scores.hours == pytest.approx(scores.count * 15 / 32 / 3600)
    few = changed(remote={"gemini__requests_per_minute": 10.0})
    (slow,) = of(make_plan(few, KNOWN, rows=PUBLISHED), "grpo-critic").calls
    assert slow.hours == pytest.approx(scores.count / 10 / 60)


def test_memory_by_hand() -> None:
    stage = of(make_plan(PAPER, KNOWN), "sft-critic")
    assert stage.memory_parts["weights, gradients, optimiser"] == pytest.approx(8.77e9 * 16 / 8)
    assert stage.memory_parts["logits"] == pytest.approx(3448 * 151936 * 10)
    assert stage.memory_parts["whole weights"] == pytest.approx(8.77e9 * 2)
    assert stage.memory == sum(stage.memory_parts.values())


def test_adaptive_amounts_by_hand() -> None:
    """1 : 2 : 2 of 50,000 stories; pictures of 32 × 32 tokens, with row ends and a frame."""
    told = adaptive.stories(PAPER, KNOWN)
    assert (told.direct, told.reflection, told.multi_step) == (10_000, 20_000, 20_000)
    assert told.stories == 50_000 and told.requests == 75_000 and told.rl_requests == 50_000
    assert told.picture_tokens == 32 * 33 + 8
    assert told.story_pictures == pytest.approx((1 + 2 * 2.5 + 2 * 4) / 5)
    assert told.prompt_tokens == pytest.approx(60 + 0.8 * 1064)
    words = (2 * 1.5 * 150 + 2 * 3 * 30) / 5
    story = told.prompt_tokens + told.story_pictures * (1064 + 120) + words
    assert told.story_tokens == pytest.approx(story)


def test_escalation_by_hand() -> None:
    """45,000 requests fail in three rounds; 20,000 of them get plans of three steps."""
    plan = of(make_plan(PAPER, KNOWN), "adaptive-data")
    analyses, repairs = plan.calls
    rounds, steps = 45_000 * 3 + 20_000 * 1.5, 20_000 * 3 * 1.3
    assert repairs.count == pytest.approx(rounds + steps)
    assert repairs.model == PAPER.models.generator_weak.model
    assert analyses.count == pytest.approx(75_000 + 2 * rounds + 45_000 + 20_000 + steps)
    assert analyses.model == PAPER.adaptive_data.analyzer_model and analyses.usd == 0


def test_adaptive_trainings_by_hand() -> None:
    """50,000 stories once; 50,000 requests × 8 trajectories of two pictures, read once more for
    the KL term; each trajectory's last picture is evaluated and its text rated."""
    plan, told = make_plan(PAPER, KNOWN), adaptive.stories(PAPER, KNOWN)
    speed = 8 * 0.3 * 989e12
    sft, grpo = of(plan, "sft-adaptive"), of(plan, "grpo-adaptive")
    flop = 8 * 8.49e9 * 50_000 * told.story_tokens
    assert sft.parts["training"] == pytest.approx(flop / speed / 3600)
    tokens = 400_000 * (told.prompt_tokens + told.rollout_tokens)
    assert grpo.parts["training"] == pytest.approx((8 + 2) * 8.49e9 * tokens / speed / 3600)
    (analyses,) = grpo.calls
    assert analyses.count == pytest.approx((400_000 + 2 * 5 * 512) * 2)
    assert plan.training_hours("adaptive") == sft.gpu_hours + grpo.gpu_hours
    assert sft.memory_parts["weights, gradients, optimiser"] == pytest.approx(8.49e9 * 16 / 8)


def test_weights_that_are_gathered_for_every_token_take_time_and_save_memory() -> None:
    spread = changed(cluster={"fsdp__reshard_after_forward": True})
    for name in ("sft-critic", "grpo-adaptive"):
        whole, parted = (of(make_plan(one, KNOWN), name) for one in (PAPER, spread))
        assert parted.memory < whole.memory
        assert parted.parts["held-out answers"] > 3 * whole.parts["held-out answers"]
    assert parted.parts["rollouts"] > 3 * whole.parts["rollouts"]
    vllm = [of(make_plan(one, KNOWN), "grpo-critic").parts["rollouts"] for one in (PAPER, spread)]
    assert vllm[0] == vllm[1], "vLLM has weights of its own"


def test_a_stage_that_would_be_ended_is_said() -> None:
    short = changed(cluster={"deadline_minutes": 6000.0})
    (warning,) = [w for w in make_plan(short, KNOWN).warnings if "deadline" in w]
    assert warning.startswith("grpo-adaptive takes about ") and "ends it after 100" in warning
    assert not any("ends it" in w for w in make_plan(PAPER, KNOWN).warnings)


def test_grading_is_counted() -> None:
    """UEval's rubrics, WISE's pictures and RISE's axes of six systems; the benchmarks of both
    systems are known to the calibration."""
    plan = make_plan(PAPER, KNOWN)
    (grades,) = of(plan, "evaluate").calls
    assert grades.count == pytest.approx(6 * (1000 * 10.4 + 1000 + 360 * 3))
    (grades,) = of(plan, "evaluate-adaptive").calls
    assert grades.count == pytest.approx(3 * (553 * 4 + 1267 * 1.6 + 400 * 2))
    assert set(get_args(BenchmarkName)) == set(KNOWN.benchmarks)
    assert of(plan, "generate").gpu_hours > of(plan, "generate-adaptive").gpu_hours > 0


# ------------------------------------------------------------------------------- how it moves


@pytest.mark.parametrize(
    ("change", "stage", "figure", "factor"),
    [
        ({"sft_critic": {"epochs": 4.0}}, "sft-critic", "parts.training", 2),
        ({"grpo_critic": {"epochs": 2.0}}, "grpo-critic", "parts.training", 2),
        ({"grpo_critic": {"group_size": 16}}, "grpo-critic", "parts.training", 2),
        ({"models": {"generator__steps": 8}}, "grpo-critic", "parts.pictures", 2),
        ({"models": {"generator__guidance": 4.0}}, "grpo-critic", "parts.pictures", 2),
        ({"cluster": {"stages__sft-critic__pods": 2}}, "sft-critic", "parts.training", 0.5),
        ({"grpo_critic": {"max_steps": 100}}, "grpo-critic", "parts.training", 100 / (13000 / 16)),
    ],
)
def test_hours_follow_the_settings(
    change: dict[str, dict[str, Any]], stage: str, figure: str, factor: float
) -> None:
    def value(settings: Settings) -> float:
        found = of(make_plan(settings, KNOWN, rows=PUBLISHED), stage)
        return found.parts[figure.partition(".")[2]]

    assert value(changed(**change)) / value(PAPER) == pytest.approx(factor)


def test_more_cards_hold_more_and_lora_holds_less() -> None:
    def memory(settings: Settings) -> float:
        return of(make_plan(settings, KNOWN), "sft-critic").memory

    assert memory(changed(cluster={"stages__sft-critic__pods": 4})) < memory(PAPER)
    assert memory(changed(sft_critic={"lora_rank": 16})) < memory(PAPER)
    assert memory(changed(sft_critic={"micro_batch_size": 4})) > memory(PAPER)
    copied = changed(cluster={"stages__sft-critic__fsdp": False})
    assert memory(copied) > memory(PAPER)


def test_a_generator_of_its_own_leaves_the_trainers_card() -> None:
    """The paper profile as it is does not fit on a card of 80 GB, and the plan says what to do."""
    plan = make_plan(PAPER, KNOWN)
    (warning,) = [w for w in plan.warnings if w.startswith("grpo-critic")]
    assert "set the generator's backend to http" in warning
    served = changed(
        models={"generator__backend": "http"},
        remote={"http__base_urls": ["http://generator:8100"]},
    )
    there = make_plan(served, KNOWN)
    assert not any(w.startswith("grpo-critic") for w in there.warnings)
    stage = of(there, "grpo-critic")
    assert stage.parts["pictures"] == 0 and "generator" not in stage.memory_parts
    assert stage.gpu_hours > 8 * sum(stage.parts.values())  # the generator's own cards


def test_a_budget_that_is_too_small_is_said_before_it_is_spent() -> None:
    (warning,) = [w for w in make_plan(PAPER, KNOWN).warnings if "budget" in w]
    assert "remote.gemini.budget_usd is 10,000" in warning
    rich = changed(remote={"gemini__budget_usd": 1e6})
    assert not any("budget" in w for w in make_plan(rich, KNOWN).warnings)


def test_the_pocket_profile_costs_nothing() -> None:
    plan = make_plan(load_settings(ROOT / "params.yaml"), KNOWN)
    assert sum(stage.usd for stage in plan.stages) == 0
    assert plan.gpu_hours < 0.5
    assert plan.warnings == []


def test_what_the_ledger_knows_goes_first() -> None:
    cost = Cost("gemini", "gemini-2.5-pro", "critic-data", 10, 0, 50_000, 5_000, 0, 100.0, 1.0, 0.2)
    seen = measured([cost])
    (scores,) = of(make_plan(PAPER, KNOWN, seen=seen), "critic-data").calls
    assert scores.from_ledger
    assert scores.usd == pytest.approx(scores.count * (5_000 * 1.25 + 500 * 10) / 1e6)
    (other,) = of(make_plan(PAPER, KNOWN, seen=seen), "grpo-critic").calls
    assert not other.from_ledger


def test_a_model_without_a_price_is_refused() -> None:
    with pytest.raises(InterloomError, match=r"remote\.gemini\.prices has none for gemini-9"):
        make_plan(changed(teacher={"judge_model": "gemini-9"}), KNOWN)


# ------------------------------------------------------------------------------- against the paper


def test_at_the_papers_sizes_the_plan_is_of_the_papers_order() -> None:
    """docs/cluster-cost.md tells the same ratio; the calibration is not fitted to it."""
    plan = make_plan(PAPER, KNOWN, rows=PUBLISHED)
    told = as_json(plan, KNOWN)["totals"]
    assert told["gpu_hours_published"] == 400
    hours = plan.training_hours("agents")
    ratio = hours / 400
    text = (ROOT / "docs/cluster-cost.md").read_text(encoding="utf-8")
    assert f"{hours:,.0f} GPU-hours" in text and f"{ratio:.2f}" in text
    assert f"{plan.training_hours('adaptive'):,.0f} GPU-hours" in text
    assert 1 / 3 < ratio < 3


def test_table_and_json_tell_the_same() -> None:
    plan = make_plan(PAPER, KNOWN)
    text, told = as_text(plan, KNOWN), as_json(plan, KNOWN)
    for stage in plan.stages:
        assert f"\n{stage.stage}" in text
    assert f"{told['totals']['gpu_hours']:,.1f} GPU-hours" in text
    assert told["totals"]["storage"] == sum(stage["storage"] for stage in told["stages"])
    assert told["totals"]["storage"] / GB > 1000
    assert told["warnings"] == plan.warnings and f"warning: {plan.warnings[0][:40]}" in text
