"""Sections of the benchmarks: who is asked, what, and who grades."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from interloom.params import Section
from interloom.settings.fields import BenchmarkName, Count, GeneratorName
from interloom.settings.models import GeneratorSettings

SystemName = Literal[
    "generator", "zero-shot", "planner-sft", "one-agent", "full-sft", "full-rl", "oracle"
]
"""The systems that are compared (``benchmarks/parts.py``)."""
SystemKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
AgentName = Annotated[
    str,
    Field(pattern=r"^(none|vlm|planner-sft|critic-sft|critic-rl|teacher|(gemini|openai):\S+)$"),
]
"""``none``, a model of this project, ``teacher`` (of the ``teacher`` section, without its
imperfections), or ``BACKEND:MODEL`` for a remote one."""


class AgentsSettings(Section):
    """A system of one's own: who plans, who draws, who criticises."""

    planner: AgentName
    critic: AgentName
    generator: GeneratorName | GeneratorSettings
    max_attempts: Annotated[int, Field(ge=1, le=20)]


class RegisteredSettings(Section):
    """A system out of the model registry."""

    registered: Annotated[str, Field(pattern=r"^models:/[^/@]+(@[^/@]+|/\d+)$")]
    """An alias is looked up when the stage runs; a version always means the same."""


class UnifiedSystemSettings(Section):
    """A unified model as a system: it draws, judges itself and goes on by itself."""

    model: Literal["umm", "adaptive-sft", "adaptive-rl"]
    """The base model, which draws once and says nothing; or the one after SFT, or after GRPO."""
    images: Annotated[int, Field(ge=0, le=64)]
    """Pictures that a request may take; 0 leaves that to the model."""
    reluctance: Annotated[float, Field(ge=0, le=100)]
    """Nats by which going on after an evaluation is made less likely."""


class AskedSettings(Section):
    """Which items of which benchmarks systems are asked."""

    benchmarks: Annotated[list[BenchmarkName], Field(min_length=1)]
    data: dict[BenchmarkName, str]
    """Copies of the real benchmarks in their published layout: a file, a folder, or
    ``hub:OWNER/NAME``. Those not named here are pocket editions. The stage looks at the name alone:
    what changed needs another name."""
    items: Annotated[int, Field(ge=8)]
    """Items per benchmark at most; spread evenly over its tasks."""
    threads: Annotated[int, Field(ge=0, le=1024)]
    """CPU threads; 0 leaves the choice to torch."""


class EvaluateSettings(AskedSettings):
    """Which systems of planner and critic on which benchmarks."""

    more_systems: dict[SystemKey, AgentsSettings | RegisteredSettings]
    """Systems beside the project's own ones."""
    systems: Annotated[list[SystemKey], Field(min_length=1)]
    """In this order; differences between neighbours are reported."""
    generator: GeneratorName
    """Which of the profile's generators the project's systems share, and the registered pipeline
    uses."""
    max_attempts: Annotated[int, Field(ge=1, le=20)]
    """T_max of the paper."""
    answer_retries: Annotated[int, Field(ge=0, le=20)]
    """Further samples of an agent's answer that cannot be read."""
    planner_max_new_tokens: Annotated[int, Field(ge=8, le=16384)]
    critic_max_new_tokens: Annotated[int, Field(ge=8, le=16384)]
    batch_size: Count
    """Conversations that planner or critic answer at a time."""

    @field_validator("systems")
    @classmethod
    def _known(cls, systems: list[str], info: ValidationInfo) -> list[str]:
        return _known_systems(systems, SystemName, info, "evaluate")

    @field_validator("more_systems")
    @classmethod
    def _new(cls, systems: dict[str, Any]) -> dict[str, Any]:
        return _new_systems(systems, SystemName)


def _known_systems(systems: list[str], own: Any, info: ValidationInfo, section: str) -> list[str]:
    known = [*get_args(own), *info.data.get("more_systems", {})]
    unknown = [name for name in systems if name not in known]
    if unknown:
        raise ValueError(
            f"no system {unknown[0]!r}; systems: {', '.join(known)} "
            f"({section}.more_systems adds others)"
        )
    return systems


def _new_systems(systems: dict[str, Any], own: Any) -> dict[str, Any]:
    for name in systems:
        if name in get_args(own):
            raise ValueError(f"{name!r} is one of the project's own systems: take another name")
    return systems


AdaptiveSystemName = Literal["adaptive-base", "adaptive-sft", "adaptive-rl"]
"""The adaptive systems that are compared (``adaptive/systems.py``)."""
ONE_PICTURE = ("wise", "rise", "geneval", "kris", "omnicontext")
"""Benchmarks that ask for one picture in the end; the others want sequences with texts."""


class AdaptiveEvaluateSettings(AskedSettings):
    """Which unified models on which benchmarks."""

    more_systems: dict[SystemKey, UnifiedSystemSettings]
    """Systems beside the project's own ones, such as those with a budget."""
    systems: Annotated[list[SystemKey], Field(min_length=1)]
    """In this order; differences between neighbours are reported."""
    max_new_tokens: Annotated[int, Field(ge=16, le=65536)]
    """Longest story."""

    @field_validator("benchmarks")
    @classmethod
    def _one_picture(cls, benchmarks: list[str]) -> list[str]:
        for name in benchmarks:
            if name not in ONE_PICTURE:
                raise ValueError(f"{name} asks for sequences; there are {', '.join(ONE_PICTURE)}")
        return benchmarks

    @field_validator("systems")
    @classmethod
    def _known(cls, systems: list[str], info: ValidationInfo) -> list[str]:
        return _known_systems(systems, AdaptiveSystemName, info, "evaluate_adaptive")

    @field_validator("more_systems")
    @classmethod
    def _new(cls, systems: dict[str, Any]) -> dict[str, Any]:
        return _new_systems(systems, AdaptiveSystemName)


class GradingSettings(Section):
    """Who grades the benchmarks."""

    backend: Literal["pocket", "gemini", "openai"]
    """``pocket``: the exact verifier, for pocket editions alone."""
    model: str
    allow_training_judge: bool
    """Whether the judge may be the one that scored the training data and gave the rewards; the
    report says so."""
    temperature: Annotated[float, Field(ge=0, le=2)]
    max_output_tokens: Annotated[int, Field(ge=64)]
    """Longest answer, thinking included."""
    wise_protocol: Literal["legacy", "verified"]
    """Of the real WISE; the pocket edition is legacy."""
    detector: str
    """Object detection model (folder or hub name) that grades the real GenEval; empty lets the
    judge do it."""
    colour_model: str
    """CLIP model that names the colours of what the detector finds."""


class ReportSettings(Section):
    """The report's pages."""

    gallery_items: Annotated[int, Field(ge=0, le=1000)]
