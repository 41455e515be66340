"""The registered unified model: the stage through MLflow, loaded as anyone loads it, judged,
promoted, traced back, served."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import yaml
from sample_stories import picture
from taught_umm import MULTI_STEP, REFLECTION
from tiny_project.project import free_port

from interloom.adaptive.story import MODES
from interloom.benchmarks import evidence
from interloom.benchmarks.graded import Graded
from interloom.catalogue import aliases, load_pipeline, open_catalogue
from interloom.errors import InterloomError
from interloom.promotion import origin
from interloom.promotion.decisions import promote, propose
from interloom.promotion.ledger import Author
from interloom.records import Request
from interloom.runner import run_stage
from interloom.serve import loading
from interloom.serve.reasoner import Reasoner
from interloom.settings.file import load_settings
from interloom.stages import find_stage

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, taught_umm: Path):
    """A project in which ``register-adaptive`` has run, tracked; also the working directory."""
    before, root = Path.cwd(), tmp_path_factory.mktemp("registered-adaptive")
    os.chdir(root)
    params = load_settings(PARAMS).model_dump(mode="json")
    params["registration"]["timed_requests"] = 1
    params["evaluate_adaptive"] |= {"max_new_tokens": 320, "threads": 1}
    params["promotion"]["adaptive"]["benchmarks"] = {"kris": {"floor": 0.0, "max_loss": 5.0}}
    params["promotion"]["adaptive"]["min_gain"] = -1.0
    params["serving"] |= {"follow_seconds": 0.3, "drain_seconds": 20, "threads": 1}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copy(PARAMS.with_name("dvc.yaml"), root)
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "as it was")):
        who = ("-c", "user.name=ana", "-c", "user.email=ana@example.org")
        subprocess.run(["git", *who, *words], cwd=root, check=True)
    shutil.copytree(taught_umm, root / "outputs/models/adaptive-rl")
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
    whole = model.predict(pd.DataFrame({"text": [MULTI_STEP]})).iloc[0]
    assert (whole["mode"], whole["images_used"], len(whole["images"])) == ("multi_step", 3, 3)
    with pytest.raises(InterloomError, match="image_budget"):
        model.predict(asked, params={"image_budget": -1})
    with pytest.raises(InterloomError, match="no interloom pipeline, but a reasoner"):
        load_pipeline(str(folder), "models:/interloom-adaptive@challenger")


def test_it_is_judged_promoted_and_traced_back_as_the_pipeline_is(root: Path):
    catalogue = open_catalogue(root)
    proposal = propose(catalogue, "adaptive", "1")
    assert [check.name for check in proposal.verdict.checks] == [
        "kris: score", "kris: unjudged", "images per request", "median seconds", "p95 seconds",
    ]  # fmt: skip
    made = promote(catalogue, proposal, Author("ana"))
    assert made.after == "1"
    told = origin.tell(catalogue, "models:/interloom-adaptive@champion")
    assert "interloom-adaptive version 1 @challenger @champion" in told
    assert "outputs/adaptive-data" in told and "outputs/models/adaptive-rl" in told
    assert "dvc repro evaluate-adaptive" in told
    assert aliases(catalogue, "interloom-adaptive")["champion"] == "1"


def test_the_evaluated_systems_can_be_served_too(root: Path):
    settings = load_settings(root / "params.yaml")
    served = loading.load("system:adaptive-rl", settings, root)
    assert isinstance(served, Reasoner) and (served.version, served.generators) == ("project", {})
    assert served.defaults.image_budget is None
    served.warm_up()
    with pytest.raises(InterloomError, match=r"adaptive-sft: run the stage that makes it"):
        loading.load("system:adaptive-sft", settings, root)
    with pytest.raises(InterloomError, match="it has no --generator"):
        loading.load("system:adaptive-rl", settings, root, ["generator"])


def until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


FAR_AWAY = """
import json, sys
import mlflow

def refuse(event, arguments):
    if event == "pickle.find_class":
        raise RuntimeError(f"unpickles {arguments}")

sys.addaudithook(refuse)
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/interloom-adaptive/1")
import interloom
answer = model.predict([{"text": sys.argv[2]}], params={"image_budget": 2}).iloc[0]
told = {"mode": answer["mode"], "images": int(answer["images_used"])}
print(json.dumps(told | {"code": interloom.__file__}))
"""


@pytest.mark.slow
def test_it_loads_far_from_the_project_without_a_pickle(root: Path, tmp_path: Path):
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", FAR_AWAY, f"sqlite:///{root / 'mlflow.db'}", MULTI_STEP],
        cwd=tmp_path, env=alone, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["mode"], told["images"]) == ("multi_step", 2)
    assert Path(told["code"]).parts[-3:] == ("code", "interloom", "__init__.py")


@pytest.mark.slow
def test_the_champion_is_served_and_followed_there_and_back(root: Path):
    """Served as a process while a second version is registered, promoted and taken back."""
    settings = load_settings(root / "params.yaml")
    adaptive, port = ("--system", "adaptive"), free_port()
    path = os.pathsep.join(str(PARAMS.parent / part) for part in ("src", "."))
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "interloom.cli"]

    def registry(*words: str) -> str:
        done = subprocess.run(
            [*command, "registry", *words], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    if "@champion 1" not in registry("history", *adaptive):
        registry("promote", "--yes", *adaptive)
    log = root / "serve.log"
    model = "models:/interloom-adaptive@champion"
    server = subprocess.Popen(
        [*command, "serve", "--model", model, "--port", str(port)],
        env=env, stderr=log.open("wb"),
    )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

            def serves(version: str) -> bool:
                assert server.poll() is None, log.read_text()
                try:
                    answer = client.get("/ready")
                except httpx.TransportError:
                    return False
                return answer.status_code == 200 and answer.json()["version"] == version

            until(lambda: serves("1"), "the first champion")
            made = client.post("/v1/responses", json={"input": REFLECTION}).json()
            assert made["status"] == "completed" and made["interloom"]["mode"] == "reflection"
            short = {"input": REFLECTION, "image_budget": 1}
            assert client.post("/v1/responses", json=short).json()["status"] == "incomplete"
            run_stage(find_stage("register-adaptive"), settings, root)
            assert "champion 1 → 2" in registry("promote", "--yes", *adaptive)
            until(lambda: serves("2"), "its successor")
            rows = {"dataframe_records": [{"text": MULTI_STEP}]}
            (row,) = client.post("/invocations", json=rows).json()["predictions"]
            assert (row["mode"], row["images_used"]) == ("multi_step", 3)
            assert "champion 2 → 1" in registry("rollback", *adaptive)
            until(lambda: serves("1"), "the first again")
            assert "interloom_swaps_total 2.0" in client.get("/metrics").text
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()
    assert "Traceback" not in log.read_text()
