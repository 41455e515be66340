"""The registered unified model, loaded as anyone loads it; the stage through MLflow."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
import tiny_umm as builder
import yaml
from sample_stories import picture

from interloom.adaptive.reasoner import add_story_tags
from interloom.adaptive.story import MODES
from interloom.benchmarks import evidence
from interloom.benchmarks.graded import Graded
from interloom.catalogue import load_pipeline, open_catalogue
from interloom.errors import InterloomError
from interloom.records import Request
from interloom.runner import run_stage
from interloom.settings import load_settings
from interloom.stages import find_stage

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory):
    """A project in which ``register-adaptive`` has run, tracked; also the working directory."""
    before, root = Path.cwd(), tmp_path_factory.mktemp("registered-adaptive")
    os.chdir(root)
    params = load_settings(PARAMS).model_dump(mode="json")
    params["registration"]["timed_requests"] = 1
    params["evaluate_adaptive"] |= {"max_new_tokens": 24, "threads": 1}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    (root / "dvc.yaml").write_text("stages: {}\n")
    unified = builder.new()
    add_story_tags(unified)
    unified.save(root / "outputs/models/adaptive-rl")
    (root / "outputs/adaptive-data").mkdir()
    (root / "outputs/adaptive-data/stories.parquet").write_bytes(b"stories")
    told = root / "outputs/adaptive-evaluation"
    (told / "kris/adaptive-rl").mkdir(parents=True)
    asked = [Request(id="kris/a/1", text="make it red", images=(picture(9),), kind="continuation")]
    evidence.write_requests(asked, told / "kris")
    run = {"requests": 1.0, "images_per_request": 1.5}
    graded = Graded("kris", "judge", {"a/1": 50.0}, {"a/1": ""}, {}, {}, 0.0, run=run)
    graded.save(told / "kris/adaptive-rl/graded.json")
    summary = {"profile": "pocket", "seed": 7, "training_judge": True, "systems": {}, "cells": [],
               "differences": []}  # fmt: skip
    (told / "summary.json").write_text(json.dumps(summary))
    run_stage(find_stage("register-adaptive"), load_settings(root / "params.yaml"), root)
    yield root
    os.chdir(before)


def test_a_version_is_made_with_card_evidence_and_alias(root: Path):
    record = json.loads((root / "outputs/adaptive-registration.json").read_text())
    assert record["versions"] == {"interloom-adaptive": "1"}
    client = open_catalogue(root).client
    version = client.get_model_version_by_alias("interloom-adaptive", "challenger")
    assert version.description is not None
    assert "# interloom: adaptive reasoner" in version.description
    assert "data.adaptive-data" in version.tags
    (found,) = (root / "mlruns").rglob(evidence.FILE)
    kept = evidence.Evidence.model_validate_json(found.read_text())
    assert kept.benchmarks["kris"].graded.items == {"a/1": 50.0}
    assert kept.images_per_request == 1.5 and len(kept.latency.seconds) == 1


def test_it_answers_within_a_budget(root: Path):
    import mlflow
    import pandas as pd

    (folder,) = (path.parent for path in (root / "mlruns").rglob("MLmodel"))
    model = mlflow.pyfunc.load_model(str(folder))
    shown = base64.b64encode(picture(9)).decode()
    asked = pd.DataFrame({"text": ["a red sun", "make it blue"], "images": [[], [shown]]})
    answer = model.predict(asked, params={"image_budget": 1, "seed": 3})
    assert list(answer["images_used"]) == [1, 1]
    assert set(answer["mode"]) <= set(MODES)
    assert all(base64.b64decode(row[-1])[:4] == b"\x89PNG" for row in answer["images"])
    with pytest.raises(InterloomError, match="image_budget"):
        model.predict(asked, params={"image_budget": -1})
    with pytest.raises(InterloomError, match="no interloom pipeline"):
        load_pipeline(str(folder), "models:/interloom-adaptive@challenger")
