"""Hours and memory of the three trainings."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from interloom.planning import formulas as f
from interloom.planning.calibration import Calibration, VlmFigures
from interloom.planning.remote import Calls, Measured, calls_of
from interloom.planning.volumes import Volumes
from interloom.settings import GeneratorSettings, Settings, SftSettings, TrainerSettings

HOUR = 3600.0


@dataclass(frozen=True)
class Machine:
    """Where a stage runs: so many processes with a card each, sharding its state or not."""

    processes: int
    sharded: bool


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
    return Machine(pods.pods * max(1, pods.gpus), sharded=pods.fsdp)


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


def answering_seconds(
    answers: float, prompt: float, tokens: float, batch: int, size: VlmFigures, known: Calibration
) -> float:
    """One card reads ``answers`` prompts and writes as many answers, ``batch`` at a time."""
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
        cache=_cache(prompt + tokens / 2, size),
        bandwidth=known.gpu.bandwidth.value * 1e12 * known.shares.decoding.value,
    )
    return reading + writing


def _cache(tokens: float, size: VlmFigures) -> float:
    return f.cache_bytes(tokens, layers=size.layers, kv_heads=size.kv_heads, head_dim=size.head_dim)


def sft(
    stage: str,
    options: SftSettings,
    rows: float,
    tokens: float,
    answer: float,
    settings: Settings,
    known: Calibration,
) -> Training:
    """Supervised fine-tuning: ``rows·epochs`` samples, and the held-out answers on the way."""
    machine, size = machine_of(stage, settings), known.vlm(settings.models.vlm)
    seen = rows * options.epochs * tokens
    training = f.seconds(
        f.training_flop(
            size.parameters.value * 1e9,
            seen,
            trained=_trained(options, size),
            recompute=options.gradient_checkpointing,
        ),
        peak=known.gpu.peak.value * 1e12,
        share=known.shares.training.value,
    )
    held_out = options.evaluations * answering_seconds(
        options.held_out / machine.processes,
        tokens - answer,
        answer,
        4 * options.micro_batch_size,
        size,
        known,
    )
    parts = {"training": training / machine.processes / HOUR, "held-out answers": held_out / HOUR}
    memory = memory_of(options, tokens, tokens, machine, settings, known)
    return Training(machine, parts, sum(memory.values()), memory)


def _trained(options: TrainerSettings, size: VlmFigures) -> float:
    if options.lora_rank:
        return f.lora_parameters(options.lora_rank, hidden=size.hidden, layers=size.layers)
    return size.parameters.value * 1e9


def memory_of(
    options: TrainerSettings,
    tokens: float,
    scored: float,
    machine: Machine,
    settings: Settings,
    known: Calibration,
) -> dict[str, float]:
    """Bytes of one card at the height of a training step, by what they are for.

    Args:
        tokens: of one sample.
        scored: those of them that logits are computed for.
    """
    size, figures = known.vlm(settings.models.vlm), known.memory
    parameters, trained = size.parameters.value * 1e9, _trained(options, size)
    wide = machine.sharded or settings.models.vlm_dtype == "float32"
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
    if machine.sharded:
        # Two layers at a time are gathered whole: the one at work and the next.
        found["gathered layers"] = 2 * parameters / size.layers * f.BFLOAT16
    return found


def grpo(settings: Settings, known: Calibration, amounts: Volumes, seen: Measured) -> Training:
    """GRPO of the critic: rollouts, their pictures and scores, log probabilities, training.

    One step has ``batch_size·group_size`` rollouts over all processes. Where the truth is "false"
    each rollout's refined prompt is drawn and scored, by the policy's own card (``backend:
    diffusers``), or elsewhere while it goes on (``parts``).
    """
    options, size = settings.grpo_critic, known.vlm(settings.models.vlm)
    machine = machine_of("grpo-critic", settings)
    peak = known.gpu.peak.value * 1e12
    parameters = size.parameters.value * 1e9
    prompts = amounts.rows.rl * options.epochs
    steps = prompts / options.batch_size
    if options.max_steps and options.max_steps < steps:
        steps = float(options.max_steps)
    rollouts = options.batch_size * options.group_size  # of a step, over all processes
    mine = rollouts / machine.processes
    answer = known.tokens.critic_answer.value
    prompt = amounts.critic_tokens - answer
    writing = answering_seconds(mine, prompt, answer, ceil(mine), size, known)
    flop = f.training_flop(
        parameters,
        mine * amounts.critic_tokens,
        trained=_trained(options, size),
        recompute=options.gradient_checkpointing,
    )
    # Under the reference model, and with vLLM under the policy itself, whose sampler rounds.
    extra = (options.kl_coefficient > 0) + options.use_vllm
    flop += extra * f.forward_flop(parameters, mine * amounts.critic_tokens)
    training = f.seconds(flop, peak=peak, share=known.shares.training.value)

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
        held_out / machine.processes, prompt, answer, max(16, options.micro_batch_size), size, known
    )
    parts = {
        "rollouts": steps * writing / HOUR,
        "pictures": steps * here / HOUR,
        "waiting for rewards": steps * waiting / HOUR,
        "training": steps * training / HOUR,
        "held-out answers": evaluating / HOUR,
    }
    memory = memory_of(options, amounts.critic_tokens, answer, machine, settings, known)
    memory |= _beside_the_policy(settings, known, machine, ceil(mine), amounts.critic_tokens)
    elsewhere = 0.0 if local else pictures * drawing / HOUR
    return Training(machine, parts, sum(memory.values()), memory, scores, elsewhere)


def _beside_the_policy(
    settings: Settings, known: Calibration, machine: Machine, answers: int, tokens: float
) -> dict[str, float]:
    """What else a card holds during GRPO."""
    options, size = settings.grpo_critic, known.vlm(settings.models.vlm)
    parameters = size.parameters.value * 1e9
    shared = machine.processes if machine.sharded else 1
    found: dict[str, float] = {}
    if options.kl_coefficient > 0 and not options.lora_rank:
        found["reference model"] = parameters * f.BFLOAT16 / shared
    if options.use_vllm:
        found["vLLM"] = known.memory.rollouts.value * known.gpu.memory.value * 1e9
    else:
        found["cache of rollouts"] = answers * _cache(tokens, size)
    generator = settings.models.generator_named(options.generator)
    if generator.backend == "diffusers":
        held = known.generator(generator.model)
        found["generator"] = (
            (held.transformer.value + held.others.value)
            * 1e9
            * (f.FLOAT32 if generator.dtype == "float32" else f.BFLOAT16)
        )
    return found
