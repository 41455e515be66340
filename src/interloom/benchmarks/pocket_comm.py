"""CoMM's pocket edition: procedures of the evaluation split, continued (task 3) or asked for (4).

The exact judge knows what each picture has to show and each text to say:

- *style*: share of the pictures that are whole pictures of this world
- *entity*: share of the things that have to stay and did (not applicable where none has to)
- *trend*: share of the changes from picture to picture that are as they should be
- *consistency*: share of the steps that text and picture tell alike
- *completeness*: share of the steps that some picture shows
- *quality*: workmanship; *relevance*: what the verifier says of each picture's meaning
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path

from interloom.backends.pocket import read_ahead, reading
from interloom.benchmarks import comm
from interloom.benchmarks.comm import MARK, Answer, Grades, Item
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.pocket_scenes import asked_procedure, draw, is_empty
from interloom.benchmarks.pocket_ueval import judge_text
from interloom.pocket import verifier
from interloom.pocket.goal import Goal
from interloom.pocket.knowledge import MAIN_CATEGORIES, Procedure, procedures
from interloom.pocket.meaning import KnownProcedure
from interloom.pocket.procedures import ConcreteStep
from interloom.pocket.scene import Scene
from interloom.pocket.verifier import Reading
from interloom.records import Request
from interloom.seeding import derive_seed

NAME = comm.NAME
PROTOCOL = f"{comm.PROTOCOL}, pocket edition 1"
JUDGE = "pocket-verifier"
TURNS = 3
"""Times that the bank is gone through, at most, for as many samples as are wanted."""
write = comm.write


@dataclass(frozen=True)
class PocketItem:
    """A sample and the steps that are still to come, after ``start``."""

    item: Item
    start: Scene
    steps: tuple[ConcreteStep, ...]


@lru_cache(maxsize=4)
def items(count: int, seed: int) -> tuple[PocketItem, ...]:
    """``count`` samples at most, half of each task as far as that goes, over all categories."""
    by_category = [
        [p for p in procedures("evaluation") if p.category == category]
        for category in MAIN_CATEGORIES
    ]
    bank = [p for turn in zip_longest(*by_category) for p in turn if p is not None]
    half = count // len(comm.TASKS)
    answers = _distinct("task4", half, bank, seed)
    # Procedures can be asked for in few ways, and continued from many pictures.
    return (*_distinct("task3", 2 * half - len(answers), bank, seed), *answers)


def _distinct(task: str, count: int, bank: Sequence[Procedure], seed: int) -> list[PocketItem]:
    """So many samples that ask different things, or as many as there are."""
    made: list[PocketItem] = []
    asked: set[str] = set()
    for turn in range(count * TURNS):
        if len(made) == count:
            break
        name = f"{task}-{len(made):04d}"
        rng = random.Random(derive_seed(seed, NAME, task, turn))
        found = asked_procedure(bank[turn % len(bank)], rng, asked if task == "task4" else ())
        if found is not None:
            made.append(_item(name, task, *found, rng))
            asked.add(found[0])
    return made


def _item(
    name: str, task: str, prompt: str, known: KnownProcedure, rng: random.Random
) -> PocketItem:
    if task == "task4":
        return PocketItem(Item(name, task, prompt), Scene(), known.steps)
    # A picture that comes twice would leave open how much has been done.
    cuts = [n for n in range(1, len(known.steps)) if known.done(known.steps[n - 1].scene) == n]
    cut = rng.choice(cuts)
    given = known.steps[:cut]
    text = " ".join([prompt, *(f"{MARK} {said(step)}" for step in given)])
    pictures = tuple(draw(step.scene, rng) for step in given)
    return PocketItem(Item(name, task, text, pictures), given[-1].scene, known.steps[cut:])


def said(step: ConcreteStep) -> str:
    """What stands beside the picture of a step."""
    return step.auxiliary_text or step.instruction


def published(count: int, seed: int) -> list[Item]:
    """The samples as they are published."""
    return [made.item for made in items(count, seed)]


def requests(count: int, seed: int) -> list[Request]:
    """The samples as requests."""
    return comm.requests(published(count, seed))


def grade(folder: Path, count: int, seed: int) -> Graded:
    """Judge every answer, then score as the benchmark does."""
    chosen = items(count, seed)
    answers = {made.item.id: comm.read_answer(made.item, folder) for made in chosen}
    read_ahead(image for answer in answers.values() for image in answer.images)
    grades = {made.item.id: judge(answers[made.item.id], made) for made in chosen}
    return comm.graded(published(count, seed), grades, protocol=PROTOCOL, judge=JUDGE)


def judge(answer: Answer, made: PocketItem) -> Grades:
    """CoMM's seven figures of an answer; what is missing counts as wrong."""
    if not answer.images:
        return comm.NOTHING
    steps = made.steps
    seen = [reading(image) for image in answer.images]
    shown = dict(enumerate(seen[: len(steps)]))
    before = [made.start, *(step.scene for step in steps[:-1])]
    wanted = [step.scene for step in steps]
    # An empty page is well made only where nothing is to be seen.
    whole = [
        p for p in shown if not seen[p].unreadable and not (is_empty(seen[p]) and wanted[p].count)
    ]
    told = dict(enumerate(answer.texts))
    stays = [_kept(before[p], wanted[p], shown.get(p)) for p in range(len(steps))]
    kept = [share for share in stays if share is not None]
    # Pictures that are too many lead nowhere.
    length = max(len(steps), len(seen))
    return Grades(
        style=10 * len(whole) / len(steps),
        entity=10 * _mean(kept) if kept else None,
        trend=10 * sum(_changed(before[p], wanted[p], shown[p]) for p in shown) / length,
        consistency=10
        * _mean([_alike(told.get(p, ""), shown.get(p), s) for p, s in enumerate(steps)]),
        completeness=10 * _mean([any(r.scene == scene for r in seen) for scene in wanted]),
        quality=sum(seen[p].quality for p in whole) / len(steps),
        relevance=sum(_relevance(shown[p], wanted[p]) for p in shown) / len(steps),
    )


def _kept(before: Scene, wanted: Scene, seen: Reading | None) -> float | None:
    """Share of the things that stay in place from one step to the next and are there."""
    stay = [cell for cell, s in wanted.sprites() if before.cells[cell] == s]
    if not stay:
        return None
    return _mean([seen is not None and seen.cells[c].sprite == wanted.cells[c] for c in stay])


def _changed(before: Scene, wanted: Scene, seen: Reading) -> float:
    """Share of the changes of a step that a picture shows."""
    met = [
        seen.cells[cell].readable and seen.cells[cell].sprite == wanted.cells[cell]
        for cell in before.difference(wanted)
    ]
    if before.background != wanted.background:
        met.append(seen.background == wanted.background)
    return _mean(met) if met else float(seen.scene == wanted)


def _alike(text: str, seen: Reading | None, step: ConcreteStep) -> bool:
    """Whether text and picture tell of the step."""
    tells = judge_text(f"The text says: {said(step)}", text) == "met"
    return tells and seen is not None and seen.scene == step.scene


def _relevance(seen: Reading, wanted: Scene) -> float:
    return verifier.judge(seen, Goal(scenes=(wanted,))).semantic


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
