"""Feedback on served pictures becomes critic data, in the format that training reads.

A row is one attempt on which a person gave a verdict. Where the person and the serving critic
agree, the critic's words are kept. Where they do not, the words must be the person's (the comment,
the correction) or the teacher's, if the teacher sees it as the person does; a row without right
words would teach wrong ones, and is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom import cast
from interloom.backends.ledger import LEDGER
from interloom.construct import critic_data, reviewed, store
from interloom.digests import digest
from interloom.errors import InterloomError
from interloom.records import Critique, Failure, Trajectory
from interloom.roles import CritiqueCase, Teacher
from interloom.serve.traces import FEEDBACK_TAG, MODE_TAG, RESPONSE_TAG, experiment_name
from interloom.tracking import tracking_uri

if TYPE_CHECKING:
    from interloom.settings.file import Settings

PAGE = 100


@dataclass(frozen=True)
class Verdict:
    """What a person said of one attempt."""

    accept: bool
    correction: str | None
    comment: str | None


@dataclass(frozen=True)
class Exported:
    """Rows written, and why others were not."""

    path: Path
    rows: int
    lost: Mapping[str, int]


def export(settings: Settings, root: Path, folder: Path) -> Exported:
    """Write all feedback in MLflow to a Parquet file (``critic_data.critic_schema``) in ``folder``.

    It is named after its content, because stages see the names of such files alone.

    Raises:
        InterloomError: there is no feedback, or none of it can be used.
    """
    from interloom.backends.remote import Remotes

    remotes = Remotes(settings.remote, root / LEDGER, purpose="feedback")
    teacher = cast.teacher(settings.teacher, remotes, perfect=True)
    judge = cast.judge(settings.teacher, remotes)
    held_out, seen = cast.held_out(settings.prompts), set[str]()
    lost: Counter[str] = Counter()
    kept: list[dict[str, Any]] = []
    for row, verdict in _judged_rows(settings, root, lost):
        taught = review(row, verdict, teacher)
        reason = "no right words" if taught is None else None
        reason = reason or critic_data.exclusion(row, seen, held_out)
        if taught is None or reason is not None:
            lost[reason or ""] += 1
            continue
        kept.append(taught)
    rows: list[dict[str, Any]] = []
    for row, score in critic_data.score_rows(kept, judge):
        if isinstance(score, Failure):
            lost["judge failed"] += 1
            continue
        scores = {"semantic": score.semantic, "quality": score.quality, "split": "sft"}
        rows.append({**row, **scores})
    if not rows:
        raise InterloomError(f"no feedback to write; left out: {dict(lost) or 'nothing'}")
    about = {"format": reviewed.FORMAT, "judge": judge.name, "split": "sft", "source": "feedback"}
    written = folder / "critic.parquet"
    store.write_table(written, rows, critic_data.critic_schema(), about)
    path = written.with_name(f"critic-{digest(written)[:8]}.parquet")
    written.replace(path)
    return Exported(path, len(rows), dict(lost))


def review(row: Mapping[str, Any], verdict: Verdict, teacher: Teacher) -> dict[str, Any] | None:
    """A row of ``critic_data.decompose`` with the person's verdict; ``None`` without right words.

    A passed picture's ``refine_prompt`` is the prompt that was used, as in all critic data.
    """
    agreed = row["success"] == verdict.accept
    reasoning = row["reasoning"] if agreed else verdict.comment
    refined = row["used_prompt"] if verdict.accept else verdict.correction
    if refined is None and agreed:
        refined = row["refine_prompt"]
    if not reasoning or not refined:
        case = CritiqueCase(
            before=row["before"],
            after=row["after"],
            prompt=row["prompt"],
            used_prompt=row["used_prompt"],
        )
        (said,) = teacher.critique([case])
        if not isinstance(said, Critique) or said.success != verdict.accept:
            return None
        reasoning, refined = reasoning or said.reasoning, refined or said.refine_prompt
    return {
        **row,
        "success": verdict.accept,
        "refine_prompt": refined,
        "reasoning": reasoning,
        "category": row["category"] or "feedback",
    }


def _judged_rows(
    settings: Settings, root: Path, lost: Counter[str]
) -> Iterator[tuple[dict[str, Any], Verdict]]:
    """Attempts with feedback, each with the last that was said of it."""
    for trace in traces_with_feedback(settings, root):
        verdicts = verdicts_of(trace)
        if MODE_TAG in trace.info.tags:
            # Its words are a story's: they would teach the critic another language.
            lost["of a unified model"] += len(verdicts)
            continue
        found = root_of(trace)
        if found is None:
            lost["trace without content"] += len(verdicts)
            continue
        for row in critic_data.decompose(found[0]):
            verdict = verdicts.get((row["step_id"].rsplit("/", 1)[1], str(row["attempt"])))
            if verdict is not None and row["after"] is not None:
                yield row, verdict


def verdicts_of(trace: Any) -> dict[tuple[str, str], Verdict]:
    """What people said, by step and attempt; of several verdicts the last."""
    verdicts: dict[tuple[str, str], Verdict] = {}
    for given in sorted(trace.info.assessments, key=lambda one: one.create_time_ms):
        about = given.metadata or {}
        if "step" in about and isinstance(given.value, bool):
            verdicts[about["step"], about["attempt"]] = Verdict(
                given.value, about.get("correction"), given.rationale
            )
    return verdicts


def traces_with_feedback(settings: Settings, root: Path) -> Iterator[Any]:
    """The traces that people have said something about, oldest first.

    Raises:
        InterloomError: nothing was traced yet.
    """
    import mlflow
    from mlflow.tracking import MlflowClient

    uri = tracking_uri(settings.tracking, root)
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(tracking_uri=uri)
    name = experiment_name(settings)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        raise InterloomError(f"no experiment {name!r} at {uri}: nothing was served and traced yet")
    token = None
    while True:
        found = client.search_traces(
            locations=[experiment.experiment_id],
            filter_string=f"tags.`{FEEDBACK_TAG}` = 'given'",
            order_by=["timestamp_ms ASC"],
            max_results=PAGE,
            page_token=token,
        )
        yield from found
        token = found.token
        if not token:
            return


def root_of(trace: Any) -> tuple[Trajectory, dict[str, Any]] | None:
    """The trajectory in a trace's root, pictures put back, and all that was written to it; none if
    it holds numbers alone.

    The request is called as the response, so that no two have one name.
    """
    from mlflow.tracing.client import TracingClient

    root = next(span for span in trace.data.spans if span.parent_id is None)
    if not isinstance(root.outputs, dict) or "trajectory" not in root.outputs:
        return None
    # MLflow has no public way to an attachment's bytes yet; this is the one that its own tools go.
    files = TracingClient()._get_artifact_repo_for_trace(trace.info)
    content = _with_pictures(root.outputs["trajectory"], files.download_trace_attachment, {})
    content["request"]["id"] = f"{reviewed.REQUESTS}/{trace.info.tags[RESPONSE_TAG]}"
    return Trajectory.model_validate(content), root.outputs


def _with_pictures(value: Any, fetch: Any, known: dict[str, bytes]) -> Any:
    """``value`` with bytes in the place of attachments."""
    from mlflow.tracing.attachments import Attachment

    if isinstance(value, dict):
        return {key: _with_pictures(inner, fetch, known) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_pictures(inner, fetch, known) for inner in value]
    if isinstance(value, str) and value.startswith("mlflow-attachment://"):
        reference = Attachment.parse_ref(value)
        if reference is None:
            return value
        name = str(reference["attachment_id"])
        if name not in known:
            known[name] = fetch(name)
        return known[name]
    return value
