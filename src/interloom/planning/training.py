"""Hours and memory of trainings: what they have in common, and those of planner and critic."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from interloom.planning import formulas as f
from interloom.planning.calibration import Calibration, LanguageFigures
from interloom.planning.remote import Calls, Measured, calls_of
from interloom.planning.volumes import Volumes
from interloom.settings.file import Settings
from interloom.settings.models import GeneratorSettings
from interloom.settings.training import RlSettings, SftSettings, TrainerSettings

HOUR = 3600.0
Parts = dict[str, float]
"""Hours or bytes by what they are for."""


@dataclass(frozen=True)
class Machine:
    """Where a stage runs: so many processes with a card each, sharding its state or not."""

    processes: int
    sharded: bool
    gathers: bool = False
    """Whether each forward pass gathers the weights anew (``cluster.fsdp.reshard_after_forward``);
    if not, every card has them whole, beside its part of gradients and optimiser."""


@dataclass(frozen=True)
class Learner:
    """A model that is trained, and where."""

    size: LanguageFigures
    dtype: str
    """Its number type in inference."""
    machine: Machine

    @property
    def parameters(self) -> float:
        return self.size.parameters.value * 1e9


@dataclass(frozen=True)
class Writer:
    """What writes answers: transformers' ``generate`` or vLLM, on cards that hold all weights or
    gather them for every token."""

    size: LanguageFigures
    share: float
    """Of a card's bandwidth that is reached."""
    shards: int = 1


@dataclass(frozen=True)
class Training:
    """What one training takes; ``parts`` are the hours of one card by what they are spent on."""

    machine: Machine
    parts: dict[str, float]
    memory: float
    """Peak of one card, in bytes."""
    memory_parts: dict[str, float]
    calls: tuple[Calls, ...] = ()
    generator_hours: float = 0.0
    """Hours of cards of their own, where the generator is a service."""

    @property
    def gpu_hours(self) -> float:
        """Over all cards."""
        return self.machine.processes * sum(self.parts.values()) + self.generator_hours


def machine_of(stage: str, settings: Settings) -> Machine:
    """Pods and cards of the section ``cluster``, else one card."""
    pods = settings.cluster.stages.get(stage)
    if pods is None:
        return Machine(1, sharded=False)
    gathers = pods.fsdp and settings.cluster.fsdp.reshard_after_forward
    return Machine(pods.processes, pods.fsdp, gathers)


def drawing_seconds(generator: GeneratorSettings, known: Calibration) -> float:
    """One picture on one card, most of them edits."""
    size = known.generator(generator.model)
    tokens = generator.image_size**2 / size.latent_pixels
    flop = f.drawing_flop(
        size.transformer.value * 1e9,
        tokens,
        reference_tokens=known.data.edited_share.value * tokens,
        text_tokens=size.text_tokens,
        passes=generator.steps * (2 if generator.guidance > 1 else 1),
    )
    return f.seconds(flop, peak=known.gpu.peak.value * 1e12, share=known.shares.drawing.value)


def generating(learner: Learner, known: Calibration) -> Writer:
    """The model that is trained writes by transformers' ``generate``, sharded as it is."""
    shards = learner.machine.processes if learner.machine.gathers else 1
    return Writer(learner.size, known.shares.generating.value, shards)


def alone(size: LanguageFigures, known: Calibration) -> Writer:
    """A model on one card writes by transformers' ``generate``."""
    return Writer(size, known.shares.generating.value)


def answering_seconds(
    answers: float, prompt: float, tokens: float, batch: int, writer: Writer, known: Calibration
) -> float:
    """One card reads ``answers`` prompts and writes as many answers, ``batch`` at a time."""
    size = writer.size
    parameters = size.parameters.value * 1e9
    reading = f.seconds(
        f.forward_flop(parameters, answers * prompt),
        peak=known.gpu.peak.value * 1e12,
        share=known.shares.prefill.value,
    )
    writing = f.decoding_seconds(
        ceil(answers),
        tokens,
        batch=batch,
        weights=parameters * f.BFLOAT16,
        cache=cache_of(prompt + tokens / 2, size),
        bandwidth=known.gpu.bandwidth.value * 1e12 * writer.share,
        gathering=f.gathering_seconds(
            parameters * f.BFLOAT16,
            processes=writer.shards,
            link=known.gpu.link.value * 1e12 * known.shares.linking.value,
        ),
    )
    return reading + writing


def cache_of(tokens: float, size: LanguageFigures) -> float:
    """Bytes of one conversation's keys and values."""
    return f.cache_bytes(tokens, layers=size.layers, kv_heads=size.kv_heads, head_dim=size.head_dim)


def of_agents(stage: str, settings: Settings, known: Calibration) -> Learner:
    """Planner or critic."""
    models = settings.models
    return Learner(known.vlm(models.vlm), models.vlm_dtype, machine_of(stage, settings))


def sft(
    options: SftSettings,
    rows: float,
    tokens: float,
    answer: float,
    learner: Learner,
    known: Calibration,
    *,
    batch: int,
) -> Training:
    """Supervised fine-tuning: ``rows·epochs`` samples, and the held-out answers on the way,
    ``batch`` at a time."""
    machine = learner.machine
    training = training_seconds(options, rows * options.epochs * tokens, learner, known)
    held_out = options.evaluations * answering_seconds(
        options.held_out / machine.processes,
        tokens - answer,
        answer,
        batch,
        generating(learner, known),
        known,
    )
    parts = {"training": training / machine.processes / HOUR, "held-out answers": held_out / HOUR}
    memory = memory_of(options, tokens, tokens, learner, known)
    return Training(machine, parts, sum(memory.values()), memory)


def training_seconds(
    options: TrainerSettings,
    tokens: float,
    learner: Learner,
    known: Calibration,
    *,
    forward_passes: int = 0,
) -> float:
    """One card trains on ``tokens``, and reads them ``forward_passes`` times more."""
    flop = f.training_flop(
        learner.parameters,
        tokens,
        trained=_trained(options, learner.size),
        recompute=options.gradient_checkpointing,
    )
    flop += forward_passes * f.forward_flop(learner.parameters, tokens)
    return f.seconds(flop, peak=known.gpu.peak.value * 1e12, share=known.shares.training.value)


def _trained(options: TrainerSettings, size: LanguageFigures) -> float:
    if options.lora_rank:
        return f.lora_parameters(options.lora_rank, hidden=size.hidden, layers=size.layers)
    return size.parameters.value * 1e9


def memory_of(
    options: TrainerSettings,
    tokens: float,
    scored: float,
    learner: Learner,
    known: Calibration,
) -> dict[str, float]:
    """Bytes of one card at the height of a training step, by what they are for.

    Args:
        tokens: of one sample.
        scored: those of them that logits are computed for.
    """
    size, machine, figures = learner.size, learner.machine, known.memory
    parameters, trained = learner.parameters, _trained(options, size)
    wide = machine.sharded or learner.dtype == "float32"
    each = figures.sharded.value if wide else figures.copied.value
    shared = machine.processes if machine.sharded else 1
    micro = options.micro_batch_size
    found = {
        "weights, gradients, optimiser": f.state_bytes(trained, each=each, processes=shared),
        "activations": f.activation_bytes(
            micro * tokens,
            hidden=size.hidden,
            layers=size.layers,
            layer=figures.layer.value,
            recompute=options.gradient_checkpointing,
        ),
        "logits": micro * scored * size.vocabulary * figures.logits.value,
        "overhead": figures.overhead.value * 1e9,
    }
    if options.lora_rank:
        found["frozen weights"] = parameters * f.BFLOAT16 / shared
    if machine.gathers:
        # Two layers at a time are gathered whole: the one at work and the next.
        found["gathered layers"] = 2 * parameters / size.layers * f.BFLOAT16
    elif machine.sharded:
        found["whole weights"] = parameters * f.BFLOAT16
    return found


def grpo(settings: Settings, known: Calibration, amounts: Volumes, seen: Measured) -> Training:
    """GRPO of the critic: rollouts, their pictures and scores, log probabilities, training.

    One step has ``batch_size·group_size`` rollouts over all processes. Where the truth is "false"
    each rollout's refined prompt is drawn and scored, by the policy's own card (``backend:
    diffusers``), or elsewhere while it goes on (``parts``).
    """
    options, learner = settings.grpo_critic, of_agents("grpo-critic", settings, known)
    machine, writer = learner.machine, generating(learner, known)
    prompts = amounts.rows.rl * options.epochs
    steps = prompts / options.batch_size
    if options.max_steps and options.max_steps < steps:
        steps = float(options.max_steps)
    rollouts = options.batch_size * options.group_size  # of a step, over all processes
    mine = rollouts / machine.processes
    answer = known.tokens.critic_answer.value
    prompt = amounts.critic_tokens - answer
    sampler = Writer(learner.size, known.shares.decoding.value) if options.use_vllm else writer
    writing = answering_seconds(mine, prompt, answer, ceil(mine), sampler, known)
    # Read under the reference model, and with vLLM under the policy itself, whose sampler rounds.
    extra = (options.kl_coefficient > 0) + options.use_vllm
    training = training_seconds(
        options, mine * amounts.critic_tokens, learner, known, forward_passes=extra
    )

    drawn = rollouts * amounts.false_share  # of a step
    held_out = (options.evaluations + 1) * options.held_out
    pictures = steps * drawn + held_out * amounts.false_share
    scores = tuple(calls_of("grpo-critic", "scores", pictures, settings, known, seen, pictures=2.0))
    generator = settings.models.generator_named(options.generator)
    local = generator.backend == "diffusers"
    drawing = drawing_seconds(generator, known) if local or generator.backend == "http" else 0.0
    scoring = sum(call.hours for call in scores) * HOUR / max(pictures, 1.0) * drawn
    if local:
        here, beside = drawn * drawing / machine.processes, scoring
    else:
        pool = settings.cluster.services.get("generator")
        here, beside = 0.0, scoring + drawn * drawing / (pool.replicas if pool else 1)
    waiting = f.waiting_seconds(beside, writing, parts=options.parts)
    evaluating = answering_seconds(
        held_out / machine.processes,
        prompt,
        answer,
        max(16, options.micro_batch_size),
        writer,
        known,
    )
    parts = {
        "rollouts": steps * writing / HOUR,
        "pictures": steps * here / HOUR,
        "waiting for rewards": steps * waiting / HOUR,
        "training": steps * training / HOUR,
        "held-out answers": evaluating / HOUR,
    }
    memory = memory_of(options, amounts.critic_tokens, answer, learner, known)
    memory |= beside_the_policy(options, learner)
    if options.use_vllm:
        memory["vLLM"] = known.memory.rollouts.value * known.gpu.memory.value * 1e9
    else:
        memory["cache of rollouts"] = ceil(mine) * cache_of(amounts.critic_tokens, learner.size)
    if local:
        memory["generator"] = _generator_bytes(generator, known)
    elsewhere = 0.0 if local else pictures * drawing / HOUR
    return Training(machine, parts, sum(memory.values()), memory, scores, elsewhere)


def beside_the_policy(options: RlSettings, learner: Learner) -> Parts:
    """The reference model of a card during GRPO, if there is one."""
    if options.kl_coefficient > 0 and not options.lora_rank:
        shared = learner.machine.processes if learner.machine.sharded else 1
        return {"reference model": learner.parameters * f.BFLOAT16 / shared}
    return {}


def _generator_bytes(generator: GeneratorSettings, known: Calibration) -> float:
    held = known.generator(generator.model)
    width = f.FLOAT32 if generator.dtype == "float32" else f.BFLOAT16
    return (held.transformer.value + held.others.value) * 1e9 * width
