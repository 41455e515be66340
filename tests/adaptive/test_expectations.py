from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from data_project import Project
from sample_stories import BAD, GOOD, direct, multi_step, reflection

from interloom.adaptive import files
from interloom.adaptive.expectations import outcome_faults
from interloom.adaptive.story import Story
from interloom.construct import store
from interloom.errors import InterloomError
from interloom.records import Thresholds

STRICT = Thresholds(instruction=5, consistency=5, quality=3, knowledge=3)


def judged(story: Story, *evaluations) -> Story:
    drafts = [
        draft.model_copy(update={"evaluation": evaluation})
        for draft, evaluation in zip(story.drafts, evaluations, strict=True)
    ]
    return story.model_copy(
        update={
            "first": drafts[0],
            "rounds": tuple(drafts[1:]) if story.rounds else (),
            "steps": tuple(drafts[1:]) if story.steps else (),
        }
    )


@pytest.mark.parametrize(
    ("story", "fault"),
    [
        (direct(), ""),
        (judged(direct(), BAD), "the last picture did not pass"),
        (reflection(2), ""),
        (judged(reflection(2), BAD, GOOD, GOOD), "G2 passed and is not the last"),
        (judged(reflection(1), BAD, BAD), "the last picture did not pass"),
        (multi_step(2), ""),
        (judged(multi_step(2), GOOD, GOOD, GOOD), "G1 passed and was planned anew"),
        (judged(multi_step(2), BAD, BAD, GOOD), "step 1 did not pass"),
    ],
)
def test_outcomes_agree_with_evaluations(story, fault):
    assert outcome_faults(story, STRICT, STRICT) == fault


def spoil_text(rows):
    rows[0]["text"] = rows[0]["text"].replace("</evaluate>", "", 1)


def spoil_mode(rows):
    rows[0]["mode"] = "direct" if rows[0]["mode"] != "direct" else "reflection"


def spoil_picture(rows):
    rows[0]["images"][-1] = b"no picture"


def spoil_id(rows):
    rows[0]["id"] = rows[1]["id"]


def spoil_twin(rows):
    rows[0]["instruction"], rows[0]["references"] = rows[1]["instruction"], rows[1]["references"]


def spoil_category(rows):
    rows[0]["category"] = "something else"


def spoil_outcome(rows):
    rows[0]["text"] = rows[0]["text"].replace("instruction 5", "instruction 4")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_text, "'malformed'"),
        (spoil_mode, "'malformed'"),
        (spoil_picture, "'pictures'"),
        (spoil_id, "'id'"),
        (spoil_twin, "'content'"),
        (spoil_category, "'category'"),
        (spoil_outcome, "'outcome_faults'"),
    ],
)
def test_every_fault_stops_the_lifecycle(
    stories_project: Project, tmp_path: Path, spoil, said: str
):
    root = tmp_path / "project"
    source = stories_project["outputs/adaptive-data"]
    shutil.copytree(source, root / "outputs/adaptive-data")
    path = root / "outputs/adaptive-data/stories.parquet"
    rows = list(store.read_rows(path))
    spoil(rows)
    store.write_table(path, rows, files.story_schema(), {})
    project = Project(root, stories_project.settings)
    with pytest.raises(InterloomError, match=said):
        project.run("validate-adaptive")
    kept = next((root / ".interloom/work").rglob("quarantine.jsonl"))
    bad = [json.loads(line) for line in kept.read_text().splitlines()]
    assert any(row["dataset"] == "stories" for row in bad)
