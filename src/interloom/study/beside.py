"""The agents on the unified model's requests of growing complexity, with 1 to 5 attempts a step.

So quality and number of pictures of both systems can be seen side by side. The agents have their
own frozen generator; the unified model draws itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from interloom import cast, loop
from interloom.adaptive.data import thresholds
from interloom.backends.pocket_analyzer import PocketAnalyzer
from interloom.benchmarks.answers import Players
from interloom.benchmarks.published import last_image
from interloom.cache import CallCache
from interloom.records import Evaluation, Request, Thresholds, Trajectory
from interloom.roles import DraftCase
from interloom.runner import StageRun
from interloom.settings.file import load_settings
from interloom.stages import find_stage
from interloom.study.reasoning import Case, Row, make_cases, write_rows

SYSTEM = "full-rl"
AGENTS = ("planner-sft", "critic-rl")
"""Outputs of the stages that train the system."""
ATTEMPTS = (1, 2, 3, 4, 5)
MODE = "agents"
CALLS = "calls.sqlite"


def answer(
    folder: Path, *, params: Path, data: Path, models: Mapping[str, Path], count: int
) -> None:
    """Every case with each number of attempts; equal calls are made once, also after a kill."""
    settings = load_settings(params)
    if not (folder / "data").is_symlink():
        (folder / "data").symlink_to(data, target_is_directory=True)
    calls = CallCache(folder / CALLS)
    stage = StageRun(find_stage("evaluate"), folder, folder, folder, None)
    folders = {"vlm": data / "vlm", **models}
    players = Players(settings, folders, cast.remotes(settings.remote, stage), calls)
    system, generator = players.system(SYSTEM)
    cases = make_cases(count, settings.seed)
    accepted = thresholds(settings.adaptive_data.accepted)
    rows = {}
    for attempts in ATTEMPTS:
        told = loop.run(
            [_request(case) for case in cases],
            system.planner,
            generator,
            system.critic,
            max_attempts=attempts,
            seed=settings.seed,
            slots=len(cases),
        )
        rows[attempts] = _rows(cases, told, accepted)
    write_rows(folder, rows)
    calls.close()


def _request(case: Case) -> Request:
    prompt = case.prompt
    kind = "continuation" if prompt.references else "create"
    return Request(id=prompt.id, text=prompt.instruction, images=prompt.references, kind=kind)


def _rows(cases: Sequence[Case], told: Sequence[Trajectory], accepted: Thresholds) -> list[Row]:
    """``images`` counts every attempt of every step; a request without a picture has failed."""
    final = [last_image(one) for one in told]
    asked = [
        DraftCase(
            instruction=case.prompt.instruction, references=case.prompt.references, image=image
        )
        for case, image in zip(cases, final, strict=True)
        if image is not None
    ]
    answers = iter(PocketAnalyzer().evaluate(asked))
    rows = []
    for case, one, image in zip(cases, told, final, strict=True):
        judged = None if image is None else next(answers)
        right = isinstance(judged, Evaluation) and judged.passes(accepted)
        made = sum(a.image is not None for step in one.steps for a in step.attempts)
        rows.append(
            Row(case.prompt.id, case.complexity, MODE, image is not None, right, False, made, 0, 0)
        )
    return rows
