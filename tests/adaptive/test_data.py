"""The stage through the real runner, with an untrained unified model."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from adaptive_project import adaptive_project
from data_project import Project, play_generators
from pocket_renderer import RenderGenerator
from sample_stories import direct, multi_step, reflection

from interloom import cast
from interloom.adaptive import files
from interloom.adaptive.data import account, mixed
from interloom.adaptive.released import Discarded
from interloom.adaptive.story import Story
from interloom.digests import digest
from interloom.errors import InterloomError
from interloom.settings.data import MixSettings

STORIES = "outputs/adaptive-data/stories.parquet"


def metrics(project: Project) -> dict:
    return json.loads(project["metrics/adaptive-data.json"].read_text())


def test_stories_and_reasons_account_for_every_request(stories_project: Project):
    stories = list(files.read_stories(stories_project[STORIES]))
    lines = stories_project["outputs/adaptive-data/discarded.jsonl"].read_text().splitlines()
    found = metrics(stories_project)
    assert stories and found["requests.came"] == 42
    assert found["requests.kept"] + len(lines) == 42
    assert (
        len(stories)
        == found["mix.kept"]
        == sum(found[f"stories.{mode}"] for mode in ("direct", "reflection", "multi_step"))
    )
    reasons = Counter(json.loads(line)["reason"] for line in lines)
    assert reasons == {
        name.removeprefix("requests.lost."): n
        for name, n in found.items()
        if name.startswith("requests.lost.")
    }


def test_modes_have_their_shares(stories_project: Project):
    found = metrics(stories_project)
    reflected, planned = found["stories.reflection"], found["stories.multi_step"]
    assert (reflected > 0 and abs(reflected - planned) <= 1) or not planned


def test_the_gate_lets_them_through(stories_project: Project):
    result = json.loads(stories_project["outputs/adaptive-validation/result.json"].read_text())
    assert result["success"] and set(result["suites"]) == {"files", "stories"}


class Dying(RenderGenerator):
    """Dies after so many calls."""

    def __init__(self, calls: int) -> None:
        super().__init__(0.15)
        self.calls = calls

    def generate(self, jobs):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return super().generate(jobs)


def test_a_killed_stage_asks_only_for_what_it_has_not(
    tmp_path: Path, tiny_umm: Path, monkeypatch: pytest.MonkeyPatch, stories_project: Project
):
    project = adaptive_project(tmp_path, tiny_umm)
    monkeypatch.setattr(cast, "generator", lambda *_: Dying(1))
    with pytest.raises(KeyboardInterrupt):
        project.run("adaptive-data")
    assert not project["outputs/adaptive-data"].exists()
    play_generators(monkeypatch)
    project.run("adaptive-data")
    assert digest(project["outputs/adaptive-data"]) == digest(
        stories_project["outputs/adaptive-data"]
    )
    known = metrics(project)["calls_known"]
    assert known >= 16, "the first tries of the first requests at least"


def test_mixing_takes_what_the_scarcest_mode_allows():
    def named(story: Story, name: str) -> Story:
        return story.model_copy(update={"prompt": story.prompt.model_copy(update={"id": name})})

    stories = [named(direct(), f"d{i}") for i in range(8)]
    stories += [named(reflection(), f"r{i}") for i in range(6)]
    stories += [named(multi_step(), f"m{i}") for i in range(4)]

    def counts(**shares: float) -> dict[str, int]:
        mix = MixSettings(**({"direct": 0.0, "reflection": 0.0, "multi_step": 0.0} | shares))
        return dict(Counter(story.mode for story in mixed(stories, mix, 1)))

    assert counts(direct=1, reflection=2, multi_step=2) == {
        "direct": 2, "reflection": 4, "multi_step": 4,
    }  # fmt: skip
    assert counts(direct=1) == {"direct": 8}
    assert counts(direct=1, multi_step=1) == {"direct": 4, "multi_step": 4}
    assert mixed([], MixSettings(direct=1, reflection=1, multi_step=1), 1) == []
    assert mixed(stories, MixSettings(direct=1, reflection=2, multi_step=2), 1) != mixed(
        stories, MixSettings(direct=1, reflection=2, multi_step=2), 2
    )


def test_accounts_name_stages_and_reasons():
    gone = Discarded(prompt=direct().prompt, reason="diagnosis: missing_knowledge")
    counts = {"direct.came": 3, "direct.kept": 1, "reflection_1.came": 2, "reflection_1.kept": 1}
    rows = {y.step: y for y in account(counts, [direct(), reflection(), gone], 2)}
    assert rows["direct"].lost == {"not passed": 2}
    assert rows["requests"].lost == {"diagnosis: missing_knowledge": 1}
    assert rows["mix"].kept == 2 and "multi_step" not in rows


def test_the_file_is_readable_by_others(stories_project: Project):
    table = pq.read_table(stories_project[STORIES])
    assert table.schema.names == files.story_schema().names
    row = table.slice(0, 1).to_pylist()[0]
    assert row["text"].startswith("<image><evaluate>") and row["images"][0].startswith(b"\x89PNG")


def test_requests_for_rl_are_others_than_those_of_the_stories(stories_project: Project):
    kept = list(files.read_prompts(stories_project["outputs/adaptive-data/rl.parquet"]))
    stories = files.read_stories(stories_project[STORIES])
    told = {(story.prompt.instruction, story.prompt.references) for story in stories}
    assert len(kept) == 9
    assert not told & {(prompt.instruction, prompt.references) for prompt in kept}


def test_no_story_at_all_is_an_error(
    tmp_path: Path, tiny_umm: Path, monkeypatch: pytest.MonkeyPatch
):
    from pocket_draftsman import Draftsman

    project = adaptive_project(tmp_path, tiny_umm, count=2)
    monkeypatch.setattr(cast, "generator", lambda *_: Draftsman(0))
    with pytest.raises(InterloomError, match="no story came of 2 requests"):
        project.run("adaptive-data")
