from __future__ import annotations

from pathlib import Path

import pytest
import tiny_umm as builder
from adaptive_project import adaptive_project
from data_project import Project, play_generators
from sample_stories import direct, multi_step, reflection

from interloom.adaptive import files
from interloom.adaptive.reasoner import add_story_tags
from interloom.adaptive.story import Prompt, Story


@pytest.fixture(scope="session")
def stories_project(tmp_path_factory: pytest.TempPathFactory, tiny_umm: Path) -> Project:
    """A project with stories, validated. Tests only read it."""
    project = adaptive_project(tmp_path_factory.mktemp("adaptive"), tiny_umm)
    with pytest.MonkeyPatch.context() as patch:
        play_generators(patch)
        project.run("adaptive-data", "validate-adaptive")
    return project


@pytest.fixture
def sft_project(tmp_path: Path, tiny_umm: Path) -> Project:
    """Thirteen stories, validated already, and settings for a training of seconds."""
    project = adaptive_project(tmp_path, tiny_umm)
    kinds = (direct(), reflection(2), multi_step(2))

    def named(story: Story, number: int) -> Story:
        prompt = story.prompt.model_copy(update={"id": f"p{number}"})
        return story.model_copy(update={"prompt": prompt})

    stories = [named(kinds[number % 3], number) for number in range(13)]
    files.write_stories(stories, project["outputs/adaptive-data/stories.parquet"], {})
    verdict = project["outputs/adaptive-validation/result.json"]
    verdict.parent.mkdir(parents=True)
    verdict.write_text('{"success": true}')
    options = project.settings.sft_adaptive.model_copy(
        update={"epochs": 2.0, "batch_size": 4, "micro_batch_size": 2, "held_out": 3,
                "evaluations": 2, "max_new_tokens": 40, "threads": 1}
    )  # fmt: skip
    return Project(project.root, project.settings.model_copy(update={"sft_adaptive": options}))


@pytest.fixture
def grpo_project(tmp_path: Path, tiny_umm: Path) -> Project:
    """Requests, a verdict, and an untrained model that knows the tags."""
    project = adaptive_project(tmp_path, tiny_umm)
    unified = builder.new()
    add_story_tags(unified)
    unified.save(project["outputs/models/adaptive-sft"])
    places = ("top left", "center", "bottom right")
    prompts = [
        Prompt(id=f"p{n}", instruction=f"a red sun at the {places[n % 3]}", category="c")
        for n in range(9)
    ]
    files.write_prompts(prompts, project["outputs/adaptive-data/rl.parquet"], {})
    verdict = project["outputs/adaptive-validation/result.json"]
    verdict.parent.mkdir(parents=True)
    verdict.write_text('{"success": true}')
    options = project.settings.grpo_adaptive.model_copy(
        update={"max_steps": 2, "batch_size": 2, "group_size": 2, "micro_batch_size": 2,
                "max_new_tokens": 30, "held_out": 3, "evaluations": 1, "threads": 1,
                "temperature": 1.0, "picture_temperature": 1.0, "learning_rate": 1e-3}
    )  # fmt: skip
    return Project(project.root, project.settings.model_copy(update={"grpo_adaptive": options}))
