"""Plans of a planner on held-out UEval requests, by kind of request.

    python scripts/plans.py                              the lifecycle's planner, 96 requests
    python scripts/plans.py MODEL --count 192            another one

A step is right if its prompt, said of the picture that the teacher's steps before it make, means
the picture that the teacher's step makes. Answers are greedy, asked for once.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from interloom.agents import ModelPlanner
from interloom.backends.transformers import ChatModel
from interloom.benchmarks import pocket_ueval
from interloom.pocket import teacher
from interloom.pocket.language import MeaningError
from interloom.pocket.meaning import procedure_steps, understand
from interloom.pocket.scene import Scene
from interloom.records import Failure
from interloom.settings.file import load_settings


@dataclass
class Tally:
    """Of one kind: requests, whole plans and steps that are right, plans that cannot be read."""

    requests: int = 0
    whole: int = 0
    steps: int = 0
    right: int = 0
    unread: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, default=Path("outputs/models/planner-sft"))
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    settings = load_settings()
    chat = ChatModel.from_pretrained(
        options.model,
        max_new_tokens=settings.evaluate.planner_max_new_tokens,
        max_image_pixels=settings.models.max_image_pixels,
    )
    requests = pocket_ueval.requests(options.count, options.seed)
    plans = ModelPlanner(chat, settings.models.dialogue, retries=0).plan(requests)
    tallies: dict[str, Tally] = defaultdict(Tally)
    for request, plan in zip(requests, plans, strict=True):
        tally = tallies[_kind(request.text)]
        wanted = [step.prompt or "" for step in teacher.plan(request.text).steps]
        made = [] if isinstance(plan, Failure) else [step.prompt or "" for step in plan.steps]
        right, scene = 0, None
        for mine, theirs in zip_longest(made, wanted):
            after = _picture(theirs, scene)
            right += after is not None and _picture(mine, scene) == after
            scene = after
        tally.requests += 1
        tally.whole += right == len(wanted) == len(made)
        tally.steps += len(wanted)
        tally.right += right
        tally.unread += isinstance(plan, Failure)
    for kind, t in sorted(tallies.items()):
        print(
            f"{kind:20} n {t.requests:3}  whole plans {t.whole / t.requests:.2f}"
            f"  steps {t.right / t.steps:.2f}  unread {t.unread}"
        )


def _picture(prompt: str | None, before: Scene | None) -> Scene | None:
    """What a prompt makes of a picture; ``None`` if it is none, or means nothing there."""
    if prompt is None:
        return None
    try:
        return understand(prompt, before).goal.nearest(before or Scene())
    except MeaningError:
        return None


def _kind(text: str) -> str:
    if procedure_steps(text):
        return "procedure"
    return "scene, then orders" if "; " in text else "scene"


if __name__ == "__main__":
    main()
