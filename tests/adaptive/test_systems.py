"""Stages generate-adaptive, evaluate-adaptive and report-adaptive on models that know nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny_umm as builder
from adaptive_project import adaptive_project
from data_project import Project

from interloom.adaptive.reasoner import add_story_tags
from interloom.adaptive.systems import OWN, parts_of
from interloom.errors import InterloomError
from interloom.settings.evaluation import UnifiedSystemSettings
from interloom.settings.file import load_settings, settings_from

PARAMS = Path(__file__).parents[2] / "params.yaml"
THRIFTY = UnifiedSystemSettings(model="adaptive-rl", images=1, reluctance=0.0)


@pytest.fixture
def project(tmp_path: Path, tiny_umm: Path) -> Project:
    """Three unified models, and settings for an evaluation of seconds."""
    project = adaptive_project(tmp_path, tiny_umm)
    unified = builder.new()
    add_story_tags(unified)
    unified.save(project["outputs/models/adaptive-sft"])
    shutil.copytree(project["outputs/models/adaptive-sft"], project["outputs/models/adaptive-rl"])
    options = project.settings.evaluate_adaptive.model_copy(
        update={"benchmarks": ["geneval", "kris"], "items": 8, "max_new_tokens": 30, "threads": 1,
                "more_systems": {"thrifty": THRIFTY},
                "systems": ["adaptive-base", "adaptive-sft", "thrifty"]}
    )  # fmt: skip
    return Project(project.root, project.settings.model_copy(update={"evaluate_adaptive": options}))


def test_the_stages_answer_grade_and_report(project: Project):
    project.run("generate-adaptive@geneval", "generate-adaptive@kris", "evaluate-adaptive")
    summary = json.loads(project["outputs/adaptive-evaluation/summary.json"].read_text())
    assert [cell["system"] for cell in summary["cells"]] == [
        "adaptive-base", "adaptive-sft", "thrifty",
    ] * 2  # fmt: skip
    taken = {
        (cell["benchmark"], cell["system"]): cell["run"]["images_per_request"]
        for cell in summary["cells"]
    }
    assert taken["kris", "adaptive-base"] == taken["kris", "thrifty"] == 1
    assert summary["systems"]["adaptive-base"].endswith("alone")
    assert "at most 1" in summary["systems"]["thrifty"]
    metrics = json.loads(project["metrics/evaluate-adaptive.json"].read_text())
    assert set(metrics) == {"geneval", "kris"}

    verdict = project["outputs/adaptive-validation/result.json"]
    verdict.parent.mkdir(parents=True)
    verdict.write_text('{"success": true, "suites": {}}')
    for name in ("sft-adaptive", "grpo-adaptive"):
        path = project[f"plots/{name}.csv"]
        path.parent.mkdir(exist_ok=True)
        path.write_text("step,split,metric,value\n1,held out,success,0.5\n2,held out,success,0.6\n")
    project.run("report-adaptive")
    page = project["reports-adaptive/index.html"].read_text()
    assert "thrifty" in page and "images per request" in page and "sft-adaptive" in page


def test_systems_and_benchmarks_that_are_not_known_are_refused():
    for change, said in (
        ({"systems": ["full-rl"]}, "no system 'full-rl'; systems: adaptive-base"),
        ({"benchmarks": ["ueval"]}, "ueval asks for sequences"),
        ({"more_systems": {"adaptive-rl": THRIFTY.model_dump()}}, "take another name"),
    ):
        raw = load_settings(PARAMS).model_dump(mode="json")
        raw["evaluate_adaptive"] |= change
        with pytest.raises(InterloomError, match=said):
            settings_from(raw, "test")


def test_the_base_draws_once_and_the_others_as_they_like():
    options = load_settings(PARAMS).evaluate_adaptive
    assert parts_of("adaptive-base", options).images == 1
    assert {OWN[name].images for name in ("adaptive-sft", "adaptive-rl")} == {0}
