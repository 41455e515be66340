"""The params file as typed values: one section per stage, nothing unknown, nothing defaulted.

Every field stands in the params file, because DVC sees the file and not the defaults of a class:
a default that changed in code would leave stale outputs behind. To add a setting, add the field to
its section here and the value to ``params.yaml`` and to every file in ``profiles/``.

A section is called as its stage with underscores, except where pydantic owns the name:
``validate`` reads ``validation`` and ``register`` reads ``registration``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from interloom.cluster.settings import ClusterSettings
from interloom.errors import InterloomError
from interloom.params import Section, explain, read_params

System = Literal["agents", "adaptive"]
"""The two systems: planner and critic around a generator, and the unified model."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Score10 = Annotated[float, Field(ge=0, le=10)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=1)]


class GeneratorSettings(Section):
    """One frozen image generator and how it is called."""

    backend: Literal["diffusers", "http", "gemini", "openai"]
    model: str
    """Folder, hub name or remote model name."""
    image_size: Annotated[int, Field(ge=32, le=4096, multiple_of=8)]
    steps: Annotated[int, Field(ge=1, le=200)]
    guidance: Annotated[float, Field(ge=0, le=30)]
    batch_size: Count
    dtype: Literal["float32", "bfloat16", "float16"]
    call: dict[str, int | float | bool | str | tuple[int, ...]]
    """Further arguments of the call: of the pipeline, the HTTP request or Gemini's image config."""


GeneratorName = Literal["generator", "generator_weak"]


class ModelsSettings(Section):
    """The models that the profile names."""

    generator: GeneratorSettings
    generator_weak: GeneratorSettings
    """Of another strength, so that the critic does not learn that everything succeeds."""
    vlm: str
    """Base of Planner and Critic: folder or hub name."""
    vlm_dtype: Literal["float32", "bfloat16", "float16"]
    dialogue: Literal["short", "full"]
    """Which instructions the agents are given: short ones for tiny models, or the papers'."""
    max_image_pixels: Annotated[int, Field(ge=1024)]
    """Images above this many pixels are scaled down before a VLM sees them."""

    def generator_named(self, name: GeneratorName) -> GeneratorSettings:
        """The generator that another section chose by its name here."""
        return self.generator if name == "generator" else self.generator_weak


class PocketTeacherSettings(Section):
    """How the pocket world's exact teacher falls short of perfection, as a real one does."""

    wrong_judgments: Fraction
    """Share of judgments that are turned round."""
    corrections: dict[str, Annotated[float, Field(ge=0)]]
    """Ways of putting a correction (``pocket.language.CORRECTION_STYLES``) and their weights."""
    paraphrased_prompts: Fraction
    """Share of planned edits that are worded as people do, which generators follow less well."""


class TeacherSettings(Section):
    """Who plays Planner and Critic for the data, and who scores (rewards and data)."""

    backend: Literal["pocket", "gemini", "openai"]
    model: str
    judge_backend: Literal["pocket", "gemini", "openai"]
    judge_model: str
    retries: Annotated[int, Field(ge=0, le=20)]
    """Repeats of a failed call of a local model; remote ones repeat by ``remote.*.tries``."""
    temperature: Annotated[float, Field(ge=0, le=2)]
    """Of remote models."""
    max_output_tokens: Annotated[int, Field(ge=64)]
    """Longest answer of remote models, their thinking included."""
    pocket: PocketTeacherSettings


class PriceSettings(Section):
    """What a remote model costs, in US dollars."""

    input: Annotated[float, Field(ge=0)]
    """Per million tokens that it reads."""
    output: Annotated[float, Field(ge=0)]
    """Per million tokens that it writes, thinking included."""
    image: Annotated[float, Field(ge=0)]
    """Per picture that it makes, where pictures are not paid by their tokens."""


class RemoteSettings(Section):
    """How one kind of remote backend is reached, and what it may cost."""

    base_urls: tuple[str, ...]
    """Servers that answer alike and take turns; none means the provider's own."""
    api_key_env: tuple[str, ...]
    """Environment variables with API keys that take turns; none sends no key."""
    concurrency: Count
    """Calls in flight, over all servers and keys."""
    requests_per_minute: Annotated[float, Field(ge=0)]
    """Per server and key; 0 sets no limit."""
    timeout_seconds: Annotated[float, Field(gt=0)]
    """Of one call, from sending to the end of the answer."""
    tries: Annotated[int, Field(ge=1, le=100)]
    """Of one call, before it counts as failed: overload, timeouts, unreadable answers."""
    max_wait_seconds: Annotated[float, Field(gt=0)]
    """Longest back-off between tries. A server that asks for more ends the run."""
    budget_usd: Annotated[float, Field(ge=0)]
    """What this project may spend on this backend altogether; see ``interloom cost``."""
    prices: dict[str, PriceSettings]
    """By model; a model without a price is refused."""


class RemotesSettings(Section):
    """How calls to remote backends travel and what they may cost, never what is asked.

    So no stage's outputs depend on it, and raising a budget makes nothing stale.
    """

    gemini: RemoteSettings
    openai: RemoteSettings
    http: RemoteSettings

    def named(self, name: Literal["gemini", "openai", "http"]) -> RemoteSettings:
        """The settings of one backend."""
        return {"gemini": self.gemini, "openai": self.openai, "http": self.http}[name]


class PromptsSettings(Section):
    """How many requests are written, and from what."""

    edition: Literal["pocket", "taxonomy"]
    """Requests that the pocket world can draw, or the paper's full taxonomy."""
    count: Count
    expand: Annotated[int, Field(ge=0, le=200)]
    """Entries that the teacher adds to each vocabulary bank of the taxonomy."""
    pictures: str
    """Folder of pictures that requests of the taxonomy come with; empty for text only. Stages look
    at its name alone: pictures that changed need a folder of another name."""
    picture_share: Annotated[float, Field(ge=0, le=0.5)]
    """Share of the taxonomy's requests that come with pictures, if there are any."""


class TrajectoriesSettings(Section):
    """The closed loop that makes the raw data."""

    max_attempts: Annotated[int, Field(ge=1, le=20)]
    """T_max of the paper."""
    batch_size: Count
    """Requests in flight, and so the most images per generator call. Where one role is remote and
    another one local, two loops of this size take turns."""
    shard_rows: Count
    weak_share: Fraction
    """Share of the requests that the weak generator carries out."""
    threads: Annotated[int, Field(ge=0, le=1024)]
    """CPU threads; 0 leaves the choice to torch, and pictures then differ between machines."""
    runner: Annotated[str, Field(pattern=r"^(local|dask:[1-9]\d*|(tcp|tls)://\S+)$")]
    """``local``: in the stage's own process. ``dask:N``: shard by shard as Prefect tasks on N Dask
    workers of this machine; ``tcp://HOST:PORT``: on those of a Dask scheduler."""
    shown: Annotated[int, Field(ge=0, le=1000)]
    """Trajectories of all categories and outcomes that MLflow shows, as a page and as traces."""


class CriticDataSettings(Section):
    """Filtering, SFT/RL split by score variance, and balancing of judgments."""

    sft_rl_ratio: Annotated[float, Field(gt=0, le=100)]
    filter: bool
    """Drop steps that fall, degrade, stay low or stand still; off for the "unfiltered" ablation."""
    balance: bool
    """Resample true and false judgments; off for the "unbalanced" ablation."""
    low: Score10
    """A step that never scores above this is persistently low."""
    high: Score10
    """A step that never scores below this is stable."""
    tolerance: Score10
    """A change of score up to this is no change."""
    majority: Annotated[float, Field(ge=0.5, lt=1)]
    """Largest share of either judgment after balancing."""
    feedback: str
    """File of `interloom feedback export`; empty for none. The stage looks at its name alone, which
    is made of what is in the file."""


class PlannerDataSettings(Section):
    """Self-synthesised planner data: plans truncated at a random step."""

    samples_per_trajectory: Count
    interleaved: str
    """File of an open data set in CoMM's form, its pictures in ``images`` beside it; empty for
    none. The stage looks at its name alone: what changed needs another name."""


class ValidationSettings(Section):
    """What the gate allows."""

    min_positive_judgments: Fraction
    max_positive_judgments: Fraction
    ratio_tolerance: Fraction
    """How far the SFT:RL ratio may be from the wanted one, relative."""


class UnifiedSettings(Section):
    """The unified model of the adaptive system, and how it is called."""

    model: str
    """Folder or hub name of an Emu3."""
    dtype: Literal["float32", "bfloat16", "float16"]
    image_pixels: Annotated[int, Field(ge=0, le=4096)]
    """Side of the pictures that it gives to others; 0 leaves them as the model makes them."""
    grid_side: Annotated[int, Field(ge=1, le=128)]
    """Side of the pictures that it makes, in tokens."""
    batch_size: Count
    """Streams that it writes at a time."""


class ThresholdsSettings(Section):
    """Least score per axis, 1 to 5, with which a picture is accepted."""

    instruction: Annotated[int, Field(ge=1, le=5)]
    consistency: Annotated[int, Field(ge=1, le=5)]
    quality: Annotated[int, Field(ge=1, le=5)]
    knowledge: Annotated[int, Field(ge=1, le=5)]


class MixSettings(Section):
    """Shares of the modes among the stories, relative to each other; 0 leaves a mode out."""

    direct: Annotated[float, Field(ge=0)]
    reflection: Annotated[float, Field(ge=0)]
    multi_step: Annotated[float, Field(ge=0)]


class AdaptiveDataSettings(Section):
    """Hierarchical escalation: requests to stories of three modes."""

    requests: str
    """``pocket``, or a JSONL file with ``instruction`` and ``images``, of which the stage looks at
    the name alone."""
    count: Count
    """Requests of the pocket world that are to become stories; a file is used up."""
    rl_count: Count
    """Further requests, which are kept for RL; the last ones of a file."""
    in_flight: Count
    """Requests that are carried out together."""
    analyzer_backend: Literal["pocket", "gemini", "openai"]
    analyzer_model: str
    """Temperature and limits of a remote one are those of ``teacher``."""
    generator: GeneratorName
    """Which of the profile's generators mends pictures and carries out sub-steps."""
    show_references: bool
    """Whether it sees all of a request's pictures, or only the one that it edits."""
    temperature: Annotated[float, Field(ge=0, le=5)]
    """Of the visual tokens of first tries."""
    top_k: Annotated[int, Field(ge=0)]
    accepted: ThresholdsSettings
    step_accepted: ThresholdsSettings
    rounds: Annotated[int, Field(ge=0, le=3)]
    step_tries: Annotated[int, Field(ge=1, le=20)]
    retries: Annotated[int, Field(ge=0, le=20)]
    """Repeats of a failed call before its request is discarded."""
    mix: MixSettings
    threads: Annotated[int, Field(ge=0, le=1024)]
    """CPU threads; 0 leaves the choice to torch."""


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


class GrpoSettings(TrainerSettings):
    """GRPO of the critic with the dual reward."""

    epochs: Annotated[float, Field(gt=0, le=1000)]
    max_steps: Annotated[int, Field(ge=0)]
    """Optimiser steps at most; 0 goes through the data ``epochs`` times."""
    batch_size: Count
    """Prompts per optimiser step, over all devices."""
    group_size: Annotated[int, Field(ge=2, le=256)]
    """N rollouts per prompt."""
    temperature: Annotated[float, Field(gt=0, le=5)]
    kl_coefficient: Annotated[float, Field(ge=0, le=10)]
    """β of the k3 estimate of KL(policy ‖ SFT model); 0 keeps no reference model."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"]
    scale_rewards: Literal["group", "batch", "none"]
    formula: Literal["released", "paper"]
    """Reward composition (``train/rewards.py``)."""
    format_weight: Fraction
    alpha: Fraction
    """Weight of the accuracy reward against the step-wise reward."""
    semantic_share: Fraction
    """Share of the semantic score in the released step reward; the rest is quality."""
    generator: GeneratorName
    """Which of the profile's generators executes the refined prompts."""
    reward_retries: Annotated[int, Field(ge=0, le=20)]
    """Repeats of a failed generator or judge call before its completion is left out."""
    parts: Count
    """Parts in which a step's rollouts are written: generator and judge work on one while the
    policy writes the next. 1 for a generator on the policy's own device."""
    use_vllm: bool
    readiness: ReadinessSettings


class AdaptiveGrpoSettings(TrainerSettings):
    """GRPO of the unified model (``adaptive/rewards.py``)."""

    epochs: Annotated[float, Field(gt=0, le=1000)]
    max_steps: Annotated[int, Field(ge=0)]
    """Optimiser steps at most; 0 goes through the data ``epochs`` times."""
    batch_size: Count
    """Requests per optimiser step, over all devices."""
    group_size: Annotated[int, Field(ge=2, le=256)]
    """Trajectories per request."""
    temperature: Annotated[float, Field(gt=0, le=5)]
    """Of words."""
    picture_temperature: Annotated[float, Field(ge=0, le=5)]
    picture_top_k: Annotated[int, Field(ge=0)]
    kl_coefficient: Annotated[float, Field(ge=0, le=10)]
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"]
    scale_rewards: Literal["group", "batch", "none"]
    composition: Literal["paper", "released"]
    bonus: Literal["paper", "gated", "none"]
    """Complexity bonus N*/N_i: as in the paper, to successes only, or to nobody."""
    epsilon: Fraction
    """How far below the best of its group a trajectory still competes."""
    outcome_weight: Fraction
    format_weight: Fraction
    step_weight: Fraction
    reward_retries: Annotated[int, Field(ge=0, le=20)]
    """Repeats of a failed analyzer call before its trajectory is left out."""


SystemName = Literal[
    "generator", "zero-shot", "planner-sft", "one-agent", "full-sft", "full-rl", "oracle"
]
"""The systems that are compared (``benchmarks/parts.py``)."""
BenchmarkName = Literal["ueval", "comm", "wise", "rise", "geneval", "kris", "omnicontext"]
SystemKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
AgentName = Annotated[
    str,
    Field(pattern=r"^(none|vlm|planner-sft|critic-sft|critic-rl|teacher|(gemini|openai):\S+)$"),
]
"""``none``, a model of this project, ``teacher`` (of the ``teacher`` section, without its
imperfections), or ``BACKEND:MODEL`` for a remote one."""


class AgentsSettings(Section):
    """A system of one's own: who plans, who draws, who criticises."""

    planner: AgentName
    critic: AgentName
    generator: GeneratorName | GeneratorSettings
    max_attempts: Annotated[int, Field(ge=1, le=20)]


class RegisteredSettings(Section):
    """A system out of the model registry."""

    registered: Annotated[str, Field(pattern=r"^models:/[^/@]+(@[^/@]+|/\d+)$")]
    """An alias is looked up when the stage runs; a version always means the same."""


class UnifiedSystemSettings(Section):
    """A unified model as a system: it draws, judges itself and goes on by itself."""

    model: Literal["umm", "adaptive-sft", "adaptive-rl"]
    """The base model, which draws once and says nothing; or the one after SFT, or after GRPO."""
    images: Annotated[int, Field(ge=0, le=64)]
    """Pictures that a request may take; 0 leaves that to the model."""
    reluctance: Annotated[float, Field(ge=0, le=100)]
    """Nats by which going on after an evaluation is made less likely."""


class AskedSettings(Section):
    """Which items of which benchmarks systems are asked."""

    benchmarks: Annotated[list[BenchmarkName], Field(min_length=1)]
    data: dict[BenchmarkName, str]
    """Copies of the real benchmarks in their published layout: a file, a folder, or
    ``hub:OWNER/NAME``. Those not named here are pocket editions. The stage looks at the name alone:
    what changed needs another name."""
    items: Annotated[int, Field(ge=8)]
    """Items per benchmark at most; spread evenly over its tasks."""
    threads: Annotated[int, Field(ge=0, le=1024)]
    """CPU threads; 0 leaves the choice to torch."""


class EvaluateSettings(AskedSettings):
    """Which systems of planner and critic on which benchmarks."""

    more_systems: dict[SystemKey, AgentsSettings | RegisteredSettings]
    """Systems beside the project's own ones."""
    systems: Annotated[list[SystemKey], Field(min_length=1)]
    """In this order; differences between neighbours are reported."""
    generator: GeneratorName
    """Which of the profile's generators the project's systems share, and the registered pipeline
    uses."""
    max_attempts: Annotated[int, Field(ge=1, le=20)]
    """T_max of the paper."""
    answer_retries: Annotated[int, Field(ge=0, le=20)]
    """Further samples of an agent's answer that cannot be read."""
    planner_max_new_tokens: Annotated[int, Field(ge=8, le=16384)]
    critic_max_new_tokens: Annotated[int, Field(ge=8, le=16384)]
    batch_size: Count
    """Conversations that planner or critic answer at a time."""

    @field_validator("systems")
    @classmethod
    def _known(cls, systems: list[str], info: ValidationInfo) -> list[str]:
        return _known_systems(systems, SystemName, info, "evaluate")

    @field_validator("more_systems")
    @classmethod
    def _new(cls, systems: dict[str, Any]) -> dict[str, Any]:
        return _new_systems(systems, SystemName)


def _known_systems(systems: list[str], own: Any, info: ValidationInfo, section: str) -> list[str]:
    known = [*get_args(own), *info.data.get("more_systems", {})]
    unknown = [name for name in systems if name not in known]
    if unknown:
        raise ValueError(
            f"no system {unknown[0]!r}; systems: {', '.join(known)} "
            f"({section}.more_systems adds others)"
        )
    return systems


def _new_systems(systems: dict[str, Any], own: Any) -> dict[str, Any]:
    for name in systems:
        if name in get_args(own):
            raise ValueError(f"{name!r} is one of the project's own systems: take another name")
    return systems


AdaptiveSystemName = Literal["adaptive-base", "adaptive-sft", "adaptive-rl"]
"""The adaptive systems that are compared (``adaptive/systems.py``)."""
ONE_PICTURE = ("wise", "rise", "geneval", "kris", "omnicontext")
"""Benchmarks that ask for one picture in the end; the others want sequences with texts."""


class AdaptiveEvaluateSettings(AskedSettings):
    """Which unified models on which benchmarks."""

    more_systems: dict[SystemKey, UnifiedSystemSettings]
    """Systems beside the project's own ones, such as those with a budget."""
    systems: Annotated[list[SystemKey], Field(min_length=1)]
    """In this order; differences between neighbours are reported."""
    max_new_tokens: Annotated[int, Field(ge=16, le=65536)]
    """Longest story."""

    @field_validator("benchmarks")
    @classmethod
    def _one_picture(cls, benchmarks: list[str]) -> list[str]:
        for name in benchmarks:
            if name not in ONE_PICTURE:
                raise ValueError(f"{name} asks for sequences; there are {', '.join(ONE_PICTURE)}")
        return benchmarks

    @field_validator("systems")
    @classmethod
    def _known(cls, systems: list[str], info: ValidationInfo) -> list[str]:
        return _known_systems(systems, AdaptiveSystemName, info, "evaluate_adaptive")

    @field_validator("more_systems")
    @classmethod
    def _new(cls, systems: dict[str, Any]) -> dict[str, Any]:
        return _new_systems(systems, AdaptiveSystemName)


class GradingSettings(Section):
    """Who grades the benchmarks."""

    backend: Literal["pocket", "gemini", "openai"]
    """``pocket``: the exact verifier, for pocket editions alone."""
    model: str
    allow_training_judge: bool
    """Whether the judge may be the one that scored the training data and gave the rewards; the
    report says so."""
    temperature: Annotated[float, Field(ge=0, le=2)]
    max_output_tokens: Annotated[int, Field(ge=64)]
    """Longest answer, thinking included."""
    wise_protocol: Literal["legacy", "verified"]
    """Of the real WISE; the pocket edition is legacy."""
    detector: str
    """Object detection model (folder or hub name) that grades the real GenEval; empty lets the
    judge do it."""
    colour_model: str
    """CLIP model that names the colours of what the detector finds."""


class ReportSettings(Section):
    """The report's pages."""

    gallery_items: Annotated[int, Field(ge=0, le=1000)]


class RegistrationSettings(Section):
    """Names in the model registry."""

    model_name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    """Of the composed pipeline."""
    planner_name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    critic_name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    adaptive_name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    """Of the unified model."""
    timed_requests: Count
    """Benchmark requests that the finished model answers one by one, for its latency."""

    def name_of(self, system: System) -> str:
        """The model of a system that is evaluated, promoted and served."""
        return self.model_name if system == "agents" else self.adaptive_name


class BenchmarkLimits(Section):
    """What a champion must reach on one benchmark; scores are 0–100."""

    floor: Annotated[float, Field(ge=0, le=100)]
    """Least overall score, whatever the champion has."""
    max_loss: Annotated[float, Field(ge=0, le=100)]
    """How far below the champion the interval of the paired difference may reach."""


class GateSettings(Section):
    """What a champion must reach, of one system."""

    benchmarks: Annotated[dict[BenchmarkName, BenchmarkLimits], Field(min_length=1)]
    """The benchmarks that both versions must have been evaluated on."""
    min_gain: Annotated[float, Field(ge=-100, le=100)]
    """Least lower end of the interval of the mean difference over these benchmarks."""
    max_unjudged: Fraction
    """Share of a benchmark's judge calls without an answer."""
    max_images_per_request: Annotated[float, Field(gt=0)]
    """Mean over all benchmarks' requests."""
    max_median_seconds: Annotated[float, Field(gt=0)]
    """Of one request at a time, on the machine that registered the version."""
    max_p95_seconds: Annotated[float, Field(gt=0)]


class PromotionSettings(Section):
    """When a challenger becomes champion; no stage depends on it."""

    approval: Literal["gate", "human", "none"]
    """Who decides in the flow ``registration``: the gate, a person who sees what the gate says, or
    nobody (the challenger waits for ``interloom registry promote``)."""
    approval_hours: Annotated[float, Field(gt=0, le=24 * 30)]
    """How long the flow waits for that person."""
    experiment: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _-]*$")]
    """MLflow experiment with one run per decision."""
    agents: GateSettings
    adaptive: GateSettings

    def limits_of(self, system: System) -> GateSettings:
        """What the gate asks of a system's challenger."""
        return self.agents if system == "agents" else self.adaptive


class ServingSettings(Section):
    """How requests are served and what they may cost; no stage depends on it."""

    slots: Count
    """Requests in flight, and so the size of the batches."""
    queue: Count
    """Requests that may wait for a slot; one more is told to come back later."""
    gather_milliseconds: Annotated[float, Field(ge=0, le=1000)]
    """How long an idle server waits for company when a request comes in."""
    threads: Annotated[int, Field(ge=0, le=1024)]
    """CPU threads; 0 leaves the choice to torch."""
    max_attempts: Annotated[int, Field(ge=1, le=20)]
    """T_max of a request that does not say."""
    image_budget: Count
    """Images of a request that does not say, and the most that it may ask for."""
    max_steps: Count
    """A longer plan is refused."""
    max_body_bytes: Annotated[int, Field(ge=1024)]
    max_text: Count
    """Characters of a request."""
    max_images: Count
    """Pictures that a request may bring."""
    max_pixels: Annotated[int, Field(ge=4096, le=4096 * 4096)]
    """Of each of them."""
    recent: Annotated[int, Field(ge=1, le=100_000)]
    """Results that are kept in memory, for the page and for feedback."""
    drain_seconds: Annotated[float, Field(ge=0)]
    """How long requests in flight may take to end after SIGTERM."""
    follow_seconds: Annotated[float, Field(gt=0)]
    """Between two looks at the alias in the model registry."""
    keys: str
    """File with the hashes of API keys (`interloom serve-key` writes it); empty asks for none."""
    traces: Literal["full", "numbers", "off"]
    """Whether each request becomes an MLflow trace, and whether its texts and pictures do."""


class LimitSettings(Section):
    """How long a stage may take, and how often it is tried again."""

    timeout_minutes: Annotated[float, Field(gt=0)]
    """The process group of a stage that takes longer is killed."""
    retries: Annotated[int, Field(ge=0, le=20)]


class OrchestrationSettings(LimitSettings):
    """How the Prefect flow runs stages; no stage depends on it."""

    stages: dict[str, LimitSettings]
    """Limits of single stages, where they differ from those for all."""
    retry_delay_seconds: Annotated[float, Field(ge=0)]
    parallel_stages: Annotated[int, Field(ge=1, le=64)]


class TrackingSettings(Section):
    """Where runs are recorded; no stage depends on it."""

    enabled: bool
    uri: str
    """MLflow tracking URI; ``MLFLOW_TRACKING_URI`` in the environment goes first."""
    experiment: Annotated[str, Field(min_length=1)]


class Settings(Section):
    """The whole params file."""

    profile: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    models: ModelsSettings
    remote: RemotesSettings
    teacher: TeacherSettings
    prompts: PromptsSettings
    trajectories: TrajectoriesSettings
    critic_data: CriticDataSettings
    planner_data: PlannerDataSettings
    unified: UnifiedSettings
    adaptive_data: AdaptiveDataSettings
    validation: ValidationSettings
    sft_planner: PlannerSftSettings
    sft_critic: SftSettings
    sft_adaptive: AdaptiveSftSettings
    grpo_critic: GrpoSettings
    grpo_adaptive: AdaptiveGrpoSettings
    evaluate: EvaluateSettings
    evaluate_adaptive: AdaptiveEvaluateSettings
    grading: GradingSettings
    report: ReportSettings
    registration: RegistrationSettings
    promotion: PromotionSettings
    serving: ServingSettings
    orchestration: OrchestrationSettings
    cluster: ClusterSettings
    tracking: TrackingSettings


def load_settings(path: str | Path = "params.yaml") -> Settings:
    """Read and check a params file.

    Raises ``InterloomError`` naming the file, the first wrong key, its value and what is allowed
    (further wrong keys follow after semicolons).
    """
    return settings_from(read_params(path), str(path))


def settings_from(raw: dict[str, Any], source: str) -> Settings:
    """Check plain values; ``source`` is the file named in errors."""
    try:
        # As JSON, because strict Python values would refuse a list where a tuple is wanted.
        return Settings.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        problems = "; ".join(explain(problem, Settings) for problem in error.errors())
        raise InterloomError(f"{source}: {problems}") from None


def load_profile(root: Path, name: str | None) -> Settings:
    """The settings of a profile: the active params file, or the one in ``profiles/``.

    Raises:
        InterloomError: no profile of this name, or a wrong file.
    """
    active = load_settings(root / "params.yaml")
    if name in (None, active.profile):
        return active
    return load_settings(_profile_file(root, name, active.profile))


def use_profile(root: Path, name: str) -> str:
    """Make ``profiles/NAME.yaml`` the params file of the project in ``root``; says what was done.

    A profile stands in one place: the active one is ``params.yaml``, the others are in
    ``profiles/``. So the present one goes there under its name, with all that was changed in it.
    """
    active, folder = root / "params.yaml", root / "profiles"
    present = load_settings(active)
    if present.profile == name:
        return f"params.yaml already is profile {name}"
    wanted, kept = _profile_file(root, name, present.profile), folder / f"{present.profile}.yaml"
    if kept.exists():
        raise InterloomError(f"{kept} exists, but {present.profile} is in params.yaml: remove one")
    if load_settings(wanted).profile != name:
        raise InterloomError(f"{wanted}: `profile:` must be {name}, as the file is called")
    active.rename(kept)
    wanted.rename(active)
    return f"params.yaml is now profile {name}; {present.profile} is kept in {kept}"


def _profile_file(root: Path, name: str, active: str) -> Path:
    """Where a profile that is not the active one stands."""
    folder = root / "profiles"
    if not (folder / f"{name}.yaml").is_file():
        known = sorted({active, *(path.stem for path in folder.glob("*.yaml"))})
        raise InterloomError(f"no profile {name!r}; profiles: {', '.join(known)}")
    return folder / f"{name}.yaml"


def change_params(path: Path, changes: Sequence[str]) -> None:
    """Apply ``KEY=VALUE`` changes to a params file, keeping its comments.

    Raises ``InterloomError`` and changes nothing if a key is unknown or a value is not allowed.
    """
    from io import StringIO

    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    read_params(path)  # says what is wrong with the file as it is
    yaml = YAML()
    yaml.width = 1000
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)  # as the files are, so that other lines stay
    content = yaml.load(path.read_text(encoding="utf-8"))
    for change in changes:
        key, sign, text = change.partition("=")
        if not sign:
            raise InterloomError(f"{change!r}: expected KEY=VALUE with a key of {path.name}")
        *sections, name = key.split(".")
        place = _entered(content, [*sections, name], change, path)
        try:
            place[name] = YAML(typ="safe").load(text)
        except YAMLError as error:
            reason = str(error).splitlines()[0]
            raise InterloomError(f"{change!r}: not a YAML value ({reason}); quote it") from None
    written = StringIO()
    yaml.dump(content, written)
    settings_from(YAML(typ="safe").load(written.getvalue()), path.name)
    part = path.with_suffix(".part")
    part.write_text(written.getvalue(), encoding="utf-8")
    part.replace(path)


def _entered(content: Any, parts: Sequence[str], change: str, path: Path) -> Any:
    """The section of the last of ``parts``, all of which have to be there."""
    place = content
    for depth, part in enumerate(parts):
        if not isinstance(place, dict) or part not in place:
            near = get_close_matches(part, place, n=1) if isinstance(place, dict) else []
            meant = ".".join([*parts[:depth], *near])
            hint = f" (did you mean {meant}?)" if near else ""
            where = f"no key {'.'.join(parts[: depth + 1])} in {path.name}{hint}"
            raise InterloomError(f"{change!r}: {where}; expected KEY=VALUE")
        place = place[part] if depth < len(parts) - 1 else place
    return place
