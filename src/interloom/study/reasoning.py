"""What a unified model does with requests of growing complexity, measured alone.

Requests of the evaluation split: scenes of one to six things, and one to six orders about a
picture. What is told of each is the mode that the model chose, how many pictures it took, whether
the last one is right, and whether the model's own verdicts are.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from interloom import images
from interloom.adaptive import measure
from interloom.adaptive.reasoner import AdaptiveReasoner, Budget
from interloom.adaptive.story import Prompt
from interloom.backends.pocket_analyzer import PocketAnalyzer
from interloom.benchmarks.pocket_scenes import carry_out
from interloom.pocket.language import describe_scene
from interloom.pocket.render import render
from interloom.pocket.scene import (
    OPERATIONS,
    Scene,
    random_scene,
    scene_split,
)
from interloom.records import Thresholds
from interloom.seeding import derive_seed

MOST = 6
"""Things of a scene, or orders."""
FILE = "reasoning.json"
FREE = 0
"""The budget that leaves the number of pictures to the model."""


@dataclass(frozen=True)
class Case:
    """A request and how many things or orders it names."""

    prompt: Prompt
    complexity: int


@dataclass(frozen=True)
class Row:
    """One request as it went. ``agreed`` of ``judged`` verdicts of the model itself are right."""

    id: str
    complexity: int
    mode: str
    valid: bool
    success: bool
    first: bool
    images: int
    agreed: int
    judged: int


def make_cases(count: int, seed: int) -> list[Case]:
    """``count`` scenes and ``count`` chains of orders of each complexity."""
    cases = []
    for complexity in range(1, MOST + 1):
        for number in range(count):
            rng = random.Random(derive_seed(seed, "reasoning", complexity, number))
            name = f"{complexity}/{number}"
            text = describe_scene(_scene(rng, complexity), "canonical", rng)
            cases.append(Case(Prompt(id=f"scene/{name}", instruction=text), complexity))
            start, text = _orders(rng, complexity)
            shown = images.to_png(render(start, jitter_seed=rng.getrandbits(31)))
            prompt = Prompt(id=f"orders/{name}", instruction=text, references=(shown,))
            cases.append(Case(prompt, complexity))
    return cases


def _held_out(scene: Scene) -> bool:
    """Pictures of one thing are too few to be split."""
    return scene.count < 2 or scene_split(scene) == "evaluation"


def _scene(rng: random.Random, things: int) -> Scene:
    while not _held_out(scene := random_scene(rng, things)):
        pass
    return scene


def _orders(rng: random.Random, count: int) -> tuple[Scene, str]:
    while True:
        start = random_scene(rng, rng.randint(2, 5))
        made = carry_out(rng, start, rng.choices(OPERATIONS, k=count))
        if made and made[0][-1] != start and _held_out(made[0][-1]):
            return start, "; ".join(made[1])


def reason(
    reasoner: AdaptiveReasoner,
    cases: Sequence[Case],
    budget: int,
    accepted: Thresholds,
    seed: int,
) -> list[Row]:
    """Every case carried out, greedily, with at most ``budget`` pictures each (``FREE``: any)."""
    chosen = Budget(images=budget or None)
    told = reasoner.reason([case.prompt for case in cases], [chosen] * len(cases), seed=seed)
    found = measure.outcomes(told, PocketAnalyzer(), accepted)
    return [
        Row(
            case.prompt.id,
            case.complexity,
            one.told.mode,
            one.told.story is not None,
            bool(one.success),
            bool(one.first),
            len(one.told.images),
            one.agreed,
            one.judged,
        )
        for case, one in zip(cases, found, strict=True)
    ]


def write_rows(folder: Path, rows: Mapping[int, Sequence[Row]]) -> None:
    """Rows by budget."""
    told = {str(budget): [asdict(row) for row in some] for budget, some in rows.items()}
    (folder / FILE).write_text(json.dumps(told, indent=0), encoding="utf-8")


def read_rows(folder: Path, budget: int = FREE) -> list[Row]:
    """The rows of one budget."""
    told = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return [Row(**row) for row in told[str(budget)]]
