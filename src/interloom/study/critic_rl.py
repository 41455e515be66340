"""``interloom study critic-rl``: does training pay, arrow by arrow, and what does each part of the
reward and of the data buy (InterleaveThinker's ablations at pocket scale).

Every seed makes its own data, trains its own agents and asks its own evaluation items; all
comparisons are paired by item. What variants of a seed have in common is made once (``lab.py``), so
that they differ in what their name says and in nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from interloom.benchmarks.parts import AGENTS
from interloom.settings.evaluation import SystemName
from interloom.settings.file import Settings
from interloom.study.comparison import Scores
from interloom.study.lab import Lab, Params, graded
from interloom.study.repairs import Outcome, read_outcome
from interloom.study.tasks import Task

SYSTEMS: tuple[SystemName, ...] = (
    "generator", "zero-shot", "planner-sft", "full-sft", "full-rl", "oracle",
)  # fmt: skip
ARROWS = (("zero-shot", "planner-sft"), ("planner-sft", "full-sft"), ("full-sft", "full-rl"))
FULL = "full"


@dataclass(frozen=True)
class Variant:
    """A training in which something is missing: ``changes`` are those of ``interloom params set``.

    Its ``system`` is compared with the full training's ``against``, and its ``critic`` (a stage's
    output; none if it is the same one) with that system's.
    """

    name: str
    changes: tuple[str, ...]
    system: SystemName
    against: SystemName
    critic: str | None = None
    other_data: bool = False
    """Its critic's data has another size; it is trained for as many steps as the full training's
    all the same."""

    @property
    def fewer_attempts(self) -> bool:
        """Whether it differs in ``T_max``, and in nothing that is trained."""
        return self.name.startswith("t-max")


def variants(settings: Settings) -> tuple[Variant, ...]:
    """The ablations of the paper.

    One agent for both jobs sees the critic's rows as often as the critic itself does. Unfiltered
    data is compared after SFT, so that what RL makes of it does not cover the difference, and with
    as many steps, since there is several times as much of it.
    """
    times = max(1, round(settings.sft_critic.epochs / settings.sft_planner.epochs))
    return (
        Variant("no-step-reward", ("grpo_critic.alpha=1",), "full-rl", "full-rl", "critic-rl"),
        Variant("no-accuracy-reward", ("grpo_critic.alpha=0",), "full-rl", "full-rl", "critic-rl"),
        Variant("t-max-1", ("evaluate.max_attempts=1",), "full-rl", "full-rl"),
        Variant("t-max-3", ("evaluate.max_attempts=3",), "full-rl", "full-rl"),
        Variant(
            "unfiltered",
            ("critic_data.filter=false", "critic_data.balance=false"),
            "full-sft",
            "full-sft",
            "critic-sft",
            other_data=True,
        ),
        Variant(
            "one-agent",
            (f"sft_planner.with_critic_rows={times}",),
            "one-agent",
            "full-sft",
            "planner-sft",
        ),
    )


CRITICS: dict[SystemName, str] = {"full-sft": "critic-sft", "full-rl": "critic-rl"}
"""Critics of the full training, by the system that they are part of."""


@dataclass(frozen=True)
class Plan:
    """How large the study is."""

    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    benchmarks: tuple[str, ...]
    """The first one is that of the claims and of the variants."""
    items: int
    """Per benchmark, seed and system."""
    cases: int
    """Failed steps on which a seed's critics are tried; a third as many good ones come on top."""


@dataclass(frozen=True)
class Seed:
    """The tasks whose results are compared, of one seed."""

    cells: dict[tuple[str, str], tuple[Task, SystemName]]
    """By benchmark and label (a system of the full training, or a variant)."""
    critics: Task


class Study:
    """All tasks of a plan, and what came of them. ``seeds`` is filled by ``lay_out``."""

    def __init__(self, root: Path, out: Path, plan: Plan) -> None:
        self.plan, self.lab = plan, Lab(root, out)
        self.seeds: dict[int, Seed] = {}

    def run(self, jobs: int, said: Callable[[str], None]) -> None:
        """Carry out what is not done yet: first all seeds' data, whose size decides how long a
        variant is trained, then all trainings, and the evaluations at the end, so that many short
        tasks are left there and no processor waits for a long one."""
        self.lay_out_data()
        self.lab.run(jobs, said)
        self.lay_out()
        self.lab.run(jobs, said)

    def lay_out_data(self) -> list[Task]:
        """The tasks that make the critics' data of all seeds and variants."""
        return [
            self.lab.stage(self._params(seed, name, changes), "critic-data")
            for seed in self.plan.seeds
            for name, changes in (
                (FULL, ()),
                *((v.name, v.changes) for v in self.plan.variants if v.other_data),
            )
        ]

    def lay_out(self) -> None:
        """All tasks. Needs the critics' data."""
        self.seeds = {seed: self._seed(seed) for seed in self.plan.seeds}

    def _params(self, seed: int, name: str, changes: Sequence[str] = ()) -> Params:
        sections = ("trajectories", "sft_planner", "sft_critic", "grpo_critic", "evaluate")
        return self.lab.params(
            f"{name}-seed-{seed}",
            (
                f"seed={seed}",
                *(f"{section}.threads=1" for section in sections),
                f"evaluate.items={self.plan.items}",
                "grpo_critic.readiness.act=warn",
                *changes,
            ),
        )

    def _seed(self, seed: int) -> Seed:
        full = self._params(seed, FULL)
        cells: dict[tuple[str, str], tuple[Task, SystemName]] = {}
        for benchmark in self.plan.benchmarks:
            # What the base critic led to is known to all systems with the same planner: the plans
            # and the first pictures at least.
            first = self.lab.cell(full, benchmark, "planner-sft", "planner-sft")
            for system in SYSTEMS:
                start = first if system in CRITICS else None
                cell = self.lab.cell(full, benchmark, system, system, start=start)
                cells[benchmark, system] = cell, system
        main = self.plan.benchmarks[0]
        models = {output: (full, output) for output in CRITICS.values()}
        for variant in self.plan.variants:
            params = self._params(seed, variant.name, variant.changes)
            if variant.other_data:
                epochs = self._epochs(full, params)
                changes = (*variant.changes, f"sft_critic.epochs={epochs}")
                params = self._params(seed, variant.name, changes)
            # What is not the variant's own is the full training's. Where all agents are, so are
            # all calls of the first attempts.
            own = variant.critic or ""
            known = variant.system if variant.fewer_attempts else "planner-sft"
            cell = self.lab.cell(
                params,
                main,
                variant.system,
                variant.name,
                trained={name: full for name in AGENTS[variant.system] if name != own},
                start=None if own == "planner-sft" else cells[main, known][0],
            )
            cells[main, variant.name] = cell, variant.system
            if variant.critic:
                models[variant.name] = params, variant.critic
        return Seed(cells, self.lab.critics(full, self.plan.cases, models))

    def _epochs(self, full: Params, other: Params) -> float:
        """Epochs over other data that make as many steps as the full training's over its own."""
        rows = [_rows(self.lab.stage(params, "critic-data")) for params in (full, other)]
        return round(full.settings.sft_critic.epochs * rows[0] / rows[1], 3)

    def scores(self, benchmark: str, label: str) -> Scores:
        """Scores of a system of the full training, or of a variant."""
        found = {}
        for number, seed in self.seeds.items():
            cell, system = seed.cells[benchmark, label]
            found[number] = graded(cell, benchmark, system).items
        return found

    def outcomes(self, name: str) -> dict[int, Outcome]:
        """What a critic (``critic-sft``, ``critic-rl`` or a variant's) did with failed steps."""
        return {
            number: read_outcome(seed.critics.folder, name) for number, seed in self.seeds.items()
        }


def _rows(data: Task) -> int:
    return pq.read_metadata(data.folder / "outputs/critic-data/sft.parquet").num_rows
