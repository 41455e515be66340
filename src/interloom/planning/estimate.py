"""``interloom plan``: what every stage takes, from the settings and the calibration."""

from __future__ import annotations

from dataclasses import dataclass, field

from interloom.planning.calibration import Calibration
from interloom.planning.formulas import FLOAT32
from interloom.planning.remote import NOTHING_MEASURED, Calls, Measured, What, calls_of, data_calls
from interloom.planning.training import (
    HOUR,
    Training,
    answering_seconds,
    drawing_seconds,
    grpo,
    machine_of,
    sft,
)
from interloom.planning.volumes import Rows, Volumes, image_bytes, volumes
from interloom.settings import EvaluateSettings, Settings
from interloom.stages import STAGES

BENCHMARK_ITEMS = {"ueval": 1000, "wise": 1000, "rise": 360}
"""Items of the published benchmarks."""
GB = 1e9


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
    usd_per_gpu_hour: float
    warnings: list[str]

    @property
    def gpu_hours(self) -> float:
        return sum(stage.gpu_hours for stage in self.stages)

    @property
    def training_hours(self) -> float:
        """Hours of cards of the three trainings."""
        return sum(s.gpu_hours for s in self.stages if s.stage.startswith(("sft-", "grpo-")))

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
    amounts = volumes(settings, known, rows)
    stages = {spec.name: StagePlan(spec.name) for spec in STAGES}
    _data(stages, settings, known, amounts, seen)
    _training(stages, settings, known, amounts, seen)
    _evaluation(stages["evaluate"], settings, known, amounts, seen)
    for stage in stages.values():
        # Calls of different kinds wait for the same limits, so they add up.
        stage.hours = max(stage.hours, sum(call.hours for call in stage.calls))
        # Cards that wait for calls are paid for like others.
        stage.gpu_hours = max(stage.gpu_hours, stage.gpus * stage.hours)
    made = list(stages.values())
    return Plan(
        settings.profile, made, amounts, known.gpu.price.value, _warnings(made, settings, known)
    )


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
        drawing.storage += pictures * image_bytes(generator, known)
        if generator.backend in ("diffusers", "http"):
            drawing.gpus = 1
            drawing.gpu_hours += pictures * drawing_seconds(generator, known) / HOUR
            held = known.generator(generator.model)
            size = (held.transformer.value + held.others.value) * 2 * GB
            drawing.memory = max(drawing.memory, size + known.memory.overhead.value * GB)
    drawing.hours = drawing.gpu_hours
    one = image_bytes(settings.models.generator, known)
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
            "sft-planner",
            settings.sft_planner,
            planner_rows,
            amounts.planner_tokens,
            tokens.planner_answer.value,
            settings,
            known,
        ),
        "sft-critic": sft(
            "sft-critic",
            settings.sft_critic,
            rows.critic,
            amounts.critic_tokens,
            tokens.critic_answer.value,
            settings,
            known,
        ),
        "grpo-critic": grpo(settings, known, amounts, seen),
    }
    parameters = known.vlm(settings.models.vlm).parameters.value * GB
    for name, training in made.items():
        _fill(stages[name], training)
        # The model, the best weights, and two checkpoints with the optimiser but no gradients.
        stages[name].storage = parameters * (2 * 2 + 2 * (known.memory.sharded.value - FLOAT32))


def _fill(stage: StagePlan, training: Training) -> None:
    stage.gpus = training.machine.processes
    stage.gpu_hours = training.gpu_hours
    stage.hours = sum(training.parts.values())
    stage.memory, stage.memory_parts = training.memory, training.memory_parts
    stage.parts = training.parts
    stage.calls += training.calls


def _evaluation(
    stage: StagePlan, settings: Settings, known: Calibration, amounts: Volumes, seen: Measured
) -> None:
    """Each system on each benchmark; answers that several systems share are counted for each."""
    options = settings.evaluate
    items = sum(min(options.items, BENCHMARK_ITEMS[name]) for name in options.benchmarks)
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
        held = known.generator(generator.model)
        stage.memory += (held.transformer.value + held.others.value) * 2 * GB
    stage.memory += known.memory.overhead.value * GB
    stage.gpus = machine_of("evaluate", settings).processes
    stage.gpu_hours = seconds / HOUR
    stage.hours = stage.gpu_hours / stage.gpus
    stage.storage = pictures * image_bytes(generator, known)
    if "oracle" in options.systems:
        work: tuple[tuple[What, float, float], ...] = (
            ("plans", items, 0.5),
            ("critiques", steps * tries, 2.0),
        )
        for what, count, shown in work:
            stage.calls += calls_of("evaluate", what, count, settings, known, seen, pictures=shown)


def _agents_seconds(
    options: EvaluateSettings,
    plans: float,
    critiques: float,
    amounts: Volumes,
    settings: Settings,
    known: Calibration,
) -> float:
    size, tokens = known.vlm(settings.models.vlm), known.tokens
    planning = answering_seconds(
        plans, tokens.planner_text.value, tokens.planner_answer.value, options.batch_size, size,
        known,
    )  # fmt: skip
    answer = tokens.critic_answer.value
    prompt = amounts.critic_tokens - answer
    return planning + answering_seconds(critiques, prompt, answer, options.batch_size, size, known)


def _warnings(stages: list[StagePlan], settings: Settings, known: Calibration) -> list[str]:
    found = []
    room = known.gpu.memory.value * GB
    for stage in stages:
        if stage.memory > room:
            largest = max(stage.memory_parts, key=stage.memory_parts.__getitem__, default="")
            hint = f", most of it {largest}" if largest else ""
            found.append(
                f"{stage.stage} needs {stage.memory / GB:.0f} GB of a card with "
                f"{known.gpu.memory.value:.0f}{hint}{_remedy(largest)}"
            )
    for name, remote in settings.remote:
        usd = sum(call.usd for s in stages for call in s.calls if call.backend == name)
        if usd > remote.budget_usd:
            found.append(
                f"calls to {name} cost about {usd:,.0f} US$, and remote.{name}.budget_usd is "
                f"{remote.budget_usd:,.0f}: the run would end when that is spent"
            )
    return found


def _remedy(largest: str) -> str:
    """What to change about the largest part of a memory that is not there."""
    return {
        "generator": ": set the generator's backend to http, so that it has cards of its own",
        "vLLM": ": set grpo_critic.use_vllm to false, or train on more cards",
        "weights, gradients, optimiser": ": set cluster.stages.*.fsdp, or use more cards",
        "activations": ": set gradient_checkpointing, or lower micro_batch_size",
        "logits": ": lower micro_batch_size",
    }.get(largest, "")
