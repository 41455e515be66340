"""Stage ``grpo-critic``: single-step RL of the critic with the dual reward (InterleaveThinker
§3.4).

For each recorded ``(I_{i-1}, I_i^t, p_i, r_i^t)`` the policy answers N times. The refined prompts
of a whole step are executed by the frozen generator and scored by the judge in one batch; where
the truth is "success" no image is made. Formulas: ``rewards.py``. Group advantages, the clipped
objective and the k3 estimate of the KL divergence from the SFT model are TRL's.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig

from interloom import cast, dialogue, ranks
from interloom.backends.transformers import ChatModel, image_tokens, load_model, load_processor
from interloom.construct import critic_data
from interloom.errors import InterloomError
from interloom.runner import StageRun
from interloom.settings.file import Settings
from interloom.settings.models import ModelsSettings
from interloom.settings.training import GrpoSettings
from interloom.train import preflight, readiness, sft, together
from interloom.train.critic_reward import CriticReward, LogMetric, case_from, fix_hits
from interloom.train.data import (
    Row,
    load_rows,
    plain_rows,
    split_held_out,
    text_lengths,
    with_conversations,
)
from interloom.train.measure import critic_figures, mean
from interloom.train.refinement import Refiner
from interloom.train.rewards import After
from interloom.train.rollouts import PartwiseGRPOTrainer
from interloom.train.samples import Sample, write_samples
from interloom.train.sft_critic import case_of, request_of
from interloom.train.watch import Metrics, Watch, last_checkpoint

ROLLOUTS_VARIABLE = "INTERLOOM_ROLLOUTS_URL"
"""Address of a vLLM server that writes the rollouts."""
TABLE = 24
"""Rows of a table of samples."""


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    options = settings.grpo_critic
    preflight.check_group(
        options.group_size, options.batch_size, options.micro_batch_size, ranks.world()
    )
    sft.prepare(options.threads, settings.seed)
    rows, train, held = _rows(options, stage)
    fit(
        options,
        settings.models,
        stage,
        rows=rows,
        train=train,
        held=held,
        refiner=_refiner(settings, stage),
        seed=settings.seed,
    )


def check(settings: Settings, stage: StageRun) -> Metrics:
    """What RL could gain from the SFT critic as it is (``readiness.py``), without training."""
    options, models = settings.grpo_critic, settings.models
    sft.prepare(options.threads, settings.seed)
    rows, _, held = _rows(options, stage)
    base = stage.dep("critic-sft")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chat = ChatModel(
        load_model(base, device=device, dtype=models.vlm_dtype),
        load_processor(base, max_image_pixels=models.max_image_pixels),
        batch_size=max(16, options.micro_batch_size),
        max_new_tokens=options.max_new_tokens,
    )
    reward = CriticReward(_refiner(settings, stage), options)
    kept = plain_rows(rows, held)
    style, seed = models.dialogue, settings.seed
    return Validation(stage, chat, reward, kept, style=style, seed=seed).readiness(seed)


def _rows(options: GrpoSettings, stage: StageRun) -> tuple[Dataset, list[int], list[int]]:
    """All rows of the RL data, and the places of those to train on and of those kept from it."""
    rows = load_rows(stage.dep("critic-data") / "rl.parquet", stage.work / "rows")
    keys = [request_of({"step_id": step_id}) for step_id in rows["step_id"]]
    train, held = split_held_out(keys, options.held_out)
    if len(train) < options.batch_size or not held:
        raise InterloomError(
            f"grpo-critic: {len(train)} training and {len(held)} held-out rows; one step takes "
            f"{options.batch_size} prompts (grpo_critic.batch_size): make more RL data"
        )
    return rows, train, held


def _refiner(settings: Settings, stage: StageRun) -> Refiner:
    options, remotes = settings.grpo_critic, cast.remotes(settings.remote, stage)
    return Refiner(
        cast.generator(settings.models.generator_named(options.generator), remotes),
        cast.judge(settings.teacher, remotes),
        retries=options.reward_retries,
    )


def fit(
    options: GrpoSettings,
    models: ModelsSettings,
    stage: StageRun,
    *,
    rows: Dataset,
    train: list[int],
    held: list[int],
    refiner: Refiner,
    seed: int,
) -> None:
    """Train from the SFT critic, choose the checkpoint on the held-out rows, write the outputs."""
    base, style = stage.dep("critic-sft"), models.dialogue
    processor = load_processor(base, max_image_pixels=models.max_image_pixels)
    model = load_model(base, dtype=options.weights_dtype)
    chosen = rows.select(train)
    longest = preflight.check_samples(
        model,
        processor,
        with_conversations(chosen, lambda row: critic_data.to_conversation(row, style)),  # type: ignore[arg-type]
        text_lengths(chosen, lambda _: 2, ("before", "after")),
        what="the critic's RL data",
        images_needed=True,
    )
    said = f"{len(train)} prompts × {options.group_size}, longest {longest.tokens} tokens"
    stage.log(f"critic: {said}")
    reward = CriticReward(refiner, options)
    cases = {row["id"]: case_from(row, seed) for row in plain_rows(rows, train)}
    advantages: list[float] = []

    def keep(values: list[float]) -> None:
        advantages[:] = values

    def total(
        prompts: list[Any],
        completions: list[Any],
        id: list[str],
        log_metric: LogMetric | None = None,
        **_: Any,
    ) -> list[float | None]:
        texts = [turns[0]["content"] for turns in completions]
        return reward(texts, [cases[name] for name in id], log_metric)

    trainer = PartwiseGRPOTrainer(
        parts=options.parts,
        on_rollouts=lambda names, texts: reward.begin(texts, [cases[name] for name in names]),
        on_advantages=keep,
        model=model,
        reward_funcs=total,
        args=grpo_config(options, models, stage, seed, image_tokens(model)),
        train_dataset=with_conversations(chosen, lambda row: rollout(row, style)),
        processing_class=processor,
        peft_config=sft.lora(options),
    )
    trainer.add_callback(
        preflight.TryLongest(longest, options.micro_batch_size, options.max_new_tokens)
    )
    chat = ChatModel(
        trainer.model,  # type: ignore[arg-type]
        processor,
        batch_size=max(16, options.micro_batch_size),
        max_new_tokens=options.max_new_tokens,
    )
    kept = plain_rows(rows, held)
    validation = Validation(stage, chat, reward, kept, style=style, seed=seed)

    def evaluate(step: int) -> Metrics:
        write_rollouts(stage, step, reward, advantages)
        return validation(step)

    watch = Watch(
        stage,
        evaluate=evaluate,
        select="reward",
        evaluations=options.evaluations,
        save=lambda folder: sft.save(trainer, processor, folder),
        at_start=True,
        patience=options.patience,
    )
    if options.readiness.act != "off" and last_checkpoint(stage.work) is None:
        _demand_readiness(validation.readiness(seed), options, stage)
    sft.train(trainer, watch, stage)
    failed = sum(entry.get("reward/failed_calls", 0.0) for entry in watch.training)
    further: Metrics = {"training_failed_calls": failed}
    sft.finish(watch, stage, base, "critic-rl", models, options, further)


def _demand_readiness(figures: Metrics, options: GrpoSettings, stage: StageRun) -> None:
    if ranks.rank() == 0:
        stage.metrics({f"readiness/{name}": value for name, value in figures.items()}, step=0)
    found = readiness.problems(figures, options.readiness)
    if found and options.readiness.act == "refuse":
        raise InterloomError(
            f"grpo-critic: RL cannot gain from this critic: {'; '.join(found)} "
            "(grpo_critic.readiness.act = warn starts it all the same)"
        )
    for problem in found:
        stage.log(f"warning: {problem}")


def rollout(row: Row, style: dialogue.Style) -> dict[str, Any]:
    """What TRL needs of a row: the prompt, its images, and the id by which the reward finds it."""
    conversation = critic_data.to_conversation(row, style)
    return {"prompt": conversation["prompt"], "images": conversation["images"], "id": row["id"]}


class Validation:
    """Held-out evaluation of the policy: greedy answers, executed and judged.

    ``reward`` is the training reward of the greedy answers; ``fix`` the share of faulty steps
    judged false *and* repaired by one refinement. A table of the answers with their pictures
    becomes an artifact.
    """

    def __init__(
        self,
        stage: StageRun,
        chat: ChatModel,
        reward: CriticReward,
        rows: list[Row],
        *,
        style: dialogue.Style,
        seed: int,
    ) -> None:
        self.stage = stage
        self.chat = chat
        self.reward = reward
        self.cases = [case_from(row, seed) for row in rows]
        self.conversations = [dialogue.critic_messages(case_of(row), style) for row in rows]

    def __call__(self, step: int) -> Metrics:
        answers = sft.in_evaluation_mode(self.chat, self.conversations)
        after = together.on_first(lambda: self.reward.execute(answers, self.cases))
        truths = [case.success for case in self.cases]
        rewards = self.reward.compose(answers, self.cases, after)
        known = [total for total in rewards.total if total is not None]
        if not known:
            raise InterloomError("grpo-critic: generator or judge failed on every held-out sample")
        figures = {"reward": mean(known), **critic_figures(answers, truths)}
        fixes = fix_hits(answers, self.cases, after)
        if fixes:
            figures["fix"] = mean(fixes)
        figures["failed_calls"] = float(len(rewards.total) - len(known))
        self._table(step, answers, after, rewards.total)
        return figures

    def readiness(self, seed: int) -> Metrics:
        """What sampling could gain over greedy answers, on some of the held-out rows."""
        options = self.reward.settings
        # Faulty cases tell more: they are taken first, up to half.
        places = sorted(range(len(self.cases)), key=lambda i: self.cases[i].success)
        half = options.readiness.cases // 2
        chosen = places[:half] + places[::-1][: options.readiness.cases - half]
        chosen = sorted(set(chosen))
        return readiness.measure(
            self.chat,
            [self.conversations[i] for i in chosen],
            [self.cases[i] for i in chosen],
            self.reward,
            options,
            seed,
        )

    def _table(
        self, step: int, answers: list[str], after: list[After], totals: list[float | None]
    ) -> None:
        columns = (self.cases, answers, after, totals)
        samples = [
            Sample(case.before, case.after, case.prompt, case.success, answer, result, total)
            for case, answer, result, total in zip(*columns, strict=True)
        ]
        title = f"Held-out critiques after {step} steps"
        _show(self.stage, f"samples-{step:05d}.html", title, samples[:TABLE])


def write_rollouts(
    stage: StageRun, step: int, reward: CriticReward, advantages: list[float]
) -> None:
    """A table of whole groups of the last step, with rewards and advantages, as an artifact."""
    if not reward.last or len(advantages) != len(reward.last):
        return
    size = reward.settings.group_size
    count = max(1, TABLE // size) * size
    samples = [
        Sample(
            made.case.before,
            made.case.after,
            made.case.prompt,
            made.case.success,
            made.completion,
            made.after,
            made.total,
            advantage,
        )
        for made, advantage in zip(reward.last[:count], advantages[:count], strict=True)
    ]
    _show(stage, f"rollouts-{step:05d}.html", f"Rollouts of step {step}, by group", samples)


def _show(stage: StageRun, name: str, title: str, samples: list[Sample]) -> None:
    if ranks.rank() == 0:
        write_samples(stage.work / name, title, samples)
        stage.artifact(stage.work / name, "samples")


def grpo_config(
    options: GrpoSettings,
    models: ModelsSettings,
    stage: StageRun,
    seed: int,
    suppressed: list[int],
) -> GRPOConfig:
    """TRL's settings from ours."""
    completions = options.batch_size * options.group_size
    return GRPOConfig(
        **sft.trainer_arguments(options, models, stage.work, seed),
        per_device_train_batch_size=options.micro_batch_size,
        gradient_accumulation_steps=sft.accumulation(
            "grpo_critic.batch_size × group_size", completions, options.micro_batch_size
        ),
        num_train_epochs=options.epochs,
        max_steps=options.max_steps or -1,
        num_generations=options.group_size,
        max_completion_length=options.max_new_tokens,
        temperature=options.temperature,
        top_k=0,
        top_p=1.0,
        beta=options.kl_coefficient,
        loss_type=options.loss_type,
        scale_rewards=options.scale_rewards,
        epsilon_high=0.28 if options.loss_type == "dapo" else None,
        mask_truncated_completions=True,
        use_vllm=options.use_vllm,
        # Told by the executor if the rollouts are written on servers of their own.
        vllm_mode="server" if ROLLOUTS_VARIABLE in os.environ else "colocate",
        vllm_server_base_url=os.environ.get(ROLLOUTS_VARIABLE),
        # A sampled image token would break the next forward pass; TRL suppresses one of the four.
        generation_kwargs=(
            {"logit_bias": dict.fromkeys(suppressed, -100.0)}
            if options.use_vllm
            else {"suppress_tokens": suppressed}
        ),
        remove_unused_columns=False,
        logging_steps=1,
    )
