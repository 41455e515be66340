"""``interloom study critic-rl``: does training pay, arrow by arrow, and what does each part of the
reward and of the data buy (InterleaveThinker's ablations at pocket scale).

Every seed makes its own data, trains its own agents and asks its own evaluation items; all
comparisons are paired by item. The variants of a seed share its data and its SFT models through the
cache, so that they differ in what their name says and in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from interloom import cast
from interloom.backends.pocket import PocketJudge
from interloom.backends.transformers import ChatModel
from interloom.benchmarks.graded import Graded
from interloom.settings import Settings, load_settings
from interloom.study.comparison import Comparison, Scores, compared
from interloom.study.repairs import Outcome, judge_critic, make_cases, outcome_of
from interloom.study.variant import Variant, prepare, reproduce
from interloom.train.refinement import Refiner

FULL = Variant("full")
VARIANTS = (
    FULL,
    Variant("no-step-reward", ("grpo_critic.alpha=1",)),
    Variant("no-accuracy-reward", ("grpo_critic.alpha=0",)),
    Variant("t-max-1", ("evaluate.max_attempts=1",), critic=None),
    Variant("t-max-3", ("evaluate.max_attempts=3",), critic=None),
    Variant("unfiltered", ("critic_data.filter=false", "critic_data.balance=false")),
    # As many passes over the critic's rows as the critic's own training makes.
    Variant(
        "one-agent", ("sft_planner.with_critic_rows=8",), "one-agent", "full-sft", "planner-sft"
    ),
)
BENCHMARKS = ("ueval", "wise", "rise")
SYSTEMS = ("generator", "zero-shot", "planner-sft", "full-sft", "full-rl", "oracle")
ARROWS = (("zero-shot", "planner-sft"), ("planner-sft", "full-sft"), ("full-sft", "full-rl"))


@dataclass(frozen=True)
class Plan:
    """How large the study is."""

    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    items: int
    """Per benchmark, seed and system."""
    cases: int
    """Failed steps on which a seed's critics are tried; a third as many good ones come on top."""
    jobs: int
    """Variants that run at a time, one thread each."""


def changes(plan: Plan, variant: Variant, seed: int, tracking: str) -> tuple[str, ...]:
    """All that a variant's params differ in from the project's."""
    systems = SYSTEMS if variant == FULL else (variant.system,)
    benchmarks = BENCHMARKS if variant == FULL else ("ueval",)
    sections = ("trajectories", "sft_planner", "sft_critic", "grpo_critic", "evaluate")
    return (
        f"seed={seed}",
        *(f"{section}.threads=1" for section in sections),
        f"evaluate.items={plan.items}",
        f"evaluate.systems=[{', '.join(systems)}]",
        f"evaluate.benchmarks=[{', '.join(benchmarks)}]",
        "grpo_critic.readiness.act=warn",
        f"tracking.uri={tracking}",
        "tracking.experiment=study-critic-rl",
        *variant.changes,
    )


def train(root: Path, out: Path, plan: Plan, said: Callable[[str], None]) -> None:
    """Run every variant of every seed; full ones first, since the others reuse what they made."""
    tracking = f"sqlite:///{(root / 'mlflow.db').resolve()}"

    def one(variant: Variant, seed: int) -> None:
        folder = folder_of(out, variant, seed)
        prepare(root, folder, changes(plan, variant, seed, tracking), out / "cache")
        reproduce(folder, "evaluate", folder / "repro.log")
        said(f"{folder.name}: done")

    with ThreadPoolExecutor(plan.jobs) as pool:
        for wave in ((FULL,), tuple(v for v in plan.variants if v != FULL)):
            # Variants of a seed share stages that are not in the cache yet: seed by seed they
            # would wait for one another, so neighbours in the queue are of different seeds.
            runs = [pool.submit(one, variant, seed) for variant in wave for seed in plan.seeds]
            for run in runs:
                run.result()


def folder_of(out: Path, variant: Variant, seed: int) -> Path:
    """The project folder of a variant."""
    return out / f"{variant.name}-seed-{seed}"


def critics(out: Path, plan: Plan, seed: int, said: Callable[[str], None]) -> dict[str, Outcome]:
    """Judgments and repairs of all critics of a seed, on the same cases."""
    settings = load_settings(folder_of(out, FULL, seed) / "params.yaml")
    torch.set_num_threads(1)
    generator = cast.generator(settings.models.generator_named(settings.evaluate.generator), None)
    cases = None
    found: dict[str, Outcome] = {}
    for name, model in critic_folders(out, plan, seed).items():

        def measure(folder: Path) -> Outcome:
            nonlocal cases
            cases = cases or make_cases(generator, plan.cases, seed)
            return judge_critic(
                _chat(folder, settings),
                cases,
                Refiner(generator, PocketJudge()),
                settings.models.dialogue,
            )

        kept = model.parents[2] / f"repairs-{plan.cases}-{model.name}.json"
        found[name] = outcome_of(model, kept, measure)
        said(f"seed {seed}: {name} tried on {len(found[name].judgment)} steps")
    return found


def critic_folders(out: Path, plan: Plan, seed: int) -> dict[str, Path]:
    """The critics of a seed by name: ``sft``, ``rl`` and those of the variants."""
    models = Path("outputs/models")
    full = folder_of(out, FULL, seed)
    found = {name: full / models / f"critic-{name}" for name in ("sft", "rl")}
    for variant in plan.variants:
        if variant != FULL and variant.critic:
            found[variant.name] = folder_of(out, variant, seed) / models / variant.critic
    return found


def _chat(folder: Path, settings: Settings) -> ChatModel:
    return ChatModel.from_pretrained(
        folder,
        dtype=settings.models.vlm_dtype,
        batch_size=settings.evaluate.batch_size,
        max_new_tokens=settings.evaluate.critic_max_new_tokens,
        max_image_pixels=settings.models.max_image_pixels,
    )


def results(
    out: Path, plan: Plan, repaired: Mapping[int, Mapping[str, Outcome]]
) -> dict[str, list[Comparison]]:
    """All comparisons, by the question that they answer."""

    def benchmark(name: str, system: str, variant: Variant = FULL) -> Scores:
        return {
            seed: Graded.read(
                folder_of(out, variant, seed) / "outputs/evaluation" / name / system / "graded.json"
            ).items
            for seed in plan.seeds
        }

    def critic(name: str, measure: str) -> Scores:
        return {
            seed: {item: 100 * value for item, value in vars(repaired[seed][name])[measure].items()}
            for seed in plan.seeds
        }

    found: dict[str, list[Comparison]] = {}
    for name in BENCHMARKS:
        found[f"{name}: every step of the training"] = [
            compared(b, benchmark(name, b), a, benchmark(name, a))
            for a, b in (("generator", "full-rl"), *ARROWS, ("full-rl", "oracle"))
        ]
    found["failed steps repaired by one refinement"] = [
        compared("rl", critic("rl", "fix"), "sft", critic("sft", "fix"))
    ]
    found["judgment accuracy"] = [
        compared("rl", critic("rl", "judgment"), "sft", critic("sft", "judgment"))
    ]
    for variant in plan.variants:
        if variant == FULL:
            continue
        ours = benchmark("ueval", variant.against)
        theirs = benchmark("ueval", variant.system, variant)
        found.setdefault("ueval: without a part", []).append(
            compared(variant.against, ours, variant.name, theirs)
        )
        if variant.critic:
            other = variant.against.removeprefix("full-")
            for question, measure in (("repaired", "fix"), ("judgment accuracy", "judgment")):
                found.setdefault(f"{question}: without a part", []).append(
                    compared(
                        other, critic(other, measure), variant.name, critic(variant.name, measure)
                    )
                )
    return found
