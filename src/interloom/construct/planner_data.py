"""The planner's data, self-synthesised from trajectories and unfiltered (§3.3, appendix).

A trajectory is an interleaved sequence: the plan's texts with the final picture of each step. Cut
at a step, the part before is the multimodal input and the rest of the plan is the target. The same
sequence, asked about instead of continued, makes text responses.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom import dialogue, images
from interloom.construct import accounts, general, store
from interloom.construct.yields import Yield
from interloom.dialogue import Conversation, Style
from interloom.errors import InterloomError
from interloom.records import Plan, Request, Step, StepTrace, Trajectory, caption_of
from interloom.seeding import derive_seed

if TYPE_CHECKING:
    import pyarrow as pa

    from interloom.runner import StageRun
    from interloom.settings.file import Settings

TELL = (
    "Say for each picture what was done.",
    "Write the step that led to each picture.",
)


def planner_schema() -> pa.Schema:
    """One row per sample: the request with its images, and the plan that answers it."""
    import pyarrow as pa

    return pa.schema(
        {
            "id": pa.string(),
            "source": pa.string(),
            "text": pa.string(),
            "kind": pa.string(),
            "category": pa.string(),
            "subcategory": pa.string(),
            "images": pa.list_(pa.binary()),
            "captions": pa.list_(pa.string()),
            "reasoning": pa.string(),
            "plan": pa.list_(store.step_type()),
        }
    )


def _shown(trajectory: Trajectory) -> list[StepTrace]:
    """The steps whose picture can be shown, from the first on without a gap."""
    shown: list[StepTrace] = []
    for trace in trajectory.steps:
        if trace.accepted is None:
            break
        shown.append(trace)
    return shown


def _pictures(trajectory: Trajectory, steps: int) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """Input pictures and the first ``steps`` results, with their captions."""
    request = trajectory.request
    pictures = list(request.images)
    captions = list(request.captions or [""] * len(request.images))
    for trace in _shown(trajectory)[:steps]:
        assert trace.accepted is not None and trace.accepted.image is not None
        pictures.append(trace.accepted.image)
        captions.append(caption_of(trace.step))
    return tuple(pictures), tuple(captions)


def whole(trajectory: Trajectory) -> tuple[Request, Plan]:
    """The request as it was asked, and the whole plan."""
    assert trajectory.plan is not None
    return trajectory.request, trajectory.plan


def truncated(trajectory: Trajectory, cut: int) -> tuple[Request, Plan]:
    """``cut`` steps are given with their pictures; the steps after them are the target."""
    plan = trajectory.plan
    assert plan is not None and 1 <= cut < len(plan.steps) and cut <= len(_shown(trajectory))
    pictures, captions = _pictures(trajectory, cut)
    rest = plan.steps[cut:]
    request = trajectory.request.model_copy(
        update={
            "id": f"{trajectory.request.id}/after-{cut}",
            "images": pictures,
            "captions": captions,
            "kind": "continuation",
        }
    )
    there = f"{len(pictures)} pictures are there, step {rest[0].step_number} is next."
    thought = [plan.reasoning.removesuffix("."), there]
    return request, Plan(reasoning=". ".join(filter(None, thought)), steps=rest)


def described(trajectory: Trajectory, steps: int, question: str) -> tuple[Request, Plan]:
    """The pictures of the first ``steps`` steps are given; their texts are the target."""
    done = _shown(trajectory)[:steps]
    assert done
    answers = [
        Step(
            step_number=number,
            step_name=trace.step.step_name,
            instruction=None,
            prompt=None,
            auxiliary_text=caption_of(trace.step),
        )
        for number, trace in enumerate(done, 1)
    ]
    pictures, _ = _pictures(trajectory, steps)
    request = trajectory.request.model_copy(
        update={
            "id": f"{trajectory.request.id}/text-{steps}",
            "text": f"{trajectory.request.text}\n{question}",
            "images": pictures[len(trajectory.request.images) :],
            "captions": (),
            "kind": "text_response",
        }
    )
    reasoning = f"{len(done)} pictures are given and text is wanted for each."
    return request, Plan(reasoning=reasoning, steps=tuple(answers))


def samples(trajectory: Trajectory, count: int, seed: int) -> Iterator[tuple[str, Request, Plan]]:
    """Up to ``count`` different samples: the whole plan first, then cuts and questions at random.

    Gives ``(source, request, plan)``; nothing for a trajectory without a plan.
    """
    if trajectory.plan is None:
        return
    yield ("request", *whole(trajectory))
    if trajectory.request.kind == "text_response":
        return
    rng = random.Random(derive_seed(seed, "planner-data", trajectory.request.id))
    shown = len(_shown(trajectory))
    cuts = range(1, min(shown, len(trajectory.plan.steps) - 1) + 1)
    choices = [("truncated", cut) for cut in cuts]
    # Texts are easier than plans: a third of the samples at most.
    most = min(shown, -(-count // 3))
    choices += [("described", steps) for steps in rng.sample(range(1, shown + 1), most)]
    for source, steps in rng.sample(choices, min(count - 1, len(choices))):
        if source == "truncated":
            yield (source, *truncated(trajectory, steps))
        else:
            yield (source, *described(trajectory, steps, rng.choice(TELL)))


def planner_row(source: str, request: Request, plan: Plan) -> dict[str, Any]:
    return {
        "source": source,
        **store.request_row(request),
        "reasoning": plan.reasoning,
        "plan": [store.step_row(step) for step in plan.steps],
    }


def to_messages(row: Mapping[str, Any], style: Style) -> Conversation:
    """A planner row as a whole chat, the answer included, with its images as bytes."""
    messages, pictures = dialogue.planner_messages(store.request_from(row), style)
    plan = Plan(reasoning=row["reasoning"], steps=tuple(Step(**step) for step in row["plan"]))
    answer = dialogue.answer_message(dialogue.format_plan(plan))
    return Conversation([*messages, answer], pictures)


def to_conversation(row: Mapping[str, Any], style: Style) -> dict[str, Any]:
    """A planner row for TRL: ``prompt`` and ``completion`` as messages, ``images`` as PIL."""
    messages, pictures = to_messages(row, style)
    return {
        "prompt": messages[:-1],
        "completion": messages[-1:],
        "images": [images.from_bytes(data, row["id"]) for data in pictures],
    }


def build(
    trajectories: Iterable[Trajectory],
    count: int,
    seed: int,
    tally: Counter[str],
    prefix: str = "",
) -> Iterator[dict[str, Any]]:
    """Rows of all trajectories; ``tally`` is filled with what came, went out and was lost.

    ``prefix`` goes before the name of each row's source.

    A sample whose content has been seen (two requests alike up to the cut) is left out.
    """
    seen: set[str] = set()
    for trajectory in trajectories:
        tally["trajectories"] += 1
        if trajectory.plan is None:
            tally["lost.no-plan"] += 1
            continue
        for source, request, plan in samples(trajectory, count, seed):
            tally["samples"] += 1
            content = request.model_copy(update={"id": ""}).model_dump()
            key = images.digest(repr(content).encode())
            if key in seen:
                tally["lost.duplicate"] += 1
                continue
            seen.add(key)
            tally[f"source.{prefix}{source}"] += 1
            yield planner_row(prefix + source, request, plan)


def account(tally: Counter[str], kind: str = "") -> list[Yield]:
    """What became of the plans, and of the samples that were cut from them."""
    came, lost = tally["trajectories"], tally["lost.no-plan"]
    samples, doubled = tally["samples"], tally["lost.duplicate"]
    return [
        Yield(f"{kind}plans", came, came - lost, {"no-plan": lost}),
        Yield(f"{kind}samples", samples, samples - doubled, {"duplicate": doubled}),
    ]


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage ``planner-data``."""
    options, seed = settings.planner_data, settings.seed
    count = options.samples_per_trajectory
    tally, other, lost = Counter[str](), Counter[str](), Counter[str]()
    trajectories = stage.progress(
        store.read_trajectories(stage.dep("trajectories")), "cutting sequences"
    )
    rows = build(trajectories, count, seed, tally)
    if options.interleaved:
        from interloom.construct import comm
        from interloom.construct.interleaved import to_trajectory

        sequences = comm.read(Path(options.interleaved), lost)
        rows = chain(rows, build(map(to_trajectory, sequences), count, seed, other, "imported-"))
    facts = {"format": "planner/1", "seed": seed}
    path = stage.out("planner-data") / "sft.parquet"
    if not store.write_table(path, rows, planner_schema(), facts):
        raise InterloomError("planner-data: the trajectories hold no plan to learn from")
    if options.general:
        questions = general.rows(options.general, options.general_rows, seed)
        facts = {"format": "general/1", "seed": seed}
        path = path.with_name("general.parquet")
        written = store.write_table(path, questions, general.general_schema(), facts)
        if not written:
            raise InterloomError(f"planner_data.general: {options.general} has no questions")
        tally["source.general"] = written
    yields = account(tally)
    if options.interleaved:
        kept = other["trajectories"]
        yields += [Yield("imported", kept + sum(lost.values()), kept, dict(lost))]
        yields += account(other, "imported-")
    sources = {n: c for n, c in sorted((tally + other).items()) if n.startswith("source.")}
    accounts.write(stage, yields, sources)
