"""What is served: planner, generators and critic, from the registry, a folder or this project."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from interloom import cast, images
from interloom.agents import ModelCritic, ModelPlanner
from interloom.backends.ledger import LEDGER, Usage
from interloom.catalogue import load_pipeline
from interloom.errors import InterloomError
from interloom.records import Request
from interloom.roles import Critic, CritiqueCase, GenerationJob, Generator, Planner
from interloom.tracking import tracking_uri

if TYPE_CHECKING:
    from interloom.settings import GeneratorName, Settings

SYSTEM = "system:"
WARM_UP = "a red circle at the top left"


@dataclass(frozen=True, eq=False)
class Pipeline:
    """A loaded model. ``version`` tells it from its successors, ``source`` is where it is from."""

    name: str
    version: str
    source: str
    planner: Planner
    critic: Critic | None
    generators: Mapping[str, Generator]
    """The first one is used where a request names none."""
    max_attempts: int
    signed: Any = None
    """MLflow's own view of the model (a ``PyFuncModel``); ``None`` if it is not from MLflow."""

    def usage(self, role: Literal["planner", "generator", "critic"]) -> Sequence[Usage]:
        """Tokens of each item of the role's last call; empty where nobody counts them."""
        agent = {"planner": self.planner, "critic": self.critic}.get(role)
        return agent.usage if isinstance(agent, ModelPlanner | ModelCritic) else ()

    def warm_up(self) -> None:
        """Call every part once, so that the first request need not wait for what is done once."""
        request = Request(id="warm-up", text=WARM_UP)
        self.planner.plan([request])
        for generator in self.generators.values():
            (picture,) = generator.generate([GenerationJob(prompt=WARM_UP, seed=0)])
            if isinstance(picture, bytes) and self.critic is not None:
                case = CritiqueCase(before=None, after=picture, prompt=WARM_UP, used_prompt=WARM_UP)
                self.critic.critique([case])


def load(
    source: str, settings: Settings, root: Path, generators: Sequence[GeneratorName] = ()
) -> Pipeline:
    """Load what ``source`` names.

    Args:
        source: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, a folder of an MLflow model, or
            ``system:NAME`` for one of the evaluated systems, from this project's files.
        generators: of a system, by their names in the params; a registered model brings its own.

    Raises:
        InterloomError: no such model, or no pipeline.
    """
    if source.startswith(SYSTEM):
        return _system(source, settings, root, generators)
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


def _from_mlflow(uri: str, name: str, version: str, source: str) -> Pipeline:
    loaded, model, attempts = load_pipeline(uri, source)
    return Pipeline(
        name=name,
        version=version,
        source=source,
        planner=model.planner,
        critic=model.critic,
        generators={model.generator.name: model.generator},
        max_attempts=attempts,
        signed=loaded,
    )


def _system(
    source: str, settings: Settings, root: Path, generators: Sequence[GeneratorName]
) -> Pipeline:
    import torch

    from interloom.backends.remote import Remotes
    from interloom.benchmarks.systems import MODELS, loader
    from interloom.settings import SystemName
    from interloom.stages import find_stage

    name = source.removeprefix(SYSTEM)
    systems: dict[str, SystemName] = {one: one for one in get_args(SystemName)}
    if name not in systems:
        raise InterloomError(f"{source}: systems are {', '.join(systems)}")
    deps = find_stage("generate").deps
    remotes = Remotes(settings.remote, root / LEDGER, purpose="serving")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folders = {key: root / deps[key] for key in MODELS}
    # A base model may be a name on a hub instead of a folder.
    folders["vlm"] = Path(settings.models.vlm)
    make = loader(
        settings.models, settings.teacher, settings.evaluate, folders, device, remotes, None
    )
    system = make(systems[name])
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
