"""Stage ``register`` against a real MLflow store, and what it registered, loaded again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import models_project
import pytest
import yaml
from benchmark_params import small_params
from tiny_project.project import free_port, wait_for

from interloom.benchmarks.evidence import PIPELINE, Evidence
from interloom.benchmarks.parts import AGENTS
from interloom.catalogue import open_catalogue
from interloom.digests import digest
from interloom.errors import InterloomError
from interloom.promotion.decisions import evidence_of, promote, propose
from interloom.promotion.ledger import Author
from interloom.registered import signatures
from interloom.registry import (
    Part,
    critic_example,
    refuse_pickles,
    request_example,
    write_model,
)
from interloom.runner import run_stage
from interloom.settings.file import load_settings, settings_from
from interloom.stages import find_stage

LOAD = """
import json, sys
import mlflow

def refuse(event, arguments):
    if event == "pickle.find_class":
        raise RuntimeError(f"unpickles {arguments}")

sys.addaudithook(refuse)
mlflow.set_tracking_uri(sys.argv[1])
pipeline = mlflow.pyfunc.load_model("models:/interloom-pipeline@champion")
import interloom
answer = pipeline.predict([{"text": "a red sun at the top left"}], params={"max_attempts": 1})
critic = mlflow.pyfunc.load_model("models:/interloom-critic/1")
planner = mlflow.pyfunc.load_model("models:/interloom-planner/1")
example = planner.input_example
print(json.dumps({
    "columns": sorted(answer.columns), "failure": answer.failure[0],
    "critic": sorted(critic.predict(critic.input_example).columns),
    "planner": sorted(planner.predict(example).columns),
    "code": interloom.__file__,
}))
"""


@pytest.fixture(scope="module")
def registered(
    tmp_path_factory: pytest.TempPathFactory, tiny_vlm: Path, tiny_generator: Path
) -> Iterator[Path]:
    """A project in which ``evaluate`` and ``register`` have run, tracked in SQLite, and the first
    version was promoted; also the working directory."""
    before = Path.cwd()
    root = models_project.make(tmp_path_factory.mktemp("registered"), tiny_vlm, tiny_generator)
    os.chdir(root)
    params = small_params(benchmarks=["wise"], systems=["full-rl", "oracle"])
    params["tracking"]["uri"] = "sqlite:///mlflow.db"
    params["registration"]["timed_requests"] = 2
    params["promotion"]["agents"]["benchmarks"] = {"wise": {"floor": 0.0, "max_loss": 5.0}}
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    (root / "dvc.yaml").write_text("stages: {}\n")
    settings = load_settings(root / "params.yaml")
    for name in ("generate@wise", "evaluate"):
        run_stage(find_stage(name), settings, root, track=False)
    trained = pretend_training(root)
    run_stage(find_stage("register"), settings, root)
    (root / "trained").write_text(trained)
    catalogue = open_catalogue(root)
    promote(catalogue, propose(catalogue, "agents", None), Author("test"))
    yield root
    os.chdir(before)


def pretend_training(root: Path) -> str:
    """A run whose output is the project's planner, as the stages' tracker writes it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.create_experiment(load_settings(root / "params.yaml").tracking.experiment)
    run = client.create_run(experiment).info.run_id
    found = Dataset("planner-sft", digest(root / "outputs/models/planner-sft"), "local", "{}")
    client.log_inputs(run, [DatasetInput(found, [InputTag("mlflow.data.context", "out")])])
    return run


def aliases_of(client: Any) -> dict[str, str]:
    aliases = client.get_registered_model("interloom-pipeline").aliases
    return {alias: str(version) for alias, version in aliases.items()}


@pytest.mark.slow
def test_versions_are_made_and_load_anywhere(registered: Path, tmp_path: Path):
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{registered / 'mlflow.db'}"
    record = json.loads((registered / "outputs/registration.json").read_text())
    assert record["versions"] == {
        "interloom-planner": "1",
        "interloom-critic": "1",
        "interloom-pipeline": "1",
    }
    client = MlflowClient(tracking_uri=uri)
    assert aliases_of(client) == {"champion": "1", "challenger": "1"}
    version = client.get_model_version("interloom-pipeline", "1")
    assert version.run_id is not None and version.description is not None
    assert version.run_id == record["run_id"]
    assert client.get_run(version.run_id).info.status == "FINISHED"
    assert {"data.critic-data", "source.git.commit", "interloom-critic"} <= version.tags.keys()
    assert "| oracle |" in version.description and "critic-data: `" in version.description
    found = evidence_of(open_catalogue(registered), "interloom-pipeline", "1")
    check_evidence(found, registered)
    trained = (registered / "trained").read_text()
    assert version.tags["run.planner-sft"] == trained and "run.critic-rl" not in version.tags
    assert f"run.planner-sft: `{trained}`" in version.description
    for heading in ("data.planner-data: `", "source.git.commit: `", "## Benchmarks", "## Limits"):
        assert heading in version.description
    assert_no_pickle(registered / "mlruns")

    # In a process of its own, far from the project: the package's code comes with the model, and
    # whatever would be unpickled on the way ends it.
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, uri],
        cwd=tmp_path, env=alone, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert Path(told["code"]).parts[-3:] == ("code", "interloom", "__init__.py")
    assert told["columns"] == ["failure", "images", "texts", "trajectory"]
    assert told["failure"].startswith("missing-tag")  # a model that knows nothing gives no plan
    assert told["critic"] == ["failure", "reasoning", "refine_prompt", "success"]
    assert told["planner"] == ["answer", "failure"]


def assert_no_pickle(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    refuse_pickles(folder)
    models = [yaml.safe_load(path.read_text()) for path in files if path.name == "MLmodel"]
    for model in models:
        flavour = model["flavors"]["python_function"]
        assert "python_model" not in flavour and flavour["model_code_path"].endswith(".py")
        assert model["signature"]["inputs"] and model["saved_input_example_info"]
    for part in ("requirements.txt", "README.md", "lineage/lineage.json"):
        assert sum(path.as_posix().endswith(f"/{part}") for path in files) >= len(models) > 0


def test_nothing_that_is_written_is_a_pickle(
    tmp_path: Path, tiny_vlm: Path, tiny_generator: Path, tiny_umm: Path
):
    """Every file of every model that the stage writes, by content."""
    (tmp_path / "origin").mkdir()
    (tmp_path / "origin/lineage.json").write_text("{}")
    folders = {
        "planner": tiny_vlm, "critic": tiny_vlm, "generator": tiny_generator, "unified": tiny_umm,
    }  # fmt: skip
    for code, names in (
        ("planner", ["planner"]), ("critic", ["critic"]), ("pipeline", ["planner", "critic",
        "generator"]), ("reasoner", ["unified"]),
    ):  # fmt: skip
        example = critic_example() if code == "critic" else request_example()
        signed = {
            "planner": signatures.planner, "critic": signatures.critic,
            "pipeline": signatures.pipeline, "reasoner": signatures.reasoner,
        }[code]()  # fmt: skip
        part = Part(code, code, {name: folders[name] for name in names}, signed, example)
        write_model(part, {}, "# card\n", tmp_path / "origin", tmp_path / "models" / code)
    assert_no_pickle(tmp_path / "models")
    weights = {path.parts[-3] for path in (tmp_path / "models/pipeline").rglob("*.safetensors")}
    assert {"artifacts", tiny_generator.name} <= weights, "chat model and generator"


def check_evidence(found: Evidence, project: Path) -> None:
    """It says what ``evaluate`` wrote, and how quick the pipeline was."""
    graded = json.loads((project / f"outputs/evaluation/wise/{PIPELINE}/graded.json").read_text())
    assert found.benchmarks["wise"].graded.items == graded["items"]
    assert set(found.benchmarks) == {"wise"}
    assert {key.removeprefix("wise/") for key in found.benchmarks["wise"].questions} == set(
        graded["strata"]
    )
    assert len(found.latency.seconds) == 2
    assert 0 < found.latency.median <= found.latency.p95
    assert found.images_per_request == graded["run"]["images_per_request"]


@pytest.mark.slow
def test_a_registered_pipeline_is_evaluated_by_its_alias(registered: Path):
    raw = small_params(
        benchmarks=["wise"],
        more_systems={"champion": {"registered": "models:/interloom-pipeline@champion"}},
        systems=["champion"],
    )
    raw["tracking"]["uri"] = "sqlite:///mlflow.db"
    run_stage(find_stage("generate@wise"), settings_from(raw, "test"), registered, track=False)
    made = registered / "outputs/answers/wise/champion"
    told = json.loads((made / "system.json").read_text())
    assert told["made of"] == "models:/interloom-pipeline@champion (version 1)"
    assert json.loads((made / "run.json").read_text())["requests"] == 6
    raw["evaluate"]["more_systems"]["champion"]["registered"] = "models:/nobody@champion"
    with pytest.raises(InterloomError, match="models:/nobody@champion"):
        run_stage(find_stage("generate@wise"), settings_from(raw, "test"), registered, track=False)


def test_the_pipeline_is_one_of_the_evaluated_systems() -> None:
    assert PIPELINE in AGENTS


@pytest.mark.slow
def test_mlflow_serves_the_champion(registered: Path, tmp_path: Path) -> None:
    """``mlflow models serve`` far from the project, asked over HTTP."""
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    alone |= {
        "MLFLOW_TRACKING_URI": f"sqlite:///{registered / 'mlflow.db'}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{alone['PATH']}",
    }
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [
                *("mlflow", "models", "serve", "-m", "models:/interloom-pipeline@champion"),
                *("--env-manager", "local", "-p", str(port), "--workers", "1"),
            ],
            cwd=tmp_path, env=alone, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip

    def ready() -> bool:
        assert server.poll() is None, (tmp_path / "log").read_text()[-3000:]
        try:
            return httpx.get(f"{address}/ping", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        wait_for(ready, seconds=240, every=0.5)
        asked = {
            "dataframe_split": {"columns": ["text"], "data": [["a red sun at the top left"]]},
            "params": {"max_attempts": 1, "seed": 3},
        }
        answer = httpx.post(f"{address}/invocations", json=asked, timeout=120)
        assert answer.status_code == 200, answer.text
        (row,) = answer.json()["predictions"]
        assert set(row) == {"texts", "images", "trajectory", "failure"}
        wrong = {"dataframe_split": {"columns": ["words"], "data": [["x"]]}}
        assert httpx.post(f"{address}/invocations", json=wrong, timeout=60).status_code == 400
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.slow
def test_a_second_version_challenges_and_does_not_replace_the_champion(registered: Path):
    from mlflow.tracking import MlflowClient

    settings = load_settings(registered / "params.yaml")
    run_stage(find_stage("register"), settings, registered)
    client = MlflowClient(tracking_uri=f"sqlite:///{registered / 'mlflow.db'}")
    assert aliases_of(client) == {"champion": "1", "challenger": "2"}


def test_pickles_are_refused(tmp_path: Path):
    import pickle
    import struct

    import numpy as np
    import torch

    def arrays(path: Path) -> None:
        np.savez(path.with_suffix(".npz"), a=np.arange(3))
        np.save(path.with_suffix(".npy"), np.array([{}], dtype=object))

    fakes = {
        "weights.bin": lambda path: path.write_bytes(b"x"),
        "model.dat": lambda path: path.write_bytes(pickle.dumps({"a": 1})),
        "old.json": lambda path: path.write_bytes(pickle.dumps([1], protocol=2)),
        "archive.safetensors": lambda path: torch.save({"a": torch.zeros(1)}, path),
        "objects": arrays,
    }
    for name, write in fakes.items():
        folder = tmp_path / name
        (folder / "sub").mkdir(parents=True)
        write(folder / "sub" / name)
        with pytest.raises(InterloomError, match="may be a pickle"):
            refuse_pickles(folder)
    # A safetensors file whose header has 0x280 bytes begins as a pickle does.
    sound = tmp_path / "sound"
    sound.mkdir()
    (sound / "x.safetensors").write_bytes(struct.pack("<Q", 0x280) + b"{" + b" " * 0x27E + b"}")
    refuse_pickles(sound)
