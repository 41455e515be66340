"""The gate of the adaptive system: Great Expectations over its stories, as over all other data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom.adaptive import files
from interloom.adaptive.data import thresholds
from interloom.adaptive.masking import learned_spans
from interloom.adaptive.requests import CATEGORIES
from interloom.adaptive.story import MODES, Story
from interloom.construct import frames, store
from interloom.construct.expectations import (
    Tables,
    between,
    file_suite,
    filled,
    gate,
    only,
    sizes,
    unique,
)
from interloom.records import MAX_STEPS, Thresholds

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

    from interloom.runner import StageRun
    from interloom.settings.file import Settings

COLUMNS = (
    "id", "category", "instruction", "mode", "malformed", "references", "pictures", "count",
    "content", "outcome_faults", "learns",
)  # fmt: skip


def outcome_faults(story: Story, accepted: Thresholds, step_accepted: Thresholds) -> str:
    """What the evaluations say against the story being of its mode; empty if nothing.

    Only what passed may end a story, and only what failed may be reflected on or planned anew.
    """
    passed = [draft.evaluation.passes(accepted) for draft in story.drafts]
    faults = []
    if story.mode == "multi_step":
        if passed[0]:
            faults.append("G1 passed and was planned anew")
        low = [i for i, s in enumerate(story.steps, 1) if not s.evaluation.passes(step_accepted)]
        faults += [f"step {number} did not pass" for number in low]
    else:
        faults += [f"G{n} passed and is not the last" for n, p in enumerate(passed[:-1], 1) if p]
        if not passed[-1]:
            faults.append("the last picture did not pass")
    return "; ".join(faults)


def stories_table(path: Path, accepted: Thresholds, step_accepted: Thresholds) -> Any:
    """One row per story; a row that tells no story has its reason under ``malformed``."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for row in store.read_rows(path):
        plain = {name: row[name] for name in ("id", "category", "instruction", "mode")}
        try:
            story = files.story_from(row)
        except ValueError as error:
            rows.append({**plain, "malformed": str(error)[:200]})
            continue
        rows.append(
            {
                **plain,
                "malformed": "" if story.mode == row["mode"] else f"told as {story.mode}",
                "references": frames.looks(story.prompt.references),
                "pictures": frames.looks(story.images),
                "count": len(story.images),
                "content": store.content(story.prompt.instruction, *story.prompt.references),
                "outcome_faults": outcome_faults(story, accepted, step_accepted),
                "learns": any(learned_spans(story)),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def story_suite(image_sizes: list[str], categories: tuple[str, ...]) -> list[Expectation]:
    """What stories must be like; ``categories`` empty allows any."""
    several = [", ".join(sorted(set(image_sizes)))] if len(set(image_sizes)) > 1 else []
    return [
        *filled("id", "instruction"),
        *unique("id", "content"),
        only("mode", *MODES),
        only("malformed", ""),
        sizes("references", several=True),
        only("pictures", *image_sizes, *several),
        *between("count", 1, 1 + MAX_STEPS),
        only("outcome_faults", ""),
        only("learns", True),
        *([only("category", *categories)] if categories else []),
    ]


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage ``validate-adaptive``."""
    import pandas as pd

    options, out = settings.adaptive_data, stage.out("adaptive-validation")
    path = stage.dep("adaptive-data") / "stories.parquet"
    faults, count = frames.schema_faults(path, files.story_schema())
    table = pd.DataFrame([{"id": path.name, "faults": faults, "rows": count}])
    whole: Tables = {"files": (table, file_suite())}
    if not faults and count:
        stories = stories_table(
            path, thresholds(options.accepted), thresholds(options.step_accepted)
        )
        generator = settings.models.generator_named(options.generator)
        drawn = {generator.image_size, settings.unified.image_pixels or generator.image_size}
        categories = CATEGORIES if options.requests == "pocket" else ()
        suite = story_suite([f"{side}x{side}" for side in sorted(drawn)], categories)
        whole = {**whole, "stories": (stories, suite)}
    gate(whole, out, stage)
