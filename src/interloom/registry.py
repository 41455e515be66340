"""Stage ``register``: planner, critic and the composed pipeline become model versions in MLflow.

Models are stored as code plus weights in safetensors: nothing in them is a pickle. They load
anywhere: the package's code and a local generator travel with them. With each goes where it comes
from (``lineage.py``), with the pipeline also what the benchmarks say of it and how quick it is
(``benchmarks/evidence.py``). A new pipeline version gets the alias ``challenger``; who becomes
``champion`` is decided elsewhere (``promotion/``).
"""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom import latency, lineage
from interloom.benchmarks import evidence
from interloom.catalogue import KIND
from interloom.digests import digest
from interloom.errors import InterloomError
from interloom.provenance import provenance, versions
from interloom.registered import signatures
from interloom.runner import StageRun
from interloom.settings.file import Settings, load_settings
from interloom.tracking import tracking_uri

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

CODE = Path(__file__).parent / "registered"
PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
REQUIREMENTS = (
    "accelerate", "diffusers", "mlflow", "numpy", "pandas", "pillow", "pydantic", "pyyaml", "torch",
    "transformers",
)  # fmt: skip
CHALLENGER, CHAMPION = "challenger", "champion"


@dataclass(frozen=True)
class Part:
    """One model to register: its name, its code in ``registered/``, its folders, its columns."""

    name: str
    code: str
    artifacts: dict[str, Path]
    signature: ModelSignature
    example: dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """What a stage registers; the last of the ``parts`` is what is evaluated, served and promoted.

    ``trained`` and ``datasets`` are dependencies of the stage; ``about`` heads the model card, and
    ``based_on`` says which models it was made of.
    """

    parts: list[Part]
    config: Mapping[str, Any]
    system: str
    trained: Sequence[str]
    datasets: Sequence[str]
    about: str
    based_on: str
    threads: int


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    names, models = settings.registration, settings.models
    planner, critic = stage.dep("planner-sft"), stage.dep("critic-rl")
    folders = {"planner": planner, "critic": critic}
    generator = models.generator_named(settings.evaluate.generator)
    if Path(generator.model).is_dir():
        folders["generator"] = Path(generator.model)
    parts = [
        Part(
            names.planner_name, "planner", {"planner": planner},
            signatures.planner(), request_example(),
        ),
        Part(
            names.critic_name, "critic", {"critic": critic},
            signatures.critic(), critic_example(),
        ),
        Part(names.model_name, "pipeline", folders, signatures.pipeline(), request_example()),
    ]  # fmt: skip
    config = {
        "dialogue": models.dialogue,
        "dtype": models.vlm_dtype,
        "max_image_pixels": models.max_image_pixels,
        "batch_size": settings.evaluate.batch_size,
        "planner_max_new_tokens": settings.evaluate.planner_max_new_tokens,
        "critic_max_new_tokens": settings.evaluate.critic_max_new_tokens,
        "max_attempts": settings.evaluate.max_attempts,
        "generator": generator.model_dump(mode="json"),
        "remote": settings.remote.model_dump(mode="json"),
    }
    entry = Entry(
        parts=parts,
        config=config,
        system=evidence.PIPELINE,
        trained=("planner-sft", "critic-rl"),
        datasets=("planner-data", "critic-data"),
        about="# interloom: planner, critic and pipeline\n\nInterleaved text-and-image sequences: "
        "a planner writes all steps, a frozen generator draws, a critic judges every picture and "
        "rewrites the prompt until the step passes.",
        based_on=f"base model `{models.vlm}`, generator `{generator.model}`",
        threads=settings.evaluate.threads,
    )
    register(entry, settings, stage)


def register(entry: Entry, settings: Settings, stage: StageRun) -> None:
    """Write the models, put them into the registry, and make the last one the challenger.

    Raises:
        InterloomError: a model folder has a pickle in it.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    parts, main = entry.parts, entry.parts[-1].name
    for folder in {path for part in parts for path in part.artifacts.values()}:
        refuse_pickles(folder)
    tags = tags_of(entry, stage) | training_runs(entry, stage)
    card = model_card(entry, settings, stage, tags)
    origin = stage.work / "lineage"
    if not origin.exists():
        datasets = [stage.dep(name) for name in entry.datasets]
        lineage.record(Path.cwd(), origin, read=list(stage.deps.values()), datasets=datasets)
    for part in stage.progress(parts, "writing models"):
        write_model(part, entry.config, card, origin, stage.work / part.name)
    write_evidence(entry, settings, stage, stage.work / main)
    versions_made: dict[str, str] = {}
    run_id = stage.run_id
    if run_id is None:
        stage.log("tracking is off: the models are written, but there is no registry to enter")
    else:
        versions_made = enter(parts, stage.work, run_id, card, tags)
    record = {"run_id": run_id, "versions": versions_made}
    stage.out("registration").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for name, version in versions_made.items():
        stage.log(f"registered {name} version {version}")
    if versions_made:
        stage.log(f"@{CHALLENGER} is {main} {versions_made[main]}")


def refuse_pickles(folder: Path) -> None:
    """A model folder with a pickle in it is not registered: loading one runs code.

    Raises:
        InterloomError: naming the file.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (path.suffix in PICKLES or holds_pickle(path)):
            raise InterloomError(f"{path} may be a pickle; save the weights as safetensors")


def holds_pickle(path: Path) -> bool:
    """Whether a file's content, whatever its name, is a pickle, or an archive or array with one."""
    with path.open("rb") as file:
        head = file.read(128)
    if head[:4] == b"PK\x03\x04" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(Path(name).suffix in PICKLES for name in archive.namelist())
    if head[:6] == b"\x93NUMPY":
        return b"'|O'" in head
    # Safetensors begin with the length of a JSON header, which may look like a pickle's first byte.
    return head[:1] == b"\x80" and 2 <= head[1] <= 5 and head[8:9] != b"{"


# --- writing --------------------------------------------------------------------------------------


def write_model(
    part: Part, config: Mapping[str, Any], card: str, origin: Path, folder: Path
) -> None:
    """Write one MLflow model folder, with its origin and its model card as ``README.md``."""
    import shutil

    import mlflow

    if (folder / "README.md").exists():
        return  # whole: written last
    shutil.rmtree(folder, ignore_errors=True)
    mlflow.pyfunc.save_model(
        folder,
        python_model=str(CODE / f"{part.code}.py"),
        artifacts={name: str(path) for name, path in part.artifacts.items()},
        model_config=dict(config),
        signature=part.signature,
        input_example=example_table(part.example),
        metadata={KIND: part.code},
        pip_requirements=[f"{name}=={v}" for name, v in versions(REQUIREMENTS).items()],
        code_paths=[str(Path(__file__).parent)],
    )
    shutil.copytree(origin, folder / lineage.FOLDER)
    (folder / "README.md").write_text(card, encoding="utf-8")


def write_evidence(entry: Entry, settings: Settings, stage: StageRun, folder: Path) -> None:
    """Put what the gate needs to know into a model's folder; times single requests for it."""
    import torch

    if (folder / evidence.FILE).exists():
        return
    if entry.threads:
        torch.set_num_threads(entry.threads)
    evaluation = stage.dep("evaluation")
    requests = evidence.sample(evaluation, settings.registration.timed_requests)
    bar = stage.progress(len(requests), "timing single requests")
    took = latency.measure(folder, requests, settings.seed, bar)
    stage.metrics({"latency.median_seconds": took.median, "latency.p95_seconds": took.p95})
    found = evidence.of_evaluation(evaluation, took, entry.system)
    part = folder / f"{evidence.FILE}.part"
    part.write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    part.rename(folder / evidence.FILE)


def request_example() -> dict[str, Any]:
    """A request that every pipeline understands."""
    return {"text": "a red circle at the top left, a blue cup at the center"}


def critic_example() -> dict[str, Any]:
    """A blank first step."""
    import base64

    from interloom.images import white

    blank = base64.b64encode(white(96, 96)).decode()
    return {"after": blank, "prompt": "a red circle at the top left"}


def example_table(example: Mapping[str, Any]) -> Any:
    """One row as a table."""
    import pandas as pd

    return pd.DataFrame([dict(example)])


def tags_of(entry: Entry, stage: StageRun) -> dict[str, str]:
    """Where a version comes from: data digests, git, packages."""
    found = provenance(Path.cwd())
    data = (*entry.datasets, "evaluation")
    tags = {f"data.{name}": digest(stage.dep(name)) for name in data}
    kept = ("mlflow.source.git.commit", "interloom.git_dirty", "interloom.packages")
    return tags | {name.removeprefix("mlflow."): found[name] for name in kept}


def training_runs(entry: Entry, stage: StageRun) -> dict[str, str]:
    """The MLflow run that made each trained model, by a tag's name; the last one if there are more.

    It is the run whose output has the model's digest. A model that was trained elsewhere, and came
    out of DVC's cache, has none here.
    """
    if stage.run_id is None:
        return {}
    client = _client()
    experiment = client.get_run(stage.run_id).info.experiment_id
    made: dict[str, str] = {}
    for name in entry.trained:
        runs = client.search_runs(
            [experiment],
            f"dataset.name = '{name}' AND dataset.digest = '{digest(stage.dep(name))}' "
            "AND dataset.context = 'out'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        if runs:
            made[f"run.{name}"] = runs[0].info.run_id
    return made


def model_card(entry: Entry, settings: Settings, stage: StageRun, tags: Mapping[str, str]) -> str:
    """The model card: training runs, data, benchmark table, limits."""
    from interloom.benchmarks.report import markdown
    from interloom.benchmarks.report_page import judge_line

    summary = json.loads((stage.dep("evaluation") / "summary.json").read_text(encoding="utf-8"))
    table = markdown(summary).split("\n", 2)[2]
    lines = [
        entry.about,
        "",
        f"- profile `{settings.profile}`, seed {settings.seed}",
        f"- {entry.based_on}",
        *(f"- {name}: `{value}`" for name, value in sorted(tags.items())),
        "",
        "## Benchmarks",
        table,
        "## Limits",
        "",
        f"{judge_line(summary)} One training seed; intervals are over items. The pocket profile "
        "speaks the pocket world's language alone.",
        "",
    ]
    return "\n".join(lines)


# --- entering -------------------------------------------------------------------------------------


def enter(
    parts: list[Part],
    work: Path,
    run_id: str,
    card: str,
    tags: Mapping[str, str],
) -> dict[str, str]:
    """Upload the models to the stage's run and make a version of each; returns name → version.
    The last one gets the alias ``challenger``.

    A version that this run has made already (before a kill) is not made twice.
    """
    client = _client()
    made: dict[str, str] = {}
    for part in parts:
        place = f"models/{part.name}"
        client.log_artifacts(run_id, str(work / part.name), place)
        source = f"{client.get_run(run_id).info.artifact_uri}/{place}"
        made[part.name] = _version(client, part.name, source, run_id, card, tags)
    main = parts[-1].name
    client.set_registered_model_alias(main, CHALLENGER, made[main])
    for name, version in made.items():
        client.set_model_version_tag(main, made[main], name, version)
    return made


def _client() -> Any:
    """Of the project's MLflow, which is none of the stage's own settings."""
    from mlflow.tracking import MlflowClient

    uri = tracking_uri(load_settings().tracking, Path.cwd())
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _version(
    client: Any, name: str, source: str, run_id: str, card: str, tags: Mapping[str, str]
) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for known in client.search_model_versions(f"name = '{name}'"):
        if known.run_id == run_id:
            return str(known.version)
    version = client.create_model_version(
        name, source, run_id=run_id, tags=dict(tags), description=card
    )
    return str(version.version)
