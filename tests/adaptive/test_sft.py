"""The stage through the real runner and TRL, on an untrained model."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import tiny_umm as builder
import torch
from data_project import Project
from sample_stories import direct, multi_step, reflection

from interloom.adaptive import files, sft
from interloom.adaptive.masking import IGNORED
from interloom.adaptive.reasoner import add_story_tags
from interloom.backends.unified import UnifiedModel
from interloom.errors import InterloomError
from interloom.train.data import split_held_out


@pytest.fixture
def project(sft_project: Project) -> Project:
    return sft_project


def test_a_story_is_learned_where_its_mask_says(tiny_umm: Path, project: Project):
    unified = UnifiedModel.from_pretrained(tiny_umm)
    add_story_tags(unified)
    stories = [reflection(2), multi_step(2)]
    chosen, whole = (
        sft.samples(
            stories, unified,
            project.settings.sft_adaptive.model_copy(update={"masking": masking}),
        )
        for masking in ("selective", "full")
    )  # fmt: skip
    for some, every in zip(chosen, whole, strict=True):
        assert some["input_ids"] == every["input_ids"]
        learned = [label != IGNORED for label in some["labels"]]
        more = [label != IGNORED for label in every["labels"]]
        assert all(b for a, b in zip(learned, more, strict=True) if a)
        assert sum(learned) < sum(more) < len(more)
        assert some["input_ids"][-1] == some["labels"][-1] == unified.stream.eos


def test_the_stage_trains_evaluates_and_leaves_a_whole_model(project: Project):
    project.run("sft-adaptive")
    figures = json.loads(project["metrics/sft-adaptive.json"].read_text())
    assert {"success", "valid", "images", "self_accuracy", "step"} <= set(figures)
    with project["plots/sft-adaptive.csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert {"success", "loss"} & set(rows[0]) or "name" in rows[0] or rows
    trained = UnifiedModel.from_pretrained(project["outputs/models/adaptive-sft"])
    assert len(trained.stream.text("<failure_analysis>")) == 1
    before = UnifiedModel.from_pretrained(project["data/umm"])
    ours, theirs = trained.model.state_dict(), before.model.state_dict()
    moved = {name for name in ours if ours[name].shape == theirs[name].shape
             and not torch.equal(ours[name], theirs[name])}  # fmt: skip
    assert moved and not any("vqmodel" in name for name in moved), "pictures keep their codes"


def test_a_killed_training_continues_and_ends_the_same(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    other = project.root.with_name(f"{project.root.name}-killed")
    shutil.copytree(project.root, other)
    project.run("sft-adaptive")
    real, seen = sft.measure.figures, []

    def dying(found):
        seen.append(found)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(found)

    monkeypatch.setattr(sft.measure, "figures", dying)
    killed = Project(other, project.settings)
    with pytest.raises(KeyboardInterrupt):
        killed.run("sft-adaptive")
    assert not killed["outputs/models/adaptive-sft"].exists()
    monkeypatch.setattr(sft.measure, "figures", real)
    killed.run("sft-adaptive")
    ours, theirs = (
        UnifiedModel.from_pretrained(one["outputs/models/adaptive-sft"]).model.state_dict()
        for one in (killed, project)
    )
    apart = {name: (ours[name] - theirs[name]).abs().max().item() for name in ours}
    assert max(apart.values()) < 1e-5, max(apart.items(), key=lambda item: item[1])


def test_settings_that_cannot_be(project: Project, tiny_umm: Path):
    options = project.settings.sft_adaptive
    unified = builder.new()
    unified.model.model.text_model.config.max_position_embeddings = 20
    with pytest.raises(InterloomError, match="the model reads 20"):
        sft.samples([direct()], unified, options)
    adapter = options.model_copy(update={"lora_rank": 4})
    settings = project.settings.model_copy(update={"sft_adaptive": adapter})
    with pytest.raises(InterloomError, match="lora_rank"):
        Project(project.root, settings).run("sft-adaptive")


def test_stories_that_people_accepted_are_learned_too(
    project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    options = project.settings.sft_adaptive

    def with_feedback(name: str) -> Project:
        chosen = options.model_copy(update={"feedback": name, "epochs": 1.0, "evaluations": 1})
        settings = project.settings.model_copy(update={"sft_adaptive": chosen})
        return Project(project.root, settings)

    learned: list[int] = []
    real = sft.samples

    def counted(stories, *rest):
        learned.append(len(stories))
        return real(stories, *rest)

    monkeypatch.setattr(sft, "samples", counted)
    monkeypatch.chdir(project.root)
    files.write_stories([direct(), multi_step(3)], project["told.parquet"], files.FEEDBACK)
    with_feedback("told.parquet").run("sft-adaptive")
    own, _ = split_held_out([f"p{number}" for number in range(13)], options.held_out)
    assert learned == [len(own) + 2], "none of them is held out"
    with pytest.raises(InterloomError, match=r"sft_adaptive\.feedback = no\.parquet: no such file"):
        with_feedback("no.parquet").run("sft-adaptive")
    with pytest.raises(InterloomError, match="not a file of `interloom feedback export"):
        with_feedback("outputs/adaptive-data/stories.parquet").run("sft-adaptive")
