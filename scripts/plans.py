"""Plans of a planner on held-out UEval requests, by kind of request.

    python scripts/plans.py                              the lifecycle's planner, 96 requests
    python scripts/plans.py MODEL --count 192            another one

A step is right if its prompt is the teacher's, word for word. Answers are greedy, asked for once.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from interloom.agents import ModelPlanner
from interloom.backends.transformers import ChatModel
from interloom.benchmarks import pocket_ueval
from interloom.pocket import teacher
from interloom.pocket.meaning import procedure_steps
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
        wanted = [step.prompt for step in teacher.plan(request.text).steps]
        made = [] if isinstance(plan, Failure) else [step.prompt for step in plan.steps]
        tally.requests += 1
        tally.whole += made == wanted
        tally.steps += len(wanted)
        tally.right += sum(a == b for a, b in zip(made, wanted, strict=False))
        tally.unread += isinstance(plan, Failure)
    for kind, t in sorted(tallies.items()):
        print(
            f"{kind:20} n {t.requests:3}  whole plans {t.whole / t.requests:.2f}"
            f"  steps {t.right / t.steps:.2f}  unread {t.unread}"
        )


def _kind(text: str) -> str:
    if procedure_steps(text):
        return "procedure"
    return "scene, then orders" if "; " in text else "scene"


if __name__ == "__main__":
    main()
