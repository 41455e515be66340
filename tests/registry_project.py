"""A project folder with a real MLflow registry and versions that have evidence but no weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from benchmark_params import small_params

from interloom.benchmarks.evidence import FILE, BenchmarkEvidence, Evidence, Latency
from interloom.benchmarks.graded import Graded
from interloom.catalogue import Catalogue, open_catalogue
from interloom.promotion.decisions import promote, propose, settled
from interloom.promotion.ledger import Author, Entry, Ledger, words
from interloom.settings.fields import System

MODEL = "interloom-pipeline"
MODELS: dict[System, str] = {"agents": MODEL, "adaptive": "interloom-adaptive"}
LIMITS: dict[str, Any] = {
    "benchmarks": {
        "wise": {"floor": 10.0, "max_loss": 5.0},
        "rise": {"floor": 0.0, "max_loss": 5.0},
    },
    "min_gain": 0.0,
    "max_unjudged": 0.02,
    "max_images_per_request": 8.0,
    "max_median_seconds": 2.0,
    "max_p95_seconds": 4.0,
}
GOOD, BETTER, WORSE = (50.0, 60.0, 70.0, 40.0), (56.0, 66.0, 77.0, 48.0), (20.0, 30.0, 40.0, 10.0)


def benchmark(
    name: str,
    scores: Sequence[float],
    *,
    asked: str = "seed 7",
    protocol: str = "one",
    unjudged: float = 0.0,
    images: float = 2.0,
) -> BenchmarkEvidence:
    """Items 0, 1, … in two tasks with these scores; ``asked`` makes the questions."""
    ids = [str(number) for number in range(len(scores))]
    return BenchmarkEvidence(
        graded=Graded(
            protocol=f"{name}/{protocol}",
            judge="judge",
            items=dict(zip(ids, scores, strict=True)),
            strata={item: "even" if int(item) % 2 == 0 else "odd" for item in ids},
            weights={},
            parts={},
            unjudged=unjudged,
            run={"requests": float(len(ids)), "images_per_request": images},
        ),
        questions={f"{name}/{item}": f"{asked} {item}" for item in ids},
    )


def evidence(
    scores: Sequence[float], seconds: Sequence[float] = (1.0, 1.5), **benchmarks: Any
) -> Evidence:
    """The same scores on WISE and RISE; ``benchmarks`` go to both."""
    return Evidence(
        benchmarks={name: benchmark(name, scores, **benchmarks) for name in ("wise", "rise")},
        latency=Latency(seconds=tuple(seconds), machine="here"),
    )


def make(root: Path, uri: str, **promotion: Any) -> Path:
    """Params and an empty ``dvc.yaml``."""
    params = small_params()
    params["tracking"]["uri"] = uri
    params["promotion"] |= {"agents": LIMITS, "adaptive": LIMITS} | promotion
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    (root / "dvc.yaml").write_text("stages: {}\n")
    return root


def from_template(template: Path, root: Path, **promotion: Any) -> Catalogue:
    """A project with a copy of an empty MLflow database: quicker than making one."""
    make(root, "sqlite:///mlflow.db", **promotion)
    shutil.copy(template, root / "mlflow.db")
    return open_catalogue(root)


def add_version(catalogue: Catalogue, found: Evidence | None, system: System = "agents") -> str:
    """Register a version with this evidence, as challenger; its number."""
    from mlflow.exceptions import MlflowException

    client, model = catalogue.client, MODELS[system]
    try:
        client.create_registered_model(model)
    except MlflowException as error:
        assert error.error_code == "RESOURCE_ALREADY_EXISTS"
    number = len(list(catalogue.root.glob("models/*")))
    folder = catalogue.root / "models" / str(number)
    folder.mkdir(parents=True)
    if found is not None:
        (folder / FILE).write_text(found.model_dump_json())
    source, run_id = str(folder), None
    if catalogue.uri.startswith("http"):  # a server takes no folders of its clients
        run = client.create_run("0").info
        client.log_artifacts(run.run_id, str(folder), "models/pipeline")
        source, run_id = f"{run.artifact_uri}/models/pipeline", run.run_id
    version = str(client.create_model_version(model, source, run_id=run_id).version)
    client.set_registered_model_alias(model, "challenger", version)
    return version


def tags_of(catalogue: Catalogue, version: str) -> Mapping[str, str]:
    """Tags of a version."""
    return catalogue.client.get_model_version(MODEL, version).tags


ANA = Author("ana", "looks good", {"prefect.flow_run_id": "f-1"})


def history(catalogue: Catalogue, system: System = "agents") -> list[Entry]:
    return settled(Ledger(catalogue, MODELS[system]))


def told(catalogue: Catalogue, system: System = "agents") -> list[str]:
    return [words(entry) for entry in history(catalogue, system)]


def promoted(catalogue: Catalogue, *scores: tuple[float, ...], system: System = "agents") -> None:
    """Register and promote versions one after the other."""
    for one in scores:
        version = add_version(catalogue, evidence(one), system)
        promote(catalogue, propose(catalogue, system, version), ANA)


def runs_of(catalogue: Catalogue) -> list[Any]:
    """Runs of the experiment with the decisions, oldest first."""
    found = catalogue.client.get_experiment_by_name("promotions")
    assert found is not None
    return list(reversed(catalogue.client.search_runs([found.experiment_id])))
