"""Stage ``register`` against a real MLflow store, and what it registered, loaded again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from benchmark_params import small_params

from interloom.errors import InterloomError
from interloom.registry import refuse_pickles
from interloom.runner import run_stage
from interloom.settings import load_settings
from interloom.stages import find_stage

LOAD = """
import json, sys
import mlflow
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


@pytest.fixture
def registered(models_project: Path) -> Path:
    """A project in which ``evaluate`` and ``register`` have run, tracked in SQLite."""
    params = small_params(benchmarks=["wise"], systems=["generator", "oracle"])
    params["tracking"]["uri"] = "sqlite:///mlflow.db"
    (models_project / "params.yaml").write_text(yaml.safe_dump(params))
    settings = load_settings(models_project / "params.yaml")
    run_stage(find_stage("evaluate"), settings, models_project, track=False)
    run_stage(find_stage("register"), settings, models_project)
    return models_project


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
    assert version.run_id == record["run_id"]
    assert client.get_run(version.run_id).info.status == "FINISHED"
    assert {"data.critic-data", "source.git.commit", "interloom-critic"} <= version.tags.keys()
    assert "| oracle |" in version.description and "critic-data: `" in version.description
    files = [path for path in (registered / "mlruns").rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".bin", ".pt")]

    # In a process of its own, far from the project: the package's code comes with the model.
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


@pytest.mark.slow
def test_a_second_version_challenges_and_does_not_replace_the_champion(registered: Path):
    from mlflow.tracking import MlflowClient

    settings = load_settings(registered / "params.yaml")
    run_stage(find_stage("register"), settings, registered)
    client = MlflowClient(tracking_uri=f"sqlite:///{registered / 'mlflow.db'}")
    assert aliases_of(client) == {"champion": "1", "challenger": "2"}


def test_pickles_are_refused(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "weights.bin").write_bytes(b"x")
    with pytest.raises(InterloomError, match=r"weights\.bin may be a pickle"):
        refuse_pickles(tmp_path)
