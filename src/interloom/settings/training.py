"""Sections of the trainings: SFT and GRPO, of both systems."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from interloom.params import Section
from interloom.settings.fields import Count, Fraction, GeneratorName, Rate


class TrainerSettings(Section):
    """What SFT and GRPO have in common."""

    learning_rate: Rate
    schedule: Literal["constant_with_warmup", "cosine", "linear"]
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0, le=1)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    micro_batch_size: Count
    """Samples per forward pass and device; the rest of a batch is accumulated."""
    gradient_checkpointing: bool
    weights_dtype: Literal["float32", "bfloat16"]
    """Number type of the stored weights while they are trained. A bfloat16 weight does not see
    steps under about 1/256 of itself, which at the papers' learning rates is most of them; with
    LoRA it is the frozen base that is stored so."""
    lora_rank: Annotated[int, Field(ge=0, le=1024)]
    """0 trains all weights."""
    max_new_tokens: Annotated[int, Field(ge=8, le=16384)]
    """Longest answer in rollouts and held-out evaluation."""
    held_out: Annotated[int, Field(ge=1)]
    """Samples at most that are kept from training to choose the checkpoint by."""
    evaluations: Count
    """Held-out evaluations, and so checkpoints, during the training."""
    patience: Annotated[int, Field(ge=0)]
    """End after so many evaluations without a new best; 0 never does."""
    threads: Annotated[int, Field(ge=0, le=1024)]
    """CPU threads; 0 leaves the choice to torch."""


class SftSettings(TrainerSettings):
    """Supervised fine-tuning of one agent."""

    epochs: Annotated[float, Field(gt=0, le=1000)]
    batch_size: Count
    """Samples per optimiser step, over all devices."""


class AdaptiveSftSettings(SftSettings):
    """Supervised fine-tuning of the unified model on stories."""

    masking: Literal["selective", "full"]
    """``full`` learns failed pictures too: what selective masking is compared with."""
    modes: Annotated[
        list[Literal["direct", "reflection", "multi_step"]], Field(min_length=1, max_length=3)
    ]
    """Stories of these modes are learned; fewer are ablations. Held-out requests are of all."""
    reviews: str
    """File of decisions by `interloom review`: only what two people accepted, and nobody rejected,
    is used. Empty: everything is. The stage looks at the name alone."""
    feedback: str
    """File of `interloom feedback export --system adaptive`, whose stories are learned too; empty
    for none. The stage looks at the name alone."""


class PlannerSftSettings(SftSettings):
    """Supervised fine-tuning of the planner."""

    with_critic_rows: Annotated[int, Field(ge=0, le=1000)]
    """How often the critic's rows stand among the samples: 0 makes a planner, more the ablation in
    which one agent does both jobs (system ``one-agent``)."""


class ReadinessSettings(Section):
    """When RL may begin (``train/readiness.py``)."""

    act: Literal["refuse", "warn", "off"]
    """What to do about a policy that RL cannot improve."""
    cases: Annotated[int, Field(ge=4)]
    """Held-out cases that are sampled for it."""
    min_accuracy: Fraction
    min_format: Fraction
    min_headroom: Fraction
    """How many more faulty cases sampling has to repair than greedy answers do, as a share."""
    max_zero_variance: Fraction


class RlSettings(TrainerSettings):
    """What GRPO of the critic and of the unified model have in common."""

    epochs: Annotated[float, Field(gt=0, le=1000)]
    max_steps: Annotated[int, Field(ge=0)]
    """Optimiser steps at most; 0 goes through the data ``epochs`` times."""
    batch_size: Count
    """Prompts or requests per optimiser step, over all devices."""
    group_size: Annotated[int, Field(ge=2, le=256)]
    """N rollouts of each."""
    temperature: Annotated[float, Field(gt=0, le=5)]
    """Of words."""
    kl_coefficient: Annotated[float, Field(ge=0, le=10)]
    """β of the k3 estimate of KL(policy ‖ SFT model); 0 keeps no reference model."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"]
    scale_rewards: Literal["group", "batch", "none"]
    format_weight: Fraction
    reward_retries: Annotated[int, Field(ge=0, le=20)]
    """Repeats of a failed call of who executes or judges, before its rollout is left out."""


class GrpoSettings(RlSettings):
    """GRPO of the critic with the dual reward."""

    formula: Literal["released", "paper"]
    """Reward composition (``train/rewards.py``)."""
    alpha: Fraction
    """Weight of the accuracy reward against the step-wise reward."""
    semantic_share: Fraction
    """Share of the semantic score in the released step reward; the rest is quality."""
    generator: GeneratorName
    """Which of the profile's generators executes the refined prompts."""
    parts: Count
    """Parts in which a step's rollouts are written: generator and judge work on one while the
    policy writes the next. 1 for a generator on the policy's own device."""
    use_vllm: bool
    readiness: ReadinessSettings


class AdaptiveGrpoSettings(RlSettings):
    """GRPO of the unified model (``adaptive/rewards.py``)."""

    picture_temperature: Annotated[float, Field(ge=0, le=5)]
    picture_top_k: Annotated[int, Field(ge=0)]
    composition: Literal["paper", "released"]
    bonus: Literal["paper", "gated", "none"]
    """Complexity bonus N*/N_i: as in the paper, to successes only, or to nobody."""
    epsilon: Fraction
    """How far below the best of its group a trajectory still competes."""
    outcome_weight: Fraction
    step_weight: Fraction
