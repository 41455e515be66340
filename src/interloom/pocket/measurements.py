"""What the shipped generators can and cannot do, measured.

All prompts are held out: results of edits and whole scenes from the evaluation split, riddles
from the evaluation facts. A picture counts as right if the verifier reads exactly the wanted
scene. Every share comes with its n and a 95 % Wilson interval; the prompts of a cell take
three sampling seeds in turn. ``report.py`` writes what is measured here.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from interloom.backends.diffusers import DiffusersGenerator
from interloom.images import from_bytes, to_png
from interloom.pocket.goal import Goal
from interloom.pocket.knowledge import Riddle, riddles
from interloom.pocket.language import CORRECTION_STYLES, correct, describe_edit, describe_scene
from interloom.pocket.meaning import pose_riddle
from interloom.pocket.render import render
from interloom.pocket.scene import (
    CELLS,
    OPERATIONS,
    Edit,
    Operation,
    Scene,
    apply,
    random_edit,
    random_scene,
    scene_split,
)
from interloom.pocket.verifier import read_many
from interloom.records import Failure
from interloom.roles import GenerationJob, Generator
from interloom.seeding import derive_seed

SEEDS = (0, 1, 2)
"""Sampling seeds; the prompts of a cell take them in turn, so that all outcomes are independent."""
COUNTS = range(1, 8)
COMPOSED = (5, 6, 7)
BATCHES = (1, 8, 32)


@dataclass(frozen=True)
class Share:
    """A share of successes with its 95 % Wilson score interval."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, outcomes: Sequence[bool]) -> Share:
        """
        >>> Share.of([True] * 8 + [False] * 2).value
        0.8
        """
        n = len(outcomes)
        assert n, "no outcomes"
        return cls._wilson(sum(outcomes) / n, n, n)

    @classmethod
    def mean(cls, shares: Sequence[Share], weights: Sequence[float]) -> Share:
        """Of several strata, whose weights add up to 1. The interval is that of as many outcomes
        as have the same variance; ``n`` counts all.

        >>> Share.mean([Share.of([True] * 10), Share.of([False] * 10)], [0.75, 0.25]).value
        0.75
        """
        p = sum(w * share.value for w, share in zip(weights, shares, strict=True))
        worth = 1 / sum(w * w / share.n for w, share in zip(weights, shares, strict=True))
        return cls._wilson(p, worth, sum(share.n for share in shares))

    @classmethod
    def _wilson(cls, p: float, worth: float, n: int) -> Share:
        z = 1.96
        centre = (p + z * z / (2 * worth)) / (1 + z * z / worth)
        half = z * math.sqrt(p * (1 - p) / worth + z * z / (4 * worth * worth))
        half /= 1 + z * z / worth
        # At 0 and 1 the exact bounds are p itself; rounding must not put them on the wrong side.
        return cls(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), n)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Speed:
    batch: int
    seconds_per_image: float
    images_per_second: float


@dataclass(frozen=True)
class Report:
    """The measured properties of one generator.

    one_shot: success of whole captions by number of things.
    single_edits: success of explicit edits at the first try, by operation, and ``all`` (each
        operation equally often, canonical and paraphrased wordings equally often).
    composed: the same scenes as in ``one_shot`` built by one caption and single edits.
    knowledge: ``raw`` riddles, and the same requests made ``explicit``.
    repairs: after an edit failed at the first try, success of: the same prompt with another seed
        (``same_prompt``), another paraphrase (``paraphrase``) and every correction style; every
        operation counts as often as it fails.
    repairs_by_operation: the same per edit kind.
    speed: edits with different prompts and sources in one batch.
    """

    generator: str
    one_shot: dict[str, Share]
    single_edits: dict[str, Share]
    composed: dict[str, Share]
    knowledge: dict[str, Share]
    repairs: dict[str, Share]
    repairs_by_operation: dict[str, dict[str, Share]]
    speed: list[Speed]


@dataclass(frozen=True)
class Case:
    """An edit that is to be made: the picture before, and the scenes before and after."""

    before: Scene
    edit: Edit
    picture: bytes
    prompt: str
    form: str

    @property
    def goal(self) -> Goal:
        return Goal(scenes=(apply(self.before, self.edit),), before=self.before)


class Batched(Generator, Protocol):
    """A generator that says how many pictures it makes at a time."""

    batch_size: int


class Runner:
    """Makes pictures in batches and reads them, with one progress callback."""

    def __init__(self, generator: Batched, tick: Callable[[int], None]) -> None:
        self.generator, self.tick = generator, tick

    def pictures(self, jobs: Sequence[GenerationJob]) -> list[bytes]:
        made: list[bytes] = []
        size = self.generator.batch_size
        for start in range(0, len(jobs), size):
            for answer in self.generator.generate(jobs[start : start + size]):
                assert not isinstance(answer, Failure), answer.reason
                made.append(answer)
            self.tick(len(jobs[start : start + size]))
        return made

    def right(self, jobs: Sequence[GenerationJob], goals: Sequence[Goal]) -> list[bool]:
        return right(self.pictures(jobs), goals)


def sampling_seed(index: int) -> int:
    return SEEDS[index % len(SEEDS)]


def right(pictures: Sequence[bytes], goals: Sequence[Goal]) -> list[bool]:
    """Which pictures show exactly what was wanted."""
    readings = read_many([from_bytes(picture) for picture in pictures])
    return [
        reading.scene is not None and goal.satisfied(reading.scene)
        for reading, goal in zip(readings, goals, strict=True)
    ]


def evaluation_scene(rng: random.Random, count: int) -> Scene:
    """A held-out scene; with one thing there is no split, since there are too few of them."""
    while True:
        scene = random_scene(rng, count)
        if count < 2 or scene_split(scene) == "evaluation":
            return scene


def edit_case(rng: random.Random, operation: Operation, form: str) -> Case:
    """An explicit edit whose result is held out, on a rendered picture of 2–6 things."""
    while True:
        before = random_scene(rng, rng.randint(2, 6))
        edit = random_edit(rng, before, operation)
        if edit is None or scene_split(apply(before, edit)) != "evaluation":
            continue
        prompt = describe_edit(
            edit, before, "canonical" if form == "canonical" else "paraphrased", rng
        )
        picture = to_png(render(before, rng.getrandbits(30)))
        return Case(before, edit, picture, prompt, form)


# ------------------------------------------------------------------------------- properties


def measure_captions(runner: Runner, n: int) -> tuple[dict[str, Share], dict[str, Share]]:
    """One shot by number of things, and the same scenes composed by single edits."""
    one_shot: dict[str, Share] = {}
    composed: dict[str, Share] = {}
    for count in COUNTS:
        rng = random.Random(derive_seed("captions", count))
        scenes = [evaluation_scene(rng, count) for _ in range(n)]
        texts = [describe_scene(scene, "canonical", rng) for scene in scenes]
        jobs = [GenerationJob(prompt=text, seed=sampling_seed(i)) for i, text in enumerate(texts)]
        goals = [Goal(scenes=(scene,)) for scene in scenes]
        one_shot[str(count)] = Share.of(runner.right(jobs, goals))
        if count in COMPOSED:
            composed[str(count)] = Share.of(compose(runner, scenes))
    return one_shot, composed


def compose(runner: Runner, scenes: Sequence[Scene]) -> list[bool]:
    """A caption of each scene's first thing, then one edit for each other."""
    work = [(sampling_seed(i), scene) for i, scene in enumerate(scenes)]
    states = [Scene.of(dict(list(s.sprites())[:1]), s.background) for _, s in work]
    pictures = runner.pictures(
        [
            GenerationJob(prompt=describe_scene(state), seed=seed)
            for (seed, _), state in zip(work, states, strict=True)
        ]
    )
    for step in range(1, max(scene.count for scene in scenes)):
        active = [i for i, (_, scene) in enumerate(work) if scene.count > step]
        jobs = []
        for i in active:
            seed, scene = work[i]
            cell, sprite = list(scene.sprites())[step]
            edit = Edit("add", at=cell, sprite=sprite)
            prompt = describe_edit(edit, states[i])
            jobs.append(GenerationJob(prompt=prompt, seed=seed, source=pictures[i]))
            states[i] = apply(states[i], edit)
        for i, picture in zip(active, runner.pictures(jobs), strict=True):
            pictures[i] = picture
    return right(pictures, [Goal(scenes=(scene,)) for _, scene in work])


def measure_edits(runner: Runner, n: int) -> tuple[dict[str, Share], dict[Operation, list[Case]]]:
    """First tries by operation, and the cases that failed with the first seed."""
    shares: dict[str, Share] = {}
    failed: dict[Operation, list[Case]] = {}
    everything: list[bool] = []
    for operation in OPERATIONS:
        rng = random.Random(derive_seed("edits", operation))
        forms = ("canonical", "paraphrased")
        cases = [edit_case(rng, operation, forms[i % 2]) for i in range(n)]
        outcomes = _try(runner, [(case, case.prompt) for case in cases])
        shares[operation] = Share.of(outcomes)
        everything += outcomes
        failed[operation] = [c for c, good in zip(cases, outcomes, strict=True) if not good]
    return {"all": Share.of(everything), **shares}, failed


def _try(runner: Runner, asked: Sequence[tuple[Case, str]], *, again: bool = False) -> list[bool]:
    """Whether each prompt does what its case wants; ``again`` draws other sampling seeds."""
    jobs = [
        GenerationJob(
            prompt=prompt, seed=sampling_seed(i) + (1000 if again else 0), source=case.picture
        )
        for i, (case, prompt) in enumerate(asked)
    ]
    return runner.right(jobs, [case.goal for case, _ in asked])


def more_failures(
    runner: Runner, operation: Operation, found: list[Case], n: int, most_tries: int
) -> list[Case]:
    """Try further edits until ``n`` have failed at the first try, or ``most_tries`` were made."""
    rng = random.Random(derive_seed("failures", operation))
    failed, tries = list(found), 0
    while len(failed) < n and tries < most_tries:
        cases = [
            edit_case(rng, operation, rng.choice(("canonical", "paraphrased"))) for _ in range(64)
        ]
        outcomes = _try(runner, [(case, case.prompt) for case in cases])
        failed += [case for case, good in zip(cases, outcomes, strict=True) if not good]
        tries += len(cases)
    return failed[:n]


def measure_repairs(
    runner: Runner, failed: dict[Operation, list[Case]]
) -> dict[str, dict[str, Share]]:
    """What helps after a failure, for each operation that ever fails."""
    by_operation: dict[str, dict[str, Share]] = {}
    rng = random.Random(derive_seed("repairs"))
    for operation, cases in failed.items():
        if not cases:
            continue
        asked = {
            "same_prompt": [case.prompt for case in cases],
            "paraphrase": [_another_wording(case, rng) for case in cases],
        } | {
            style: [correct(c.edit, c.before, style) for c in cases] for style in CORRECTION_STYLES
        }
        by_operation[operation] = {
            way: Share.of(_try(runner, list(zip(cases, prompts, strict=True)), again=True))
            for way, prompts in asked.items()
        }
    return by_operation


def over_failures(
    by_operation: Mapping[str, Mapping[str, Share]], single_edits: Mapping[str, Share]
) -> dict[str, Share]:
    """What helps after a failure of any edit: each operation counts as often as it fails.

    More failures were looked for where an operation seldom fails, so that each has its own figure;
    counted as they are, rare failures would stand for many.
    """
    tried = [single_edits[operation] for operation in by_operation]
    # Half a failure more: what never failed at the first try can fail all the same.
    failures = [((1 - share.value) * share.n + 0.5) / (share.n + 1) for share in tried]
    total = sum(failures)
    weights = [share / total for share in failures]
    rows = list(by_operation.values())
    ways = rows[0] if rows else ()
    return {way: Share.mean([row[way] for row in rows], weights) for way in ways}


def _another_wording(case: Case, rng: random.Random) -> str:
    while True:
        wording = describe_edit(case.edit, case.before, "paraphrased", rng)
        if wording != case.prompt:
            return wording


def measure_knowledge(runner: Runner, n: int) -> dict[str, Share]:
    """Evaluation riddles as captions of one thing, and the same requests made explicit."""
    rng = random.Random(derive_seed("knowledge"))
    bank = riddles("evaluation")
    asked: list[tuple[str, str, Scene]] = []
    for i in range(n):
        riddle: Riddle = bank[i % len(bank)]
        scene = Scene.of({rng.randrange(CELLS): riddle.answer})
        explicit = describe_scene(scene)
        asked.append((pose_riddle(explicit, riddle, rng.choice(riddle.phrases)), explicit, scene))
    found = {}
    for way, index in (("raw", 0), ("explicit", 1)):
        jobs = [
            GenerationJob(prompt=str(row[index]), seed=sampling_seed(i))
            for i, row in enumerate(asked)
        ]
        found[way] = Share.of(runner.right(jobs, [Goal(scenes=(r[2],)) for r in asked]))
    return found


def measure_speed(generator: DiffusersGenerator) -> list[Speed]:
    """Median of five calls per batch size; every edit has its own prompt and picture."""
    rng = random.Random(0)
    found = []
    for batch in BATCHES:
        cases = [edit_case(rng, OPERATIONS[i % len(OPERATIONS)], "canonical") for i in range(batch)]
        prompts = [case.prompt for case in cases]
        sources = [from_bytes(case.picture) for case in cases]
        times = []
        for _ in range(5):
            start = time.perf_counter()
            generator.images(prompts, sources, list(range(batch)))
            times.append(time.perf_counter() - start)
        seconds = sorted(times)[2] / batch
        found.append(Speed(batch, seconds, 1 / seconds))
    return found


def measure(generator: DiffusersGenerator, n: int, tick: Callable[[int], None]) -> Report:
    """Measure everything for one generator with ``n`` prompts a cell."""
    runner = Runner(generator, tick)
    one_shot, composed = measure_captions(runner, n)
    single_edits, failed = measure_edits(runner, n)
    enough: dict[Operation, list[Case]] = {
        operation: more_failures(runner, operation, cases, n, most_tries=24 * n)
        for operation, cases in failed.items()
    }
    by_operation = measure_repairs(runner, enough)
    return Report(
        generator=generator.name,
        one_shot=one_shot,
        single_edits=single_edits,
        composed=composed,
        knowledge=measure_knowledge(runner, n),
        repairs=over_failures(by_operation, single_edits),
        repairs_by_operation=by_operation,
        speed=measure_speed(generator),
    )
