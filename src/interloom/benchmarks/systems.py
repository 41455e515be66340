"""The systems of ``parts.py``, loaded."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from interloom import cast
from interloom.agents import ModelCritic, ModelPlanner
from interloom.backends.remote import RemoteName, Remotes
from interloom.backends.transformers import ChatModel
from interloom.benchmarks.parts import MODELS, generator_of, parts_of
from interloom.cache import CachedCritic, CachedPlanner, CallCache
from interloom.catalogue import load_pipeline, open_catalogue, resolve
from interloom.loop import DirectPlanner
from interloom.roles import Critic, Generator, Planner, Teacher
from interloom.settings.evaluation import EvaluateSettings, RegisteredSettings
from interloom.settings.models import GeneratorSettings, ModelsSettings, TeacherSettings

__all__ = ["MODELS", "System", "loader"]


@dataclass(frozen=True)
class System:
    """Planner and critic, and the generator between them: settings, or loaded already."""

    name: str
    planner: Planner
    critic: Critic | None
    max_attempts: int
    generator: GeneratorSettings | Generator


def loader(
    models: ModelsSettings,
    teacher: TeacherSettings,
    options: EvaluateSettings,
    folders: Mapping[str, Path],
    device: str,
    remotes: Remotes,
    cache: CallCache | None,
) -> Callable[[str], System]:
    """A function that makes a system; models are loaded when first needed, each once.

    ``folders`` are those of ``vlm``, ``planner-sft``, ``critic-sft`` and ``critic-rl``; calls of
    models are kept in ``cache`` if there is one, or as ``remotes`` keeps them.
    """

    @functools.cache
    def load(model: str) -> ChatModel:
        return ChatModel.from_pretrained(
            folders[model],
            device=device,
            dtype=models.vlm_dtype,
            batch_size=options.batch_size,
            max_image_pixels=models.max_image_pixels,
        )

    @functools.cache
    def oracle() -> Teacher:
        return cast.teacher(teacher, remotes, cache, perfect=True)

    def planner(name: str) -> Planner:
        if name == "none":
            return DirectPlanner()
        if name == "teacher":
            return oracle()
        if name not in MODELS:
            return cast.chat(*_remote(name), teacher, remotes)
        talker = load(name).as_another(name, options.planner_max_new_tokens)
        agent = ModelPlanner(talker, models.dialogue, retries=options.answer_retries)
        return CachedPlanner(agent, cache) if cache else agent

    def critic(name: str) -> Critic | None:
        if name == "none":
            return None
        if name == "teacher":
            return oracle()
        if name not in MODELS:
            return cast.chat(*_remote(name), teacher, remotes)
        talker = load(name).as_another(name, options.critic_max_new_tokens)
        agent = ModelCritic(talker, models.dialogue, retries=options.answer_retries)
        return CachedCritic(agent, cache) if cache else agent

    def make(name: str) -> System:
        parts = parts_of(name, options)
        if isinstance(parts, RegisteredSettings):
            return _registered(name, parts.registered)
        return System(
            name,
            planner(parts.planner),
            critic(parts.critic),
            parts.max_attempts,
            generator_of(parts, models),
        )

    return make


def _remote(name: str) -> tuple[RemoteName, str]:
    """Backend and model of ``BACKEND:MODEL``."""
    backend, _, model = name.partition(":")
    found: dict[str, RemoteName] = {"gemini": "gemini", "openai": "openai"}
    return found[backend], model


def _registered(name: str, uri: str) -> System:
    import mlflow

    catalogue = open_catalogue(Path.cwd())
    version = resolve(catalogue, uri)
    mlflow.set_tracking_uri(catalogue.uri)
    _, model, attempts = load_pipeline(f"models:/{version.name}/{version.version}", uri)
    return System(name, model.planner, model.critic, attempts, model.generator)
