"""The stage through the real runner and TRL, on an untrained model."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import tiny_umm as builder
from adaptive_project import adaptive_project
from data_project import Project
from sample_stories import PROMPT

from interloom.adaptive import files, grpo
from interloom.adaptive.reasoner import AdaptiveReasoner, add_story_tags
from interloom.adaptive.rewards import Judged
from interloom.adaptive.story import Prompt
from interloom.backends.stream import Sampling
from interloom.backends.unified import UnifiedModel
from interloom.errors import InterloomError
from interloom.records import Evaluation

BEST = Evaluation(instruction=5, consistency=5, quality=5, knowledge=5)


@pytest.fixture
def project(tmp_path: Path, tiny_umm: Path) -> Project:
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


def test_a_group_is_whole_wherever_its_parts_lie(project: Project, monkeypatch):
    """Two processes, each with half of a group."""
    judged = [Judged(BEST, True, n, success=True) for n in (1, 2, 4, 2)]
    groups = ["a", "b", "a", "b"]
    whole = grpo.gathered_rewards(judged, groups, project.settings.grpo_adaptive)
    assert whole.bonus == [1.0, 1.0, 0.25, 1.0]
    for rank, mine in ((0, slice(0, 2)), (1, slice(2, 4))):
        monkeypatch.setattr(
            grpo, "gather_object",
            lambda rows: [2, 2] if isinstance(rows[0], int) else
            list(zip(judged, groups, strict=True)),
        )  # fmt: skip
        monkeypatch.setattr(
            grpo, "PartialState", lambda rank=rank: type("S", (), {"process_index": rank})()
        )
        part = grpo.gathered_rewards(judged[mine], groups[mine], project.settings.grpo_adaptive)
        assert part.bonus == whole.bonus[mine] and part.final == whole.final[mine]
