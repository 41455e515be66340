"""What a critic is for, measured alone: it judges a step, and one refinement repairs it.

Cases are edits of scenes of the evaluation split, made once by the generator: as many that failed
as asked for, and a third as many that went well. ``fix`` is the share of failed steps that are
judged false *and* repaired by executing the refined prompt once.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from interloom import dialogue, images
from interloom.backends.pocket import PocketJudge
from interloom.backends.transformers import ChatModel
from interloom.pocket.language import EditForm, describe_edit
from interloom.pocket.render import render
from interloom.pocket.scene import OPERATIONS, apply, random_edit, random_scene, scene_split
from interloom.records import Failure
from interloom.roles import CritiqueCase, GenerationJob, Generator, JudgeCase
from interloom.seeding import derive_seed
from interloom.train.critic_reward import Case
from interloom.train.measure import REPAIRED, repaired
from interloom.train.refinement import Executed, Refinement, Refiner
from interloom.train.rewards import read_answer

BATCH = 64


@dataclass(frozen=True)
class Outcome:
    """Of one critic, by case: was the judgment right (all cases), was it repaired (failed ones)."""

    judgment: dict[str, float]
    fix: dict[str, float]


def make_cases(generator: Generator, count: int, seed: int, wording: EditForm) -> list[Case]:
    """``count`` failed steps and a third as many good ones, each operation equally often tried.

    ``wording``: how the steps' prompts say what is to be done.
    """
    rng = random.Random(derive_seed(seed, "repair-cases"))
    judge = PocketJudge()
    failed: list[Case] = []
    good: list[Case] = []
    while len(failed) < count:
        jobs: list[GenerationJob] = []
        while len(jobs) < BATCH:
            scene = random_scene(rng, rng.randint(1, 5))
            edit = random_edit(rng, scene, OPERATIONS[len(jobs) % len(OPERATIONS)])
            if edit is None or scene_split(apply(scene, edit)) != "evaluation":
                continue
            before = images.to_png(render(scene, jitter_seed=rng.getrandbits(31)))
            prompt = describe_edit(edit, scene, wording, rng)
            jobs.append(GenerationJob(prompt=prompt, seed=rng.getrandbits(31), source=before))
        for job, after in zip(jobs, generator.generate(jobs), strict=True):
            if isinstance(after, Failure):
                continue
            (score,) = judge.score([JudgeCase(before=job.source, after=after, prompt=job.prompt)])
            assert not isinstance(score, Failure)
            success = score.semantic >= REPAIRED
            case = Case(job.source, after, job.prompt, job.prompt, success, score, job.seed + 1)
            (good if success else failed).append(case)
    return failed[:count] + good[: count // 3]


def judge_critic(
    chat: ChatModel, cases: Sequence[Case], refiner: Refiner, style: dialogue.Style
) -> Outcome:
    """Greedy answers to all cases; the refinements of those judged false are executed."""
    conversations = [
        dialogue.critic_messages(
            CritiqueCase(
                before=case.before, after=case.after, prompt=case.prompt, used_prompt=case.prompt
            ),
            style,
        )
        for case in cases
    ]
    answers = [read_answer(text) for text in chat.generate(conversations)]
    judgment = {
        f"{i:04d}": float(answer is not None and answer.success == case.success)
        for i, (answer, case) in enumerate(zip(answers, cases, strict=True))
    }
    fix = {f"{i:04d}": 0.0 for i, case in enumerate(cases) if not case.success}
    asked: list[str] = []
    refinements: list[Refinement] = []
    for i, (answer, case) in enumerate(zip(answers, cases, strict=True)):
        if case.success or answer is None or answer.success:
            continue
        asked.append(f"{i:04d}")
        refined = answer.refine_prompt.strip() or case.used_prompt
        refinements.append(Refinement(case.before, case.prompt, refined, case.seed))
    for name, result in zip(asked, refiner.execute(refinements), strict=True):
        if isinstance(result, Failure):
            del fix[name]  # no measurement
        else:
            fix[name] = repaired(result.score if isinstance(result, Executed) else result)
    return Outcome(judgment, fix)


def try_critics(
    folder: Path,
    critics: Mapping[str, Callable[[], ChatModel]],
    generator: Generator,
    count: int,
    seed: int,
    style: dialogue.Style,
    wording: EditForm,
) -> None:
    """Write the outcome of every critic on the same cases to ``NAME.json``; kept ones stay."""
    missing = {name: load for name, load in critics.items() if not _file(folder, name).is_file()}
    if not missing:
        return
    cases = make_cases(generator, count, seed, wording)
    # Critics that ask for the same correction share its picture.
    refiner = Refiner(generator, PocketJudge())
    for name, load in missing.items():
        outcome = judge_critic(load(), cases, refiner, style)
        part = _file(folder, name).with_suffix(".part")
        part.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
        part.replace(_file(folder, name))
        print(f"{name}: tried on {len(cases)} steps", flush=True)


def read_outcome(folder: Path, name: str) -> Outcome:
    """What ``try_critics`` wrote of one critic."""
    return Outcome(**json.loads(_file(folder, name).read_text(encoding="utf-8")))


def _file(folder: Path, name: str) -> Path:
    return folder / f"critic-{name}.json"
