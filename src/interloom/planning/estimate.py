"""``interloom plan``: what every stage takes, from the settings and the calibration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from interloom.planning import adaptive
from interloom.planning.calibration import Calibration
from interloom.planning.formulas import FLOAT32
from interloom.planning.remote import NOTHING_MEASURED, Calls, Measured, What, calls_of, data_calls
from interloom.planning.training import (
    HOUR,
    Training,
    alone,
    answering_seconds,
    drawing_seconds,
    grpo,
    machine_of,
    of_agents,
    sft,
)
from interloom.planning.volumes import Rows, Volumes, image_bytes, volumes
from interloom.settings.evaluation import AskedSettings, EvaluateSettings
from interloom.settings.file import Settings
from interloom.settings.models import GeneratorSettings
from interloom.stages import STAGES, System, find_stage

GB = 1e9
CODE_PIXELS = 8
"""Side of what one token of a unified model's picture stands for (Emu3's tokenizer)."""


@dataclass
class StagePlan:
    """One stage: ``memory`` is bytes of one card, ``storage`` those of all files that it leaves."""

    stage: str
    gpus: int = 0
    gpu_hours: float = 0.0
    hours: float = 0.0
    """On the wall: the slower of its cards and its remote calls."""
    memory: float = 0.0
    storage: float = 0.0
    calls: list[Calls] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)
    """Hours of one card by what they are spent on."""
    memory_parts: dict[str, float] = field(default_factory=dict)

    @property
    def usd(self) -> float:
        """Of remote calls."""
        return sum(call.usd for call in self.calls)


@dataclass(frozen=True)
class Plan:
    """All stages, and what they run into."""

    profile: str
    stages: list[StagePlan]
    volumes: Volumes
    stories: adaptive.Stories
    usd_per_gpu_hour: float
    warnings: list[str]

    @property
    def gpu_hours(self) -> float:
        return sum(stage.gpu_hours for stage in self.stages)

    def training_hours(self, system: System) -> float:
        """Hours of cards of a system's trainings: three of the agents, two of the adaptive one."""
        return sum(
            plan.gpu_hours
            for plan in self.stages
            if (spec := find_stage(plan.stage)).together and spec.system == system
        )

    @property
    def storage(self) -> float:
        return sum(stage.storage for stage in self.stages)

    @property
    def usd(self) -> float:
        """Cards and calls together."""
        return self.gpu_hours * self.usd_per_gpu_hour + sum(stage.usd for stage in self.stages)


def make_plan(
    settings: Settings,
    known: Calibration,
    *,
    rows: Rows | None = None,
    seen: Measured = NOTHING_MEASURED,
) -> Plan:
    """The plan of a whole lifecycle.

    Args:
        rows: sizes of the training sets, where they are not to be worked out.
        seen: what calls took here, by the ledger.

    Raises:
        InterloomError: a model without sizes in the calibration, or without a price.
    """
    amounts, told = volumes(settings, known, rows), adaptive.stories(settings, known)
    stages = {spec.name: StagePlan(spec.name) for spec in STAGES}
    _data(stages, settings, known, amounts, seen)
    _training(stages, settings, known, amounts, seen)
    _generation(stages["generate"], settings, known, amounts, seen)
    _adaptive(stages, settings, known, told, seen)
    for name, asked in (
        ("evaluate", settings.evaluate), ("evaluate-adaptive", settings.evaluate_adaptive)
    ):  # fmt: skip
        stages[name].calls += _grading(name, asked, asked.systems, settings, known, seen)
    for stage in stages.values():
        # Calls of different kinds wait for the same limits, so they add up.
        stage.hours = max(stage.hours, sum(call.hours for call in stage.calls))
        # Cards that wait for calls are paid for like others.
        stage.gpu_hours = max(stage.gpu_hours, stage.gpus * stage.hours)
    made = list(stages.values())
    warnings = [*_too_large(made, known), *_too_dear(made, settings), *_too_long(made, settings)]
    return Plan(settings.profile, made, amounts, told, known.gpu.price.value, warnings)


def _data(
    stages: dict[str, StagePlan],
    settings: Settings,
    known: Calibration,
    amounts: Volumes,
    seen: Measured,
) -> None:
    for call in data_calls(settings, known, amounts, seen):
        stages[call.stage].calls.append(call)
    drawing = stages["trajectories"]
    for generator, pictures in (
        (settings.models.generator, amounts.strong),
        (settings.models.generator_weak, amounts.weak),
    ):
        drawing.storage += pictures * image_bytes(generator.image_size, known)
        if generator.backend in ("diffusers", "http"):
            drawing.gpus = 1
            drawing.gpu_hours += pictures * drawing_seconds(generator, known) / HOUR
            size = _generator_bytes(generator, known) + known.memory.overhead.value * GB
            drawing.memory = max(drawing.memory, size)
    drawing.hours = drawing.gpu_hours
    one = image_bytes(settings.models.generator.image_size, known)
    # Two pictures a row; the gate writes pages and figures alone.
    stages["critic-data"].storage = 2 * one * (amounts.rows.critic + amounts.rows.rl)
    pictures = known.data.planner_images.value
    stages["planner-data"].storage = pictures * one * amounts.rows.planner


def _training(
    stages: dict[str, StagePlan],
    settings: Settings,
    known: Calibration,
    amounts: Volumes,
    seen: Measured,
) -> None:
    tokens, rows = known.tokens, amounts.rows
    planner_rows = rows.planner + settings.sft_planner.with_critic_rows * rows.critic
    made = {
        "sft-planner": sft(
            settings.sft_planner,
            planner_rows,
            amounts.planner_tokens,
            tokens.planner_answer.value,
            of_agents("sft-planner", settings, known),
            known,
            batch=4 * settings.sft_planner.micro_batch_size,
        ),
        "sft-critic": sft(
            settings.sft_critic,
            rows.critic,
            amounts.critic_tokens,
            tokens.critic_answer.value,
            of_agents("sft-critic", settings, known),
            known,
            batch=4 * settings.sft_critic.micro_batch_size,
        ),
        "grpo-critic": grpo(settings, known, amounts, seen),
    }
    parameters = known.vlm(settings.models.vlm).parameters.value * GB
    for name, training in made.items():
        _fill(stages[name], training)
        stages[name].storage = _checkpoint_bytes(parameters, known)


def _checkpoint_bytes(parameters: float, known: Calibration) -> float:
    """The model, the best weights, and two checkpoints with the optimiser but no gradients."""
    return parameters * (2 * 2 + 2 * (known.memory.sharded.value - FLOAT32))


def _generator_bytes(generator: GeneratorSettings, known: Calibration) -> float:
    """Of its weights on a card."""
    held = known.generator(generator.model)
    return (held.transformer.value + held.others.value) * 2 * GB


def _fill(stage: StagePlan, training: Training) -> None:
    stage.gpus = training.machine.processes
    stage.gpu_hours = training.gpu_hours
    stage.hours = sum(training.parts.values())
    stage.memory, stage.memory_parts = training.memory, training.memory_parts
    stage.parts = training.parts
    stage.calls += training.calls


def _items(options: AskedSettings, known: Calibration) -> dict[str, float]:
    """How many items of each benchmark are asked."""
    return {
        name: min(float(options.items), known.benchmarks[name].items.value)
        for name in options.benchmarks
    }


def _grading(
    stage: str,
    options: AskedSettings,
    systems: Sequence[str],
    settings: Settings,
    known: Calibration,
    seen: Measured,
) -> list[Calls]:
    """The judge's calls about every system's answers."""
    per_system = sum(
        items * known.benchmarks[name].calls.value for name, items in _items(options, known).items()
    )
    count = per_system * len(systems)
    return calls_of(stage, "grades", count, settings, known, seen, pictures=1.0)


def _adaptive(
    stages: dict[str, StagePlan],
    settings: Settings,
    known: Calibration,
    told: adaptive.Stories,
    seen: Measured,
) -> None:
    unified = settings.unified
    weights = known.unified_model(unified.model).parameters.value * GB
    held = weights * 2 + known.memory.overhead.value * GB
    one = image_bytes(unified.image_pixels or unified.grid_side * CODE_PIXELS, known)
    data, made = stages["adaptive-data"], adaptive.escalation(settings, known, told, seen)
    generator = settings.models.generator_named(settings.adaptive_data.generator)
    data.gpus, data.memory, data.calls = 1, held, [*made.calls]
    data.gpu_hours = made.seconds / HOUR
    if generator.backend in ("diffusers", "http"):
        data.gpu_hours += made.repairs * drawing_seconds(generator, known) / HOUR
    if generator.backend == "diffusers":
        data.memory += _generator_bytes(generator, known)
    data.hours = data.gpu_hours
    # Stories with their references, and those of the requests for RL.
    shown = known.stories.references.value
    data.storage = one * (told.stories * (told.story_pictures + shown) + told.rl_requests * shown)
    for name, training in (
        ("sft-adaptive", adaptive.sft_adaptive(settings, known, told, seen)),
        ("grpo-adaptive", adaptive.grpo_adaptive(settings, known, told, seen)),
    ):
        _fill(stages[name], training)
        stages[name].storage = _checkpoint_bytes(weights, known)
    answers = stages["generate-adaptive"]
    items = sum(_items(settings.evaluate_adaptive, known).values())
    answers.gpus, answers.memory = 1, held
    answers.hours = adaptive.answering_hours(settings, known, told, items)
    systems = len(settings.evaluate_adaptive.systems)
    answers.storage = items * systems * told.rollout_pictures * one


def _generation(
    stage: StagePlan, settings: Settings, known: Calibration, amounts: Volumes, seen: Measured
) -> None:
    """Each system on each benchmark; answers that several systems share are counted for each."""
    options = settings.evaluate
    items = sum(_items(options, known).values())
    steps = items * known.data.steps_per_item.value
    tries = min(known.data.attempts_per_step.value, options.max_attempts)
    agents = [name for name in options.systems if name != "generator"]
    local = [name for name in agents if name != "oracle"]
    pictures = steps * tries * len(agents) + items * (len(options.systems) - len(agents))
    seconds = _agents_seconds(options, len(local) * items, len(local) * steps * tries, amounts,
                              settings, known)  # fmt: skip
    generator = settings.models.generator_named(options.generator)
    stage.memory = known.vlm(settings.models.vlm).parameters.value * 2 * 2 * GB
    if generator.backend in ("diffusers", "http"):
        seconds += pictures * drawing_seconds(generator, known)
        stage.memory += _generator_bytes(generator, known)
    stage.memory += known.memory.overhead.value * GB
    stage.gpus = machine_of("generate", settings).processes
    stage.gpu_hours = seconds / HOUR
    stage.hours = stage.gpu_hours / stage.gpus
    stage.storage = pictures * image_bytes(generator.image_size, known)
    if "oracle" in options.systems:
        work: tuple[tuple[What, float, float], ...] = (
            ("plans", items, 0.5),
            ("critiques", steps * tries, 2.0),
        )
        for what, count, shown in work:
            stage.calls += calls_of("generate", what, count, settings, known, seen, pictures=shown)


def _agents_seconds(
    options: EvaluateSettings,
    plans: float,
    critiques: float,
    amounts: Volumes,
    settings: Settings,
    known: Calibration,
) -> float:
    writer, tokens = alone(known.vlm(settings.models.vlm), known), known.tokens
    planning = answering_seconds(
        plans, tokens.planner_text.value, tokens.planner_answer.value, options.batch_size, writer,
        known,
    )  # fmt: skip
    answer = tokens.critic_answer.value
    prompt = amounts.critic_tokens - answer
    return planning + answering_seconds(
        critiques, prompt, answer, options.batch_size, writer, known
    )


def _too_large(stages: list[StagePlan], known: Calibration) -> Iterator[str]:
    room = known.gpu.memory.value * GB
    for stage in stages:
        if stage.memory > room:
            largest = max(stage.memory_parts, key=stage.memory_parts.__getitem__, default="")
            hint = f", most of it {largest}" if largest else ""
            yield (
                f"{stage.stage} needs {stage.memory / GB:.0f} GB of a card with "
                f"{known.gpu.memory.value:.0f}{hint}{_remedy(largest)}"
            )


def _too_dear(stages: list[StagePlan], settings: Settings) -> Iterator[str]:
    for name, remote in settings.remote:
        usd = sum(call.usd for s in stages for call in s.calls if call.backend == name)
        if usd > remote.budget_usd:
            yield (
                f"calls to {name} cost about {usd:,.0f} US$, and remote.{name}.budget_usd is "
                f"{remote.budget_usd:,.0f}: the run would end when that is spent"
            )


def _too_long(stages: list[StagePlan], settings: Settings) -> Iterator[str]:
    """Stages that would be ended before their end; they go on from their checkpoints."""
    for stage in stages:
        own = settings.orchestration.stages.get(stage.stage, settings.orchestration)
        limits = {"orchestration.*.timeout_minutes": own.timeout_minutes}
        if stage.stage in settings.cluster.stages:
            limits["cluster.deadline_minutes"] = settings.cluster.deadline_minutes
        name, minutes = min(limits.items(), key=lambda limit: limit[1])
        if 60 * stage.hours > minutes:
            yield (
                f"{stage.stage} takes about {stage.hours:,.0f} hours, and {name} ends it after "
                f"{minutes / 60:,.0f}: raise it, or start the stage again, from its checkpoint"
            )


def _remedy(largest: str) -> str:
    """What to change about the largest part of a memory that is not there."""
    return {
        "generator": ": set the generator's backend to http, so that it has cards of its own",
        "vLLM": ": set grpo_critic.use_vllm to false, or train on more cards",
        "weights, gradients, optimiser": ": set cluster.stages.*.fsdp, or use more cards",
        "whole weights": ": set cluster.fsdp.reshard_after_forward",
        "activations": ": set gradient_checkpointing, or lower micro_batch_size",
        "logits": ": lower micro_batch_size",
    }.get(largest, "")
