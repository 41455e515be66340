"""The stage through the real runner and TRL, on an untrained model."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import tiny_umm as builder
from data_project import Project
from sample_stories import PROMPT

from interloom.adaptive import grpo
from interloom.adaptive.reasoner import AdaptiveReasoner, add_story_tags
from interloom.backends.stream import Sampling
from interloom.backends.unified import UnifiedModel
from interloom.errors import InterloomError


@pytest.fixture
def project(grpo_project: Project) -> Project:
    return grpo_project


def test_the_stage_rolls_out_judges_and_trains(project: Project):
    project.run("grpo-adaptive")
    figures = json.loads(project["metrics/grpo-adaptive.json"].read_text())
    assert {"reward", "success", "images", "mode.direct", "step"} <= set(figures)
    assert figures["images"] >= 1, "every rollout begins with a picture"
    trained = UnifiedModel.from_pretrained(project["outputs/models/adaptive-rl"])
    assert len(trained.stream.text("<step_1>")) == 1
    curve = project["plots/grpo-adaptive.csv"].read_text()
    assert "reward" in curve


def curve(path: Path) -> dict[tuple[str, str, str], float]:
    """The figures of a training that do not depend on the clock."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {
        (row["step"], row["split"], row["metric"]): float(row["value"])
        for row in rows
        if row["split"] == "held out" or row["metric"] in ("reward", "loss", "grad_norm")
    }


def test_a_killed_training_continues_and_ends_the_same(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    options = project.settings.grpo_adaptive.model_copy(update={"evaluations": 2})
    settings = project.settings.model_copy(update={"grpo_adaptive": options})
    project = Project(project.root, settings)
    killed = Project(project.root.with_name(f"{project.root.name}-killed"), settings)
    shutil.copytree(project.root, killed.root)
    project.run("grpo-adaptive")
    real, seen = grpo.measure.figures, []

    def dying(found):
        seen.append(found)
        if len(seen) == 3:  # before the first step, after it, after the second
            raise KeyboardInterrupt
        return real(found)

    monkeypatch.setattr(grpo.measure, "figures", dying)
    with pytest.raises(KeyboardInterrupt):
        killed.run("grpo-adaptive")
    assert not killed["outputs/models/adaptive-rl"].exists()
    monkeypatch.setattr(grpo.measure, "figures", real)
    killed.run("grpo-adaptive")
    ours, theirs = (curve(one["plots/grpo-adaptive.csv"]) for one in (killed, project))
    assert ours.keys() == theirs.keys() and ("2", "train", "reward") in ours
    assert all(ours[key] == pytest.approx(theirs[key], abs=1e-4) for key in ours)
    ours, theirs = (
        UnifiedModel.from_pretrained(one["outputs/models/adaptive-rl"]).model.state_dict()
        for one in (killed, project)
    )
    apart = {name: (ours[name] - theirs[name]).abs().max().item() for name in ours}
    assert max(apart.values()) < 1e-5, max(apart.items(), key=lambda item: item[1])


def test_too_few_requests_are_said_at_once(project: Project):
    options = project.settings.grpo_adaptive.model_copy(update={"batch_size": 64})
    settings = project.settings.model_copy(update={"grpo_adaptive": options})
    with pytest.raises(InterloomError, match=r"adaptive_data\.rl_count"):
        Project(project.root, settings).run("grpo-adaptive")


def test_only_what_the_model_chose_is_learned():
    unified = builder.new()
    add_story_tags(unified)
    reasoner = AdaptiveReasoner(unified, text=Sampling(1.0), picture=Sampling(1.0), max_tokens=90)
    _, written = reasoner.reason_with_tokens([PROMPT] * 4, seed=2)
    stream, header = unified.stream, len(unified.stream.header(unified.grid))
    forced = {stream.row_end, stream.frame_end, stream.end, stream.wrapper}
    for completion in written:
        tokens = grpo._completion(completion, header, stream.eos)
        mask = grpo.chosen_mask(completion, tokens, unified, header)
        assert len(mask) == len(tokens)
        visual = set(stream.visual.tolist())
        for token, chosen in zip(tokens, mask, strict=True):
            if token in visual:
                assert chosen
            if token in forced:
                assert not chosen
        assert mask[0] == 1, "the first visual token of the picture that the prompt began"
