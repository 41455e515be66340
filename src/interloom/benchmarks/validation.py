"""Is a pocket edition sound? Every item must be solvable, held out, and not by doing nothing.

No model takes part: the oracle plans, an exact renderer draws what it is told, and the edition's
own judge grades. ``interloom benchmarks validate`` runs this over all editions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from interloom import images, loop
from interloom.backends.pocket import PocketTeacher, on_evaluation_side, scene_of
from interloom.benchmarks.published import last_image
from interloom.pocket import references
from interloom.pocket.language import MeaningError, parse
from interloom.pocket.render import render
from interloom.pocket.scene import Scene
from interloom.records import Attempt, Failure, Plan, Request, Step, StepTrace, Trajectory
from interloom.roles import GenerationJob

if TYPE_CHECKING:
    from interloom.benchmarks.editions import Pocket

SOLVED, UNSOLVED = 99.9, 50.0
"""Least score of an item that is answered rightly, and most of one answered by a blank picture."""


class Renderer:
    """A generator that draws exactly what it is told in the pocket world's plain language.

    What it does not understand leaves the picture as it is.
    """

    name = "renderer"

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        """One encoded picture per job."""
        return [self._draw(job) for job in jobs]

    def _draw(self, job: GenerationJob) -> bytes:
        before = scene_of(job.source)
        try:
            goal = parse(job.prompt, before)
        except MeaningError:
            return job.source or images.to_png(render(Scene()))
        return images.to_png(render(goal.nearest(before or Scene(background=goal.background))))


def blank(request: Request) -> Trajectory:
    """The answer of a system that plans well enough and draws an empty page."""
    step = Step(step_number=1, instruction=request.text, prompt=request.text)
    attempt = Attempt(prompt=request.text, seed=0, image=images.to_png(render(Scene())))
    trace = StepTrace(step=step, source=None, attempts=(attempt,))
    return Trajectory(request=request, plan=Plan(steps=(step,)), steps=(trace,))


def validate(edition: Pocket, count: int, seed: int) -> list[str]:
    """What is wrong with an edition's items, a line each; nothing if it is sound."""
    oracle = PocketTeacher()
    requests = edition.requests(count, seed)
    problems = [f"{r.id}: may occur in training" for r in requests if not held_out(r)]
    problems += _copies(requests)
    answers = {
        "solved": loop.run(requests, oracle, Renderer(), oracle, max_attempts=1, seed=seed),
        "blank": [blank(request) for request in requests],
    }
    for name, trajectories in answers.items():
        with tempfile.TemporaryDirectory() as folder:
            edition.write(Path(folder), trajectories, with_text=True)
            graded = edition.grade(Path(folder), count, seed)
        for item, value in graded.items.items():
            if name == "solved" and value < SOLVED:
                problems.append(f"{item}: the oracle's answer gets {value:.1f} of 100")
            if name == "blank" and value > UNSOLVED:
                problems.append(f"{item}: a blank picture gets {value:.1f} of 100")
        if graded.unjudged:
            problems.append(f"{graded.unjudged:.1%} of the judge's answers are missing ({name})")
    ended = sum(last_image(trajectory) is None for trajectory in answers["solved"])
    return problems + ([f"{ended} items end without a picture"] if ended else [])


def held_out(request: Request) -> bool:
    """Whether no training split can hold this question: its text or target is the benchmarks'.

    No training text takes things from other pictures.
    """
    before = request.images[-1] if request.images else None
    return bool(references.mentioned(request.text)) or on_evaluation_side(request.text, before)


def _copies(requests: Sequence[Request]) -> list[str]:
    """Items that ask the same of the same pictures; pictures of one prompt are one item."""
    seen: dict[tuple[object, ...], str] = {}
    copies = []
    for request in requests:
        asked = (request.text, request.images, request.kind)
        if asked in seen:
            copies.append(f"{request.id}: the same question as {seen[asked]}")
        seen.setdefault(asked, request.id)
    return copies
