"""From a name to the system that is served: out of the registry, a folder, or this project."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from interloom import cast, images
from interloom.backends.ledger import LEDGER
from interloom.catalogue import attempts_of, load_registered
from interloom.errors import InterloomError
from interloom.serve.pipeline import Pipeline
from interloom.serve.system import System
from interloom.tracking import tracking_uri

if TYPE_CHECKING:
    from interloom.serve.reasoner import Reasoner
    from interloom.settings.evaluation import SystemName
    from interloom.settings.fields import GeneratorName
    from interloom.settings.file import Settings

SYSTEM = "system:"


def load(
    source: str, settings: Settings, root: Path, generators: Sequence[GeneratorName] = ()
) -> System[Any]:
    """Load what ``source`` names.

    Args:
        source: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, a folder of an MLflow model, or
            ``system:NAME`` for one of the evaluated systems, from this project's files.
        generators: of a system, by their names in the params; a registered model brings its own.

    Raises:
        InterloomError: no such model, or none that can be served.
    """
    if source.startswith(SYSTEM):
        return _evaluated(source, settings, root, generators)
    if generators:
        raise InterloomError(f"{source} brings its generator; --generator is for {SYSTEM}NAME")
    version = resolve(source, settings, root)
    if source.startswith("models:/"):
        name = _registered_name(source)
        return _from_mlflow(f"models:/{name}/{version}", name, version, source)
    return _from_mlflow(source, Path(source).resolve().name, version, source)


def resolve(source: str, settings: Settings, root: Path) -> str:
    """The version that ``source`` stands for now; asks the registry alone, loads nothing.

    Raises:
        InterloomError: no such model, alias or folder.
    """
    if source.startswith(SYSTEM):
        return "project"
    if not source.startswith("models:/"):
        if not (Path(source) / "MLmodel").is_file():
            raise InterloomError(
                f"{source} is no folder of an MLflow model (it has no MLmodel file); "
                f"models are models:/NAME@ALIAS, such a folder, or {SYSTEM}NAME"
            )
        return images.digest((Path(source) / "MLmodel").read_bytes())[:12]
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    uri = tracking_uri(settings.tracking, root)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    name = _registered_name(source)
    alias, number = source.partition("@")[2], source.removeprefix(f"models:/{name}").strip("/")
    try:
        if alias:
            return str(client.get_model_version_by_alias(name, alias).version)
        return str(client.get_model_version(name, number).version)
    except MlflowException as error:
        said = str(error.message).splitlines()[0]
        raise InterloomError(f"{source}: not in the model registry at {uri} ({said})") from error


def follows(source: str) -> bool:
    """Whether ``source`` may mean another version later."""
    return source.startswith("models:/") and "@" in source


def _registered_name(source: str) -> str:
    found = re.fullmatch(r"models:/([^/@]+)(?:@[^/@]+|/\d+)", source)
    if not found:
        raise InterloomError(f"{source}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    return found[1]


def _from_mlflow(uri: str, name: str, version: str, source: str) -> System[Any]:
    kind, loaded, model = load_registered(uri, source)
    if kind == "reasoner":
        from interloom.serve.reasoner import Reasoner

        return Reasoner(name, version, source, model.reasoner)
    if kind != "pipeline":
        raise InterloomError(f"{source} is a {kind}: the pipeline that it belongs to is served")
    attempts = attempts_of(loaded, model, source)
    return Pipeline(
        name=name,
        version=version,
        source=source,
        planner=model.planner,
        critic=model.critic,
        generators={model.generator.name: model.generator},
        max_attempts=attempts,
    )


def _evaluated(
    source: str, settings: Settings, root: Path, generators: Sequence[GeneratorName]
) -> System[Any]:
    from interloom.adaptive.systems import OWN
    from interloom.settings.evaluation import SystemName

    name = source.removeprefix(SYSTEM)
    agents: dict[str, SystemName] = {one: one for one in get_args(SystemName)}
    adaptive = [*OWN, *settings.evaluate_adaptive.more_systems]
    if name in agents:
        return _agents(agents[name], source, settings, root, generators)
    if name not in adaptive:
        raise InterloomError(f"{source}: systems are {', '.join([*agents, *adaptive])}")
    if generators:
        raise InterloomError(f"{source} draws by itself: it has no --generator")
    return _unified(name, source, settings, root)


def _agents(
    name: SystemName,
    source: str,
    settings: Settings,
    root: Path,
    generators: Sequence[GeneratorName],
) -> Pipeline:
    import torch

    from interloom.backends.remote import Remotes
    from interloom.benchmarks.systems import MODELS, loader
    from interloom.stages import find_stage

    deps = find_stage("generate").deps
    remotes = Remotes(settings.remote, root / LEDGER, purpose="serving")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folders = {key: root / deps[key] for key in MODELS}
    # A base model may be a name on a hub instead of a folder.
    folders["vlm"] = Path(settings.models.vlm)
    make = loader(
        settings.models, settings.teacher, settings.evaluate, folders, device, remotes, None
    )
    system = make(name)
    chosen = generators or (settings.evaluate.generator,)
    return Pipeline(
        name=name,
        version="project",
        source=source,
        planner=system.planner,
        critic=system.critic,
        generators={
            key: cast.generator(settings.models.generator_named(key), remotes) for key in chosen
        },
        max_attempts=system.max_attempts,
    )


def _unified(name: str, source: str, settings: Settings, root: Path) -> Reasoner:
    from interloom.adaptive.systems import MODELS, budget_of, load_reasoner, parts_of
    from interloom.serve.reasoner import Reasoner
    from interloom.stages import find_stage

    deps = find_stage("generate-adaptive").deps
    folders = {key: root / deps[key] for key in MODELS}
    folders["umm"] = Path(settings.unified.model)
    parts = parts_of(name, settings.evaluate_adaptive)
    reasoner = load_reasoner(parts.model, settings, folders[parts.model])
    return Reasoner(name, "project", source, reasoner, budget_of(parts))
