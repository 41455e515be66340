"""Stage ``grpo-critic``: single-step RL of the critic with the dual reward (InterleaveThinker
§3.4).

For each recorded ``(I_{i-1}, I_i^t, p_i, r_i^t)`` the policy answers N times. The refined prompts
of a whole step are executed by the frozen generator and scored by the judge in one batch; where
the truth is "success" no image is made. Formulas: ``rewards.py``. Group advantages, the clipped
objective and the k3 estimate of the KL divergence from the SFT model are TRL's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from interloom import cast, dialogue
from interloom.backends.transformers import ChatModel, image_tokens, load_model, load_processor
from interloom.construct import critic_data
from interloom.errors import InterloomError
from interloom.records import Failure, Score
from interloom.runner import StageRun
from interloom.seeding import derive_seed
from interloom.settings import GrpoSettings, ModelsSettings, Settings
from interloom.train import preflight, sft
from interloom.train.data import (
    Row,
    load_rows,
    plain_rows,
    split_held_out,
    with_conversations,
)
from interloom.train.measure import critic_figures, repaired
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
from interloom.train.samples import Sample, write_samples
from interloom.train.sft_critic import case_of, request_of
from interloom.train.watch import Metrics, Watch

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

    def execute(self, completions: Sequence[str], cases: Sequence[Case]) -> list[After]:
        """Scores of the images that the refined prompts give, in one batch."""
        answers = [read_answer(completion) for completion in completions]
        wanted = [i for i, case in enumerate(cases) if not case.success and answers[i] is not None]
        refinements = []
        for i in wanted:
            case, answer = cases[i], answers[i]
            assert answer is not None
            # An empty refined prompt means: the same again.
            refined = answer.refine_prompt.strip() or case.used_prompt
            refinements.append(Refinement(case.before, case.prompt, refined, case.seed))
        after: list[After] = ["no image" if case.success else "unreadable" for case in cases]
        for i, result in zip(wanted, self.refiner.execute(refinements), strict=True):
            after[i] = result.score if isinstance(result, Executed) else result
        return after

    def __call__(
        self, completions: Sequence[str], cases: Sequence[Case], log_metric: LogMetric | None = None
    ) -> list[float | None]:
        """One total per completion, ``None`` where a generator or judge call failed for good."""
        started = time.monotonic()
        made = self.refiner.images_made
        after = self.execute(completions, cases)
        truths = [case.success for case in cases]
        rewards = critic_rewards(
            completions,
            truths,
            [case.score for case in cases],
            after,
            formula=self.settings.formula,
            weights=self.weights,
        )
        if log_metric is not None:
            log_metric("reward/wait_seconds", time.monotonic() - started)
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
    figures: Metrics = {
        "reward/format": _mean(rewards.format),
        "reward/accuracy": _mean(rewards.accuracy),
        "reward/failed_calls": float(sum(isinstance(result, Failure) for result in after)),
        "reward/zero_variance": zero_variance_share(rewards.total, group_size),
    }
    faulty = [i for i, case in enumerate(cases) if not case.success]
    for name, values in (("semantic", rewards.semantic), ("quality", rewards.quality)):
        known = [value for i in faulty if (value := values[i]) is not None]
        if known:
            figures[f"reward/{name}_step"] = _mean(known)
    if faulty:
        figures["reward/repaired"] = _mean([repaired(after[i]) for i in faulty])
    for name, count in confusion(completions, [case.success for case in cases]).items():
        figures[f"judgment/{name}"] = count / len(cases)
    return figures


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    options, models = settings.grpo_critic, settings.models
    preflight.check_group(options.group_size, options.batch_size, options.micro_batch_size)
    sft.prepare(options.threads, settings.seed)
    rows = load_rows(stage.dep("critic-data") / "rl.parquet", stage.work / "rows")
    keys = [request_of({"step_id": step_id}) for step_id in rows["step_id"]]
    train, held = split_held_out(keys, options.held_out)
    if len(train) < options.batch_size or not held:
        raise InterloomError(
            f"grpo-critic: {len(train)} training and {len(held)} held-out rows; one step takes "
            f"{options.batch_size} prompts (grpo_critic.batch_size): make more RL data"
        )
    remotes = cast.remotes(settings.remote, stage)
    refiner = Refiner(
        cast.generator(models.generator_named(options.generator), remotes),
        cast.judge(settings.teacher, remotes),
        retries=options.reward_retries,
    )
    fit(
        options,
        models,
        stage,
        rows=rows,
        train=train,
        held=held,
        refiner=refiner,
        seed=settings.seed,
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
    model = load_model(base, dtype=models.vlm_dtype)
    samples = with_conversations(
        rows.select(train), lambda row: critic_data.to_conversation(row, style)
    )
    tokens = preflight.check_samples(
        model,
        processor,
        samples,  # type: ignore[arg-type]
        what="the critic's RL data",
        images_needed=True,
    )
    stage.log(f"critic: {len(train)} prompts × {options.group_size}, longest {tokens} tokens")
    reward = CriticReward(refiner, options)
    cases = {row["id"]: case_from(row, seed) for row in plain_rows(rows, train)}

    def total(
        prompts: list[Any],
        completions: list[Any],
        id: list[str],
        log_metric: LogMetric | None = None,
        **_: Any,
    ) -> list[float | None]:
        texts = [turns[0]["content"] for turns in completions]
        return reward(texts, [cases[name] for name in id], log_metric)

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=total,
        args=grpo_config(options, models, stage, seed, image_tokens(model)),
        train_dataset=with_conversations(rows.select(train), lambda row: rollout(row, style)),
        processing_class=processor,
        peft_config=sft.lora(options),
    )
    chat = ChatModel(
        trainer.model,  # type: ignore[arg-type]
        processor,
        batch_size=max(16, options.micro_batch_size),
        max_new_tokens=options.max_new_tokens,
    )
    kept = plain_rows(rows, held)
    validation = Validation(stage, chat, reward, kept, style=style, seed=seed)
    watch = Watch(
        stage,
        evaluate=validation,
        select="reward",
        evaluations=options.evaluations,
        save=lambda folder: sft.save(trainer, processor, folder),
        at_start=True,
        patience=options.patience,
    )
    sft.train(trainer, watch, stage)
    sft.export(
        stage.work / "best", base, stage.out("critic-rl"), models, merge=options.lora_rank > 0
    )
    sft.finish(watch, stage)


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
        after = self.reward.execute(answers, self.cases)
        truths = [case.success for case in self.cases]
        rewards = critic_rewards(
            answers,
            truths,
            [case.score for case in self.cases],
            after,
            formula=self.reward.settings.formula,
            weights=self.reward.weights,
        )
        known = [total for total in rewards.total if total is not None]
        if not known:
            raise InterloomError("grpo-critic: generator or judge failed on every held-out sample")
        figures = {"reward": _mean(known), **critic_figures(answers, truths)}
        fixes = fix_hits(answers, self.cases, after)
        if fixes:
            figures["fix"] = _mean(fixes)
        figures["failed_calls"] = float(len(rewards.total) - len(known))
        self._table(step, answers, after)
        return figures

    def _table(self, step: int, answers: list[str], after: list[After]) -> None:
        samples = [
            Sample(case.before, case.after, case.prompt, case.success, answer, result)
            for case, answer, result in zip(self.cases, answers, after, strict=True)
        ]
        path = self.stage.work / f"samples-{step:05d}.html"
        write_samples(path, f"Held-out critiques after {step} steps", samples[:24])
        self.stage.artifact(path, "samples")


def fix_hits(answers: Sequence[str], cases: Sequence[Case], after: Sequence[After]) -> list[float]:
    """Per faulty case 1 if it was judged false and repaired, else 0; failed calls are left out."""
    hits: list[float] = []
    for answer, case, result in zip(answers, cases, after, strict=True):
        if case.success or isinstance(result, Failure):
            continue
        said = read_answer(answer)
        hits.append(float(said is not None and not said.success and repaired(result) > 0))
    return hits


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
        # A sampled image token would break the next forward pass; TRL suppresses one of the four.
        generation_kwargs=None if options.use_vllm else {"suppress_tokens": suppressed},
        remove_unused_columns=False,
        logging_steps=1,
    )
