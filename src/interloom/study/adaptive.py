"""``interloom study adaptive``: SAIR's tables at pocket scale.

What each mode of the data buys, what masking buys, and what the complexity bonus and the step-wise
reward do to score and number of pictures. Every seed makes its own data and trains its own models;
all comparisons are paired by item. What variants of a seed share is made once (``lab.py``).
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from interloom.adaptive import cast, files
from interloom.adaptive import systems as reasoners
from interloom.adaptive.data import thresholds
from interloom.adaptive.reasoner import AdaptiveReasoner
from interloom.benchmarks.editions import Grader, open_edition
from interloom.benchmarks.filled import FIGURES, TRAJECTORIES
from interloom.benchmarks.graded import Graded
from interloom.construct import store
from interloom.runner import StageRun
from interloom.settings.file import load_settings
from interloom.stages import find_stage
from interloom.study import beside, reasoning
from interloom.study.comparison import Scores
from interloom.study.lab import Lab, Params, stage_of
from interloom.study.reasoning import FREE, Row
from interloom.study.tasks import Task

Output = Literal["adaptive-sft", "adaptive-rl"]
BENCHMARKS = ("kris", "omnicontext")
"""Those of SAIR's ablation; the first one is that of the claims."""
BUDGETS = (FREE, 1, 2, 3, 4, 5, 6)
GRADED = "graded.json"


@dataclass(frozen=True)
class Variant:
    """A training: ``changes`` are those of ``interloom params set``; ``output`` is its model."""

    name: str
    output: Output
    changes: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    """Modes that are learned, if not all: as many steps are made as with all of them."""


VARIANTS = (
    Variant("sft", "adaptive-sft"),
    Variant("rl", "adaptive-rl"),
    Variant("direct-only", "adaptive-sft", modes=("direct",)),
    Variant("no-reflection", "adaptive-sft", modes=("direct", "multi_step")),
    Variant("no-multi-step", "adaptive-sft", modes=("direct", "reflection")),
    Variant("full-loss", "adaptive-sft", ("sft_adaptive.masking=full",)),
    Variant("no-bonus", "adaptive-rl", ("grpo_adaptive.bonus=none",)),
    Variant("other-bonus", "adaptive-rl"),  # filled in by `variants`
    Variant("no-step-reward", "adaptive-rl", ("grpo_adaptive.step_weight=0",)),
)
"""``sft`` and ``rl`` are the whole method. A variant's step-wise reward is left out by weight 0."""


def variants(bonus: str) -> tuple[Variant, ...]:
    """All variants; ``other-bonus`` pays the bonus that the params do not: the paper's, or the one
    gated on success."""
    other = "paper" if bonus == "gated" else "gated"
    changed = (f"grpo_adaptive.bonus={other}",)
    return tuple(
        replace(one, name=f"{other}-bonus", changes=changed) if one.name == "other-bonus" else one
        for one in VARIANTS
    )


@dataclass(frozen=True)
class Plan:
    """How large the study is."""

    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    items: int
    """Per benchmark, seed and system."""
    cases: int
    """Scenes, and as many chains of orders, of each complexity from one to six."""
    changes: tuple[str, ...] = ()
    """Of the params of all trainings."""
    agents: bool = False
    """Whether the other system is trained too, and measured beside this one."""


class Study:
    """All tasks of a plan, and what came of them."""

    def __init__(self, root: Path, out: Path, plan: Plan) -> None:
        self.plan, self.lab = plan, Lab(root, out)
        self.cells: dict[tuple[int, str, str], Task] = {}
        """By seed, benchmark and variant."""
        self.told: dict[tuple[int, str], Task] = {}
        """By seed and variant."""
        self.beside: dict[int, Task] = {}
        """The agents on the same requests, by seed, if the plan wants them."""

    def run(self, jobs: int, said: Callable[[str], None]) -> None:
        """Carry out what is not done yet: first all data, whose size decides how long a variant is
        trained, then all trainings, and what is measured at the end."""
        for seed in self.plan.seeds:
            self.lab.stage(self._params(seed, "full"), "adaptive-data")
        self.lab.run(jobs, said)
        self.lay_out()
        self.lab.run(jobs, said)

    def lay_out(self) -> None:
        """All tasks. Needs the stories."""
        for seed in self.plan.seeds:
            for variant in self.plan.variants:
                self._variant(seed, variant)
            if self.plan.agents:
                self._agents(seed)

    def _agents(self, seed: int) -> None:
        params = self._params(seed, "agents")
        made = [self.lab.stage(params, stage_of(output).name) for output in beside.AGENTS]
        sections = {"seed", "models", "evaluate", "adaptive_data"}
        self.beside[seed] = self.lab.after(
            f"seed {seed}: the same requests × agents",
            "beside",
            partial(
                beside.answer,
                params=params.path,
                data=self.lab.root / "data",
                models={name: self.lab.output(params, name) for name in beside.AGENTS},
                count=self.plan.cases,
            ),
            made,
            [beside.__name__],
            params.settings.model_dump(mode="json", include=sections),
            self.plan.cases,
        )

    def _variant(self, seed: int, variant: Variant) -> None:
        changes = variant.changes
        full = self._params(seed, "full")
        if variant.modes:
            stories = self.lab.stage(full, "adaptive-data").folder / "outputs/adaptive-data"
            epochs = same_steps(full.settings.sft_adaptive.epochs, stories, variant.modes)
            chosen = ",".join(variant.modes)
            changes = (
                *changes,
                f"sft_adaptive.modes=[{chosen}]",
                f"sft_adaptive.epochs={epochs}",
            )
        params = self._params(seed, variant.name, changes)
        model = self.lab.output(params, variant.output)
        made = self.lab.stage(params, stage_of(variant.output).name)
        sections = {"seed", "unified", "evaluate_adaptive", "grading", "adaptive_data"}
        said = params.settings.model_dump(mode="json", include=sections)
        for benchmark in BENCHMARKS:
            work = partial(
                _answer, params=params.path, benchmark=benchmark, output=variant.output, model=model
            )
            self.cells[seed, benchmark, variant.name] = self.lab.after(
                f"seed {seed}: {benchmark} × {variant.name}",
                f"cells/{benchmark}",
                work,
                [made],
                [reasoners.__name__, f"interloom.benchmarks.pocket_{benchmark}"],
                said,
                variant.output,
            )
        budgets = BUDGETS if variant.name == "rl" else (FREE,)
        self.told[seed, variant.name] = self.lab.after(
            f"seed {seed}: requests of growing complexity × {variant.name}",
            "reasoning",
            partial(
                _reason, params=params.path, model=model, cases=self.plan.cases, budgets=budgets
            ),
            [made],
            [reasoning.__name__],
            said,
            self.plan.cases,
            budgets,
        )

    def _params(self, seed: int, name: str, changes: Sequence[str] = ()) -> Params:
        sections = (
            "adaptive_data", "sft_adaptive", "grpo_adaptive", "evaluate_adaptive",
            "trajectories", "sft_planner", "sft_critic", "grpo_critic", "evaluate",
        )  # fmt: skip
        return self.lab.params(
            f"{name}-seed-{seed}",
            (
                f"seed={seed}",
                *(f"{section}.threads=1" for section in sections),
                f"evaluate_adaptive.items={self.plan.items}",
                *self.plan.changes,
                *changes,
            ),
        )

    def scores(self, benchmark: str, variant: str) -> Scores:
        """Scores of a variant by seed and item."""
        return {seed: self.graded(seed, benchmark, variant).items for seed in self.plan.seeds}

    def graded(self, seed: int, benchmark: str, variant: str) -> Graded:
        """The grades of a cell that is done."""
        return Graded.read(self.cells[seed, benchmark, variant].folder / GRADED)

    def rows(self, variant: str, budget: int = FREE) -> dict[int, list[Row]]:
        """What a variant did with requests of growing complexity, by seed."""
        return {
            seed: reasoning.read_rows(self.told[seed, variant].folder, budget)
            for seed in self.plan.seeds
        }

    def agents_rows(self, attempts: int) -> list[Row]:
        """What the agents did with the same requests, with at most so many attempts a step."""
        return [
            row
            for task in self.beside.values()
            for row in reasoning.read_rows(task.folder, attempts)
        ]


def same_steps(epochs: float, stories: Path, modes: Sequence[str]) -> float:
    """Epochs over the stories of some modes that make as many steps as ``epochs`` over all."""
    count = Counter(story.mode for story in files.read_stories(stories / "stories.parquet"))
    some = sum(count[mode] for mode in count if mode in modes)
    return round(epochs * count.total() / max(1, some), 3)


def _answer(folder: Path, *, params: Path, benchmark: str, output: Output, model: Path) -> None:
    """A cell: one model's answers to a benchmark, and their grades."""
    settings = load_settings(params)
    stage = StageRun(find_stage(f"generate-adaptive@{benchmark}"), folder, folder, folder, None)
    edition = open_edition(benchmark, settings.evaluate_adaptive, settings.seed)
    shutil.rmtree(folder / "answers", ignore_errors=True)
    answers = folder / "answers"
    answers.mkdir()
    system = reasoners.Reasoners(settings, {output: model}, stage)
    system.fill(answers, output, edition.requests, seed=settings.seed)
    told = list(store.read_trajectories(answers / TRAJECTORIES))
    edition.write(answers, told, with_text=False)
    graded = edition.grade(answers, Grader(settings.grading))
    figures = json.loads((answers / FIGURES).read_text(encoding="utf-8"))
    replace(graded, run=figures, data=edition.data).save(folder / GRADED)


def _reason(folder: Path, *, params: Path, model: Path, cases: int, budgets: Sequence[int]) -> None:
    import torch

    torch.set_num_threads(1)
    settings = load_settings(params)
    reasoner = AdaptiveReasoner(
        cast.unified(settings.unified, model),
        max_tokens=settings.evaluate_adaptive.max_new_tokens,
    )
    asked = reasoning.make_cases(cases, settings.seed)
    accepted = thresholds(settings.adaptive_data.accepted)
    rows = {
        budget: reasoning.reason(reasoner, asked, budget, accepted, settings.seed)
        for budget in budgets
    }
    reasoning.write_rows(folder, rows)
