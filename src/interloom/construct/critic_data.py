"""The critic's data: trajectories taken apart into single judgments, scored and selected (§3.3).

One row is one iteration ``(I_{i-1}, I_i^t, p_i, r_i^t) → (j, r^{t+1}, R)`` with the judge's two
scores. Images are read shard by shard; what is selected is decided on the scores alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from interloom import cast, dialogue, images
from interloom.cache import CallCache
from interloom.construct import accounts, gallery, reviewed, store
from interloom.construct.selection import (
    ScoredStep,
    Thresholds,
    balance,
    filter_steps,
    split_by_variance,
    step_loss,
)
from interloom.construct.yields import Yield
from interloom.dialogue import Conversation, Style
from interloom.errors import InterloomError
from interloom.records import Critique, Failure, Score, Trajectory
from interloom.roles import CritiqueCase, Judge, JudgeCase

if TYPE_CHECKING:
    import pyarrow as pa

    from interloom.runner import StageRun
    from interloom.settings.data import CriticDataSettings
    from interloom.settings.file import Settings

Split = Literal["sft", "rl"]
SPLITS: tuple[Split, ...] = ("sft", "rl")
HeldOut = Callable[[str, bytes | None], bool]
"""Whether a prompt, said of a picture or of none, belongs to the benchmarks' side."""
JUDGE_BATCH = 256
NOTHING: Mapping[str, str] = {}
NO_JUDGMENTS: Mapping[str, bool] = {}


def critic_schema() -> pa.Schema:
    """One row per judged image; ``before`` is null for a first step."""
    import pyarrow as pa

    words = ("prompt", "used_prompt", "refine_prompt", "reasoning", "category", "generator")
    return pa.schema(
        [
            ("id", pa.string()),
            ("step_id", pa.string()),
            ("attempt", pa.int32()),
            ("before", pa.binary()),
            ("after", pa.binary()),
            *((name, pa.string()) for name in words),
            ("success", pa.bool_()),
            ("semantic", pa.float64()),
            ("quality", pa.float64()),
            ("split", pa.string()),
        ]
    )


def decompose(trajectory: Trajectory) -> Iterator[dict[str, Any]]:
    """One row per attempt, in order; without judgment or image the fields are ``None``."""
    for trace in trajectory.steps:
        step_id = f"{trajectory.request.id}/{trace.step.step_number}"
        for number, attempt in enumerate(trace.attempts):
            critique = attempt.critique
            yield {
                "id": f"{step_id}/{number}",
                "step_id": step_id,
                "attempt": number,
                "before": trace.source,
                "after": attempt.image,
                "prompt": trace.step.prompt,
                "used_prompt": attempt.prompt,
                "refine_prompt": critique and critique.refine_prompt,
                "reasoning": critique and critique.reasoning,
                "category": trajectory.request.category,
                "generator": attempt.generator,
                "success": critique and critique.success,
            }


def score_rows(
    rows: Iterable[Mapping[str, Any]], judge: Judge
) -> Iterator[tuple[Mapping[str, Any], Score | Failure]]:
    """Each row with the judge's scores of its image against the step's original prompt."""
    waiting = iter(rows)
    missing = Failure(role="judge", reason="the attempt has no judgment to score")
    while group := list(islice(waiting, JUDGE_BATCH)):
        whole = [row for row in group if row["after"] is not None and row["success"] is not None]
        cases = [JudgeCase(before=r["before"], after=r["after"], prompt=r["prompt"]) for r in whole]
        scores = dict(zip((r["id"] for r in whole), judge.score(cases), strict=True))
        yield from ((row, scores.get(row["id"], missing)) for row in group)


def scored_steps(scored: Iterable[tuple[str, str, bool | None, Score | None]]) -> list[ScoredStep]:
    """Group ``(id, step_id, judgment, score)`` by step, keeping the order of first appearance."""
    steps: dict[str, list[tuple[bool | None, Score | None]]] = defaultdict(list)
    for _, step_id, judgment, score in scored:
        steps[step_id].append((judgment, score))
    return [
        ScoredStep(
            key=step_id,
            scores=tuple(score and score.overall for _, score in attempts),
            judgments=tuple(bool(judgment) for judgment, _ in attempts),
        )
        for step_id, attempts in steps.items()
    ]


def limits_of(settings: CriticDataSettings) -> Thresholds | None:
    """What steps are filtered by; nothing in the "unfiltered" ablation."""
    if not settings.filter:
        return None
    return Thresholds(low=settings.low, high=settings.high, tolerance=settings.tolerance)


def select(
    steps: Sequence[ScoredStep],
    settings: CriticDataSettings,
    seed: int,
    excluded: Mapping[str, str] = NOTHING,
    given: Mapping[str, bool] = NO_JUDGMENTS,
) -> tuple[dict[str, Split], list[Yield], dict[str, float]]:
    """Ids of the rows that are data, with their split; the account; and the numbers behind it.

    ``filter`` and ``balance`` of the settings are the paper's ablation switches. A step in which a
    call failed is never data, nor is one of ``excluded`` (step → reason). ``given`` (row →
    judgment) are people's: they are for SFT, unfiltered, and balanced with the others.
    """
    yields: list[Yield] = []
    if excluded:
        allowed = [step for step in steps if step.key not in excluded]
        reasons = Counter(excluded[step.key] for step in steps if step.key in excluded)
        yields.append(Yield("exclude", len(steps), len(allowed), dict(reasons)))
        steps = allowed
    kept, losses = filter_steps(steps, limits_of(settings))
    yields.append(Yield("filter-steps", len(steps), len(kept), dict(losses)))
    majority = settings.majority if settings.balance else None
    positive = sum(given.values())
    sft, rl, cut = split_by_variance(
        kept,
        ratio=settings.sft_rl_ratio,
        majority=majority,
        given=(positive, len(given) - positive),
    )
    chosen: dict[str, Split] = {}
    numbers = {"variance_cut": cut}
    parts: tuple[tuple[Split, list[ScoredStep]], ...] = (("sft", sft), ("rl", rl))
    for name, part in parts:
        judgments = {
            f"{step.key}/{number}": judged
            for step in part
            for number, judged in enumerate(step.judgments)
        }
        if name == "sft":
            judgments |= given
        ids, lost = set(judgments), {}
        if majority is not None:
            ids, lost = balance(judgments, majority=majority, seed=seed)
        yields.append(Yield(f"balance-{name}", len(judgments), len(ids), lost))
        chosen |= dict.fromkeys(ids, name)
        positive = sum(judgments[row] for row in ids)
        numbers[f"{name}_rows"] = len(ids)
        numbers[f"{name}_positive"] = round(positive / len(ids), 4) if ids else 0.0
    return chosen, yields, numbers


def row_content(row: Mapping[str, Any]) -> str:
    """Digest of what the critic is shown: two rows alike in it are copies."""
    return store.content(row["before"], row["after"], row["prompt"], row["used_prompt"])


def to_messages(row: Mapping[str, Any], style: Style) -> Conversation:
    """A critic row as a whole chat, the answer included, with its images as bytes."""
    case = CritiqueCase(
        before=row["before"],
        after=row["after"],
        prompt=row["prompt"],
        used_prompt=row["used_prompt"],
    )
    critique = Critique(
        success=row["success"], refine_prompt=row["refine_prompt"], reasoning=row["reasoning"]
    )
    messages, pictures = dialogue.critic_messages(case, style)
    answer = dialogue.answer_message(dialogue.format_critique(critique))
    return Conversation([*messages, answer], pictures)


def to_conversation(row: Mapping[str, Any], style: Style) -> dict[str, Any]:
    """A critic row for TRL: ``prompt`` and ``completion`` as messages, ``images`` as PIL."""
    messages, pictures = to_messages(row, style)
    return {
        "prompt": messages[:-1],
        "completion": messages[-1:],
        "images": [images.from_bytes(data, row["id"]) for data in pictures],
    }


def rows_of(folder: Path) -> Iterator[dict[str, Any]]:
    """One row per attempt of all trajectories of a folder, images included, a shard at a time."""
    return (row for t in store.read_trajectories(folder) for row in decompose(t))


def exclusion(row: Mapping[str, Any], seen: set[str], held_out: HeldOut) -> str | None:
    """Why a row may not be trained on: a copy of an earlier one, or the benchmarks' matter."""
    key = row_content(row)
    if key in seen:
        return "duplicate"
    seen.add(key)
    return "held-out" if held_out(row["prompt"], row["before"]) else None


@dataclass
class Scored:
    """What is known of every attempt, its images apart."""

    rows: list[tuple[str, str, bool | None, Score | None]] = field(default_factory=list)
    """``(id, step_id, judgment, score)`` in the order of the trajectories."""
    excluded: dict[str, str] = field(default_factory=dict)
    """Steps that may not be trained on, with the reason."""
    contents: set[str] = field(default_factory=set)
    """``row_content`` of every row that has a score."""
    failures: int = 0
    """Judged attempts that the judge gave no score."""

    @property
    def scores(self) -> dict[str, Score]:
        """By row id, where there is one."""
        return {name: score for name, _, _, score in self.rows if score is not None}


def score_all(
    scored: Iterable[tuple[Mapping[str, Any], Score | Failure]], held_out: HeldOut
) -> Scored:
    """Keep of scored rows what the selection needs; the images are let go."""
    found = Scored()
    for row, score in scored:
        known = None if isinstance(score, Failure) else score
        found.failures += row["success"] is not None and known is None
        if known is not None:
            reason = exclusion(row, found.contents, held_out)
            if reason is not None:
                found.excluded[row["step_id"]] = reason
        found.rows.append((row["id"], row["step_id"], row["success"], known))
    return found


def fates(
    scored: Scored,
    steps: Sequence[ScoredStep],
    chosen: Mapping[str, Split],
    limits: Thresholds | None,
) -> Iterator[dict[str, Any]]:
    """Scores of every attempt, and what became of it: a split, or why it is in none."""
    lost = {step.key: step_loss(step.scores, limits) for step in steps}
    for name, step_id, _, score in scored.rows:
        yield {
            "id": name,
            "semantic": score and score.semantic,
            "quality": score and score.quality,
            "fate": chosen.get(name) or scored.excluded.get(step_id) or lost[step_id] or "surplus",
        }


def fate_schema() -> pa.Schema:
    """One row per attempt, chosen or not; the scores are null where a call failed."""
    import pyarrow as pa

    return pa.schema(
        {
            "id": pa.string(),
            "semantic": pa.float64(),
            "quality": pa.float64(),
            "fate": pa.string(),
        }
    )


def write(
    trajectories: Path,
    folder: Path,
    chosen: Mapping[str, Split],
    scores: Mapping[str, Score],
    facts: Mapping[str, Any],
    feedback: Path | None = None,
) -> None:
    """Write ``sft.parquet`` and ``rl.parquet`` with the images of what was chosen."""
    for name in SPLITS:
        rows = (
            row
            | {
                "semantic": scores[row["id"]].semantic,
                "quality": scores[row["id"]].quality,
                "split": name,
            }
            for row in rows_of(trajectories)
            if chosen.get(row["id"]) == name
        )
        path = folder / f"{name}.parquet"
        if feedback is not None and name == "sft":
            rows = chain(rows, reviewed.rows_of(feedback, chosen))
        store.write_table(path, rows, critic_schema(), {**facts, "split": name})


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage ``critic-data``."""
    source, out = stage.dep("trajectories"), stage.out("critic-data")
    options = settings.critic_data
    cache = CallCache(stage.work / "judge.sqlite")
    judge = cast.judge(settings.teacher, cast.remotes(settings.remote, stage), cache)
    rows = stage.progress(score_rows(rows_of(source), judge), "scoring attempts")
    scored = score_all(rows, cast.held_out(settings.prompts))
    cache.close()
    steps = scored_steps(scored.rows)
    feedback, said = Path(options.feedback) if options.feedback else None, reviewed.Reviewed({}, {})
    if feedback is not None:
        held_out = cast.held_out(settings.prompts)
        said = reviewed.read(feedback, lambda row: exclusion(row, scored.contents, held_out))
    chosen, yields, numbers = select(
        steps, options, settings.seed, scored.excluded, given=said.judgments
    )
    if not chosen:
        raise InterloomError(
            "critic-data: no step is left after filtering and balancing; see critic_data.low, "
            f"critic_data.high and the counts: {[dict(entry.lost) for entry in yields]}"
        )
    facts = {"format": "critic/1", "seed": settings.seed, "judge": judge.name}
    write(source, out, chosen, scored.scores, facts, feedback)
    every = fates(scored, steps, chosen, limits_of(options))
    store.write_table(out / "scores.parquet", every, fate_schema(), facts)
    numbers |= {"attempts": len(scored.rows), "judge_failures": scored.failures}
    if feedback is not None:
        given, kept = len(said.judgments), len(said.judgments.keys() & chosen.keys())
        yields.append(Yield("feedback", given + sum(said.lost.values()), given, said.lost))
        numbers |= {"feedback_rows": kept}
    accounts.write(stage, yields, numbers)
    if settings.trajectories.shown:
        ids = gallery.choose(source, settings.trajectories.shown, settings.seed)
        page, title = stage.work / "scored.html", f"{len(ids)} trajectories with their scores"
        stage.artifact(gallery.write(source, page, ids, title, out / "scores.parquet"), "gallery")
