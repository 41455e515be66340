"""Stage ``grpo-adaptive``: the unified model learns which mode a request deserves (SAIR §3.3).

The policy writes whole trajectories, its pictures are decoded and judged, and within a group the
competitive ones are paid the more the fewer pictures they took. Formulas: ``rewards.py``; group
advantages, the clipped objective and the KL estimate are TRL's.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig

from interloom import cast
from interloom.adaptive import cast as adaptive_cast
from interloom.adaptive import files, measure
from interloom.adaptive.data import thresholds
from interloom.adaptive.judging import judge
from interloom.adaptive.reasoner import AdaptiveReasoner, Told
from interloom.adaptive.rewards import Bonus, Judged, Rewards, Weights, trajectory_rewards
from interloom.adaptive.sft import export, freeze_pictures, in_evaluation_mode, save
from interloom.adaptive.story import Prompt
from interloom.adaptive.trainers import UnifiedGRPOTrainer
from interloom.backends.stream import VISUAL, Sampling
from interloom.backends.unified import Completion, UnifiedModel
from interloom.errors import InterloomError
from interloom.seeding import derive_seed
from interloom.train import preflight, together
from interloom.train.data import split_held_out
from interloom.train.sft import accumulation, prepare, train, trainer_arguments, write_figures
from interloom.train.watch import Metrics, Watch

if TYPE_CHECKING:
    from interloom.roles import Analyzer
    from interloom.runner import StageRun
    from interloom.settings.file import Settings
    from interloom.settings.training import AdaptiveGrpoSettings


class Rollouts:
    """TRL's ``rollout_func``: trajectories of the policy itself, held to the form of their spans.

    Args:
        prompts: by id; TRL is given the ids as its prompts.
    """

    def __init__(self, reasoner: AdaptiveReasoner, prompts: dict[str, Prompt], seed: int) -> None:
        self.reasoner, self.prompts, self.seed = reasoner, prompts, seed

    def __call__(self, names: list[str], trainer: Any) -> dict[str, list[Any] | None]:
        """Tokens of prompts and completions, and a mask of those that the model chose.

        What the form forces (a picture's size, row ends and end) had no alternative, and is left
        out of the loss.
        """
        reasoner, stream = self.reasoner, self.reasoner.unified.stream
        asked = [self.prompts[name] for name in names]
        step = trainer.state.global_step
        seed = derive_seed(self.seed, "rollouts", step, trainer.accelerator.process_index)
        told, written = in_evaluation_mode(
            reasoner, lambda: reasoner.reason_with_tokens(asked, seed=seed)
        )
        header = len(stream.header(reasoner.unified.grid))
        completions = [_completion(one, header, stream.eos) for one in written]
        return {
            "prompt_ids": [reasoner.unified.prompt(one.segments()) for one in asked],
            "completion_ids": completions,
            "logprobs": None,
            "env_mask": [
                chosen_mask(one, completion, reasoner.unified, header)
                for one, completion in zip(written, completions, strict=True)
            ],
            "told": told,
        }


def _completion(completion: Completion, header: int, eos: int) -> list[int]:
    return [*completion.tokens[header:], *([eos] if completion.ended else [])]


def chosen_mask(
    completion: Completion, tokens: Sequence[int], unified: UnifiedModel, header: int
) -> list[int]:
    """1 for tokens that the model chose, 0 for those that a picture's form forced.

    Args:
        tokens: what follows the prompt, which ended in a picture's beginning of ``header`` tokens.
    """
    stream = unified.stream
    form = stream.form(unified.grid)
    mask, place = [], header
    for token in tokens:
        if place:  # inside a picture, at this place of its form
            mask.append(int(form[place] == VISUAL))
            place = (place + 1) % len(form)
        else:
            mask.append(1)
            place = int(token == stream.start)
    return mask


class TrajectoryReward:
    """TRL's reward function: R_final of whole groups, also where they lie on several processes."""

    __name__ = "trajectory"

    def __init__(self, analyzer: Analyzer, settings: Settings) -> None:
        self.analyzer, self.options = analyzer, settings.grpo_adaptive
        self.accepted = thresholds(settings.adaptive_data.accepted)

    def __call__(
        self,
        prompts: list[str],
        told: list[Told],
        log_metric: Any = None,
        **_: Any,
    ) -> list[float | None]:
        judged = judge(told, self.analyzer, self.accepted, self.options.reward_retries)
        rewards = gathered_rewards(judged, prompts, self.options)
        if log_metric is not None:
            for name, value in self.figures(judged, rewards).items():
                log_metric(name, value)
        return rewards.final

    def figures(self, judged: Sequence[Judged], rewards: Rewards) -> Metrics:
        """Means over the rollouts of a step; failed calls are a count."""
        totals = [total for total in rewards.total if total is not None]
        return {
            "total": sum(totals) / max(1, len(totals)),
            "bonus": sum(rewards.bonus) / len(judged),
            "success": sum(one.success for one in judged) / len(judged),
            "images": sum(one.images for one in judged) / len(judged),
            "valid": sum(one.valid for one in judged) / len(judged),
            "failed_calls": float(sum(one.unjudged for one in judged)),
        }


def gathered_rewards(
    judged: Sequence[Judged], groups: Sequence[Hashable], options: AdaptiveGrpoSettings
) -> Rewards:
    """Rewards of this process's trajectories, each in its whole group.

    A group can lie on several processes, so all of them are gathered and each process takes its own
    part of the answer.
    """
    rows = gather_object([(one, group) for one, group in zip(judged, groups, strict=True)])
    before = gather_object([len(judged)])
    rank = PartialState().process_index
    everyone = trajectory_rewards(
        [one for one, _ in rows],
        [group for _, group in rows],
        composition=options.composition,
        bonus=options.bonus,
        weights=Weights(options.outcome_weight, options.format_weight, options.step_weight),
        epsilon=options.epsilon,
    )
    mine = slice(sum(before[:rank]), sum(before[: rank + 1]))
    return Rewards(everyone.total[mine], everyone.bonus[mine], everyone.final[mine])


def paid(judged: Sequence[Judged], bonus: Bonus) -> float:
    """The mean bonus of trajectories that are alone in their groups, if one picture is the fewest
    that anybody took: with R_total, what the training is for.

    >>> good = Judged(None, True, 2, success=True)
    >>> paid([good, Judged(None, True, 1)], "gated"), paid([good], "none")
    (0.25, 0.0)
    """
    if bonus == "none":
        return 0.0
    shares = [
        1 / one.images if one.images and (one.success or bonus == "paper") else 0.0
        for one in judged
        if not one.unjudged
    ]
    return sum(shares) / max(1, len(shares))


def grpo_config(settings: Settings, stage: StageRun) -> GRPOConfig:
    """TRL's settings from ours."""
    options = settings.grpo_adaptive
    shared = trainer_arguments(options, settings.models, stage.work, settings.seed)
    return GRPOConfig(
        # The number type is the unified model's own.
        **{**shared, "bf16": settings.unified.dtype == "bfloat16"},
        per_device_train_batch_size=options.micro_batch_size,
        gradient_accumulation_steps=accumulation(
            "grpo_adaptive.batch_size × group_size",
            options.batch_size * options.group_size,
            options.micro_batch_size,
        ),
        num_train_epochs=options.epochs,
        max_steps=options.max_steps or -1,
        num_generations=options.group_size,
        max_completion_length=options.max_new_tokens,
        temperature=options.temperature,
        beta=options.kl_coefficient,
        loss_type=options.loss_type,
        scale_rewards=options.scale_rewards,
        epsilon_high=0.28 if options.loss_type == "dapo" else None,
        mask_truncated_completions=True,
        remove_unused_columns=False,
        logging_steps=1,
    )


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    options = settings.grpo_adaptive
    preflight.check_group(
        options.group_size, options.batch_size, options.micro_batch_size, section="grpo_adaptive"
    )
    prepare(options.threads, settings.seed)
    prompts = list(files.read_prompts(stage.dep("adaptive-data") / "rl.parquet"))
    learned, kept = split_held_out([prompt.id for prompt in prompts], options.held_out)
    if len(learned) < options.batch_size or not kept:
        raise InterloomError(
            f"grpo-adaptive: {len(learned)} training and {len(kept)} held-out requests; one step "
            f"takes {options.batch_size} (grpo_adaptive.batch_size): raise adaptive_data.rl_count"
        )
    unified = adaptive_cast.unified(settings.unified, stage.dep("adaptive-sft"))
    freeze_pictures(unified)
    source = settings.adaptive_data
    analyzer = adaptive_cast.analyzer(
        source.analyzer_backend,
        source.analyzer_model,
        settings.teacher,
        cast.remotes(settings.remote, stage),
    )
    sampled = AdaptiveReasoner(
        unified,
        text=Sampling(options.temperature),
        picture=Sampling(options.picture_temperature, options.picture_top_k),
        max_tokens=options.max_new_tokens,
    )
    greedy = AdaptiveReasoner(unified, max_tokens=options.max_new_tokens)
    chosen = [prompts[i] for i in learned]
    held_out = [prompts[i] for i in kept]
    reward = TrajectoryReward(analyzer, settings)
    trainer = UnifiedGRPOTrainer(
        model=unified.model,  # type: ignore[arg-type]
        reward_funcs=reward,  # type: ignore[arg-type]
        args=grpo_config(settings, stage),
        train_dataset=Dataset.from_list([{"prompt": prompt.id} for prompt in chosen]),
        processing_class=unified.tokenizer,
        rollout_func=Rollouts(sampled, {p.id: p for p in chosen}, settings.seed),  # type: ignore[arg-type]
    )

    def evaluate(_: int) -> Metrics:
        told = in_evaluation_mode(greedy, lambda: together.spread(held_out, greedy.reason))
        # One process asks, for all: its answers choose the checkpoint in every process.
        judged, outcomes = together.on_first(
            lambda: (
                judge(told, analyzer, reward.accepted, options.reward_retries),
                measure.outcomes(told, analyzer, reward.accepted),
            )
        )
        # Each held-out request is a group of its own, so no bonus: R_total alone.
        rewards = trajectory_rewards(
            judged, list(range(len(judged))), composition=options.composition, bonus="none"
        )
        known = [total for total in rewards.total if total is not None]
        if not known:
            raise InterloomError("grpo-adaptive: the analyzer failed on every held-out request")
        figures = measure.figures(outcomes)
        mean = sum(known) / len(known)
        return {"objective": mean + paid(judged, options.bonus), "reward": mean, **figures}

    watch = Watch(
        stage,
        evaluate=evaluate,
        select="objective",
        evaluations=options.evaluations,
        save=lambda folder: save(trainer, unified, folder),
        at_start=True,
        patience=options.patience,
    )
    train(trainer, watch, stage)
    export(stage.work / "best", stage.out("adaptive-rl"), unified)
    write_figures(watch, stage)
