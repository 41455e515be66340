"""The model registry as commands see it: a version by its name, and the files kept with it."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom.errors import InterloomError
from interloom.settings.file import Settings, load_settings
from interloom.tracking import tracking_uri

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

KIND = "interloom.model"
"""In the metadata of a registered model: which module of ``registered/`` it was made from."""
MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class Catalogue:
    """A project's MLflow: tracking store and registry in one."""

    client: MlflowClient
    uri: str
    root: Path
    settings: Settings


def open_catalogue(root: Path) -> Catalogue:
    """The MLflow that the params file of the project ``root`` names.

    Raises:
        InterloomError: tracking is off.
    """
    settings = load_settings(root / "params.yaml")
    if not settings.tracking.enabled:
        raise InterloomError("tracking.enabled is false: there is no model registry to look into")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    uri = tracking_uri(settings.tracking, root)
    return Catalogue(MlflowClient(tracking_uri=uri, registry_uri=uri), uri, root, settings)


def resolve(catalogue: Catalogue, uri: str) -> ModelVersion:
    """The version that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` means.

    Raises:
        InterloomError: another kind of text, or no such model, alias or version.
    """
    from mlflow.exceptions import MlflowException

    found = MODEL_URI.fullmatch(uri)
    if found is None:
        raise InterloomError(f"{uri!r}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    try:
        if found["alias"]:
            return catalogue.client.get_model_version_by_alias(found["name"], found["alias"])
        return catalogue.client.get_model_version(found["name"], found["version"])
    except MlflowException as error:
        raise InterloomError(f"{uri}: {error.message} (in {shown(catalogue.uri)})") from None


def load_registered(uri: str, source: str) -> tuple[str, Any, Any]:
    """A registered model, loaded: its kind (a module of ``registered/``), MLflow's model, and ours
    inside it.

    Args:
        uri: what MLflow loads.
        source: what the user named, for errors.

    Raises:
        InterloomError: MLflow cannot load it, or it was not made by interloom.
    """
    import mlflow

    try:
        loaded = mlflow.pyfunc.load_model(uri)
    except mlflow.MlflowException as error:
        raise InterloomError(f"{source}: MLflow cannot load it ({error.message})") from error
    try:
        model: Any = loaded.unwrap_python_model()
    except (AttributeError, mlflow.MlflowException) as error:
        raise InterloomError(f"{source} is no interloom model ({error})") from error
    # Versions of before there were several kinds say nothing.
    return (loaded.metadata.metadata or {}).get(KIND, "pipeline"), loaded, model


def load_pipeline(uri: str, source: str) -> tuple[Any, Any, int]:
    """A registered pipeline, loaded: MLflow's model, its planner, generator and critic, and T_max.

    Raises:
        InterloomError: as ``load_registered``, or it is another kind of model.
    """
    kind, loaded, model = load_registered(uri, source)
    if kind != "pipeline":
        raise InterloomError(f"{source} is no interloom pipeline, but a {kind}")
    return loaded, model, attempts_of(loaded, model, source)


def attempts_of(loaded: Any, model: Any, source: str) -> int:
    """T_max of a model that should be a pipeline.

    Raises:
        InterloomError: it is none.
    """
    try:
        _ = model.planner, model.critic, model.generator
        return loaded.model_config["max_attempts"]
    except (AttributeError, KeyError, TypeError) as error:
        raise InterloomError(
            f"{source} is no interloom pipeline ({error}); `interloom run register` makes one"
        ) from error


def versions(catalogue: Catalogue, name: str) -> set[str]:
    """Numbers of the versions of a model that are there; none if there is no such model."""
    found = catalogue.client.search_model_versions(f"name = '{name}'")
    return {str(version.version) for version in found}


def aliases(catalogue: Catalogue, name: str) -> dict[str, str]:
    """Version by alias; none if there is no such model."""
    from mlflow.exceptions import MlflowException

    try:
        model = catalogue.client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}
    return {alias: str(version) for alias, version in model.aliases.items()}


def fetch(catalogue: Catalogue, version: ModelVersion, path: str, target: Path) -> Path:
    """A copy under ``target`` of a file or folder that was stored in the model's folder.

    Raises:
        InterloomError: there is none, as in versions of other makers.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        found = mlflow.artifacts.download_artifacts(
            artifact_uri=f"{version.source}/{path}",
            dst_path=str(target),
            tracking_uri=catalogue.uri,
        )
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InterloomError(
            f"{version.name} version {version.version} has no {path} ({reason}): register it again"
        ) from None
    return Path(found)


def shown(uri: str) -> str:
    """A store's URI without its password."""
    return re.sub(r"(://[^:/@]+):[^@/]+@", r"\1:…@", uri)
