"""Feedback on served stories becomes stories to learn, in the format that training reads.

A story is taken whose last picture a person accepted, and whose own verdicts are those of the
person wherever one was given: what is learned of a story are its last verdict, what led to it and
what succeeded, and a wrong verdict would be learned with it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom import cast
from interloom.adaptive import files, reviews
from interloom.adaptive.story import Story, StoryError, interleave, parse_story
from interloom.adaptive.trajectories import prompt_of
from interloom.digests import digest
from interloom.errors import InterloomError
from interloom.serve.feedback import Exported, root_of, traces_with_feedback, verdicts_of
from interloom.serve.traces import MODE_TAG

if TYPE_CHECKING:
    from interloom.settings.file import Settings


def export(settings: Settings, root: Path, folder: Path) -> Exported:
    """Write the accepted stories in MLflow to a Parquet file in ``folder``.

    It is named after its content, because stages see the names of such files alone.

    Raises:
        InterloomError: there is no feedback, or none of it can be used.
    """
    held_out = cast.held_out(settings.prompts)
    lost: Counter[str] = Counter()
    kept: dict[str, Story] = {}
    for trace in traces_with_feedback(settings, root):
        if MODE_TAG not in trace.info.tags:
            lost["of the agents"] += 1
            continue
        story = taught(trace)
        if isinstance(story, str):
            lost[story] += 1
            continue
        before = story.prompt.references[-1] if story.prompt.references else None
        key = reviews.key_of(story)
        reason = "duplicate" if key in kept else None
        if held_out(story.prompt.instruction, before):
            reason = "held-out"
        if reason is not None:
            lost[reason] += 1
            continue
        kept[key] = story
    if not kept:
        raise InterloomError(f"no story to write; left out: {dict(lost) or 'nothing'}")
    written = folder / "stories.parquet"
    files.write_stories(kept.values(), written, files.FEEDBACK)
    path = written.with_name(f"stories-{digest(written)[:8]}.parquet")
    written.replace(path)
    return Exported(path, len(kept), dict(lost))


def taught(trace: Any) -> Story | str:
    """The story of a trace, if it is one to learn; else why it is not."""
    found = root_of(trace)
    if found is None:
        return "trace without content"
    trajectory, outputs = found
    attempts = {
        (str(step.step.step_number), str(number)): attempt
        for step in trajectory.steps
        for number, attempt in enumerate(step.attempts)
    }
    pictures = [attempt.image for attempt in attempts.values() if attempt.image is not None]
    try:
        segments = interleave(outputs["story"], pictures)
        story = parse_story(prompt_of(trajectory.request), segments)
    except (StoryError, ValueError):
        return "no story"
    verdicts = verdicts_of(trace)
    last = verdicts.get(list(attempts)[-1])
    if last is None:
        return "no verdict on the last picture"
    if not last.accept:
        return "not accepted in the end"
    for place, verdict in verdicts.items():
        own = attempts[place].critique
        if own is None or own.success != verdict.accept:
            return "the model's verdict was another"
    return story
