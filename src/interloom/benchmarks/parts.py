"""The systems that are compared: who plans, who draws, who criticises, how often a step is tried.

=============  ======================  ====================  ========
system         planner                 critic                attempts
=============  ======================  ====================  ========
generator      none (the request is    none                  1
               the prompt)
zero-shot      base model              base model            T_max
planner-sft    fine-tuned planner      base model            T_max
one-agent      fine-tuned planner      the same model        T_max
full-sft       fine-tuned planner      fine-tuned critic     T_max
full-rl        fine-tuned planner      critic after GRPO     T_max
oracle         teacher                 teacher               T_max
=============  ======================  ====================  ========

``evaluate.more_systems`` adds others. ``systems.py`` loads them; here is what they are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from interloom.settings.evaluation import AgentsSettings, EvaluateSettings, RegisteredSettings
from interloom.settings.file import Settings
from interloom.settings.models import GeneratorSettings, ModelsSettings

MODELS = ("vlm", "planner-sft", "critic-sft", "critic-rl")
"""The model folders that systems are made of, as the stages' files call them."""
GENERATORS = ("generator", "generator-weak")
AGENTS: dict[str, tuple[str, str]] = {
    "generator": ("none", "none"),
    "zero-shot": ("vlm", "vlm"),
    "planner-sft": ("planner-sft", "vlm"),
    "one-agent": ("planner-sft", "planner-sft"),  # trained with sft_planner.with_critic_rows
    "full-sft": ("planner-sft", "critic-sft"),
    "full-rl": ("planner-sft", "critic-rl"),
    "oracle": ("teacher", "teacher"),
}
"""Who plans and who criticises in the project's own systems."""
Parts = AgentsSettings | RegisteredSettings


def parts_of(name: str, options: EvaluateSettings) -> Parts:
    """What a system is made of."""
    if name not in AGENTS:
        return options.more_systems[name]
    planner, critic = AGENTS[name]
    return AgentsSettings(
        planner=planner,
        critic=critic,
        generator=options.generator,
        max_attempts=1 if critic == "none" else options.max_attempts,
    )


def generator_of(parts: AgentsSettings, models: ModelsSettings) -> GeneratorSettings:
    """The settings of a system's generator."""
    chosen = parts.generator
    return chosen if isinstance(chosen, GeneratorSettings) else models.generator_named(chosen)


def writes_text(parts: Parts) -> bool:
    """Whether a system writes text beside its pictures; a bare generator does not."""
    return isinstance(parts, RegisteredSettings) or parts.planner != "none"


def identity(
    name: str, settings: Settings, digest_of: Callable[[str], str], version_of: Callable[[str], str]
) -> dict[str, Any]:
    """All that decides what a system answers to given questions, as plain values.

    Args:
        digest_of: digest of one of the stage's dependencies (``MODELS``, ``GENERATORS``).
        version_of: the version that a registered model's URI stands for now.
    """
    options, models = settings.evaluate, settings.models
    parts = parts_of(name, options)
    if isinstance(parts, RegisteredSettings):
        return {"registered": parts.registered, "version": version_of(parts.registered)}
    generator = generator_of(parts, models)
    found: dict[str, Any] = {
        "parts": parts.model_dump(mode="json"),
        "generator": generator.model_dump(mode="json"),
        "digests": {
            one: digest_of(one)
            for one in dict.fromkeys((parts.planner, parts.critic))
            if one in MODELS
        },
    }
    for dep in GENERATORS:
        if Path(generator.model).name == dep and Path(generator.model).is_dir():
            found["digests"][dep] = digest_of(dep)
    if "teacher" in (parts.planner, parts.critic):
        found["teacher"] = settings.teacher.model_dump(mode="json")
    talks = ("answer_retries", "planner_max_new_tokens", "critic_max_new_tokens")
    if parts.planner != "none" or parts.critic != "none":
        found |= {key: vars(options)[key] for key in talks}
        found |= {
            key: vars(models)[key] for key in ("vlm", "dialogue", "vlm_dtype", "max_image_pixels")
        }
    return found


def described(found: dict[str, Any]) -> str:
    """A system's identity in a line, for people."""
    if "registered" in found:
        return f"{found['registered']} (version {found['version']})"
    parts, generator = found["parts"], found["generator"]
    drawn = f"{generator['backend']} {generator['model']}"
    if parts["planner"] == parts["critic"] == "none":
        return f"{drawn} alone"
    return (
        f"planner {parts['planner']}, critic {parts['critic']}, {drawn}, "
        f"T_max {parts['max_attempts']}"
    )
