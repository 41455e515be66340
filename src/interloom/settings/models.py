"""Sections that name models: generators, agents' base, teacher, unified model, remote backends."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from interloom.params import Section
from interloom.settings.fields import Count, Fraction, GeneratorName


class GeneratorSettings(Section):
    """One frozen image generator and how it is called."""

    backend: Literal["diffusers", "http", "gemini", "openai"]
    model: str
    """Folder, hub name or remote model name."""
    image_size: Annotated[int, Field(ge=32, le=4096, multiple_of=8)]
    steps: Annotated[int, Field(ge=1, le=200)]
    guidance: Annotated[float, Field(ge=0, le=30)]
    batch_size: Count
    dtype: Literal["float32", "bfloat16", "float16"]
    call: dict[str, int | float | bool | str | tuple[int, ...]]
    """Further arguments of the call: of the pipeline, the HTTP request or Gemini's image config."""


class ModelsSettings(Section):
    """The models that the profile names."""

    generator: GeneratorSettings
    generator_weak: GeneratorSettings
    """Of another strength, so that the critic does not learn that everything succeeds."""
    vlm: str
    """Base of Planner and Critic: folder or hub name."""
    vlm_dtype: Literal["float32", "bfloat16", "float16"]
    dialogue: Literal["short", "full"]
    """Which instructions the agents are given: short ones for tiny models, or the papers'."""
    max_image_pixels: Annotated[int, Field(ge=1024)]
    """Images above this many pixels are scaled down before a VLM sees them."""

    def generator_named(self, name: GeneratorName) -> GeneratorSettings:
        """The generator that another section chose by its name here."""
        return self.generator if name == "generator" else self.generator_weak


class PocketTeacherSettings(Section):
    """How the pocket world's exact teacher falls short of perfection, as a real one does."""

    wrong_judgments: Fraction
    """Share of judgments that are turned round."""
    corrections: dict[str, Annotated[float, Field(ge=0)]]
    """Ways of putting a correction (``pocket.language.CORRECTION_STYLES``) and their weights."""
    wording: Literal["canonical", "usual", "paraphrased"]
    """How plans word their edits: as the generators know it best, in one everyday way for each kind
    of edit, or in all the ways in which people do."""


class TeacherSettings(Section):
    """Who plays Planner and Critic for the data, and who scores (rewards and data)."""

    backend: Literal["pocket", "gemini", "openai"]
    model: str
    judge_backend: Literal["pocket", "gemini", "openai"]
    judge_model: str
    retries: Annotated[int, Field(ge=0, le=20)]
    """Repeats of a failed call of a local model; remote ones repeat by ``remote.*.tries``."""
    temperature: Annotated[float, Field(ge=0, le=2)]
    """Of remote models."""
    max_output_tokens: Annotated[int, Field(ge=64)]
    """Longest answer of remote models, their thinking included."""
    pocket: PocketTeacherSettings


class PriceSettings(Section):
    """What a remote model costs, in US dollars."""

    input: Annotated[float, Field(ge=0)]
    """Per million tokens that it reads."""
    output: Annotated[float, Field(ge=0)]
    """Per million tokens that it writes, thinking included."""
    image: Annotated[float, Field(ge=0)]
    """Per picture that it makes, where pictures are not paid by their tokens."""


class RemoteSettings(Section):
    """How one kind of remote backend is reached, and what it may cost."""

    base_urls: tuple[str, ...]
    """Servers that answer alike and take turns; none means the provider's own."""
    api_key_env: tuple[str, ...]
    """Environment variables with API keys that take turns; none sends no key."""
    concurrency: Count
    """Calls in flight, over all servers and keys."""
    requests_per_minute: Annotated[float, Field(ge=0)]
    """Per server and key; 0 sets no limit."""
    timeout_seconds: Annotated[float, Field(gt=0)]
    """Of one call, from sending to the end of the answer."""
    tries: Annotated[int, Field(ge=1, le=100)]
    """Of one call, before it counts as failed: overload, timeouts, unreadable answers."""
    max_wait_seconds: Annotated[float, Field(gt=0)]
    """Longest back-off between tries. A server that asks for more ends the run."""
    budget_usd: Annotated[float, Field(ge=0)]
    """What this project may spend on this backend altogether; see ``interloom cost``."""
    prices: dict[str, PriceSettings]
    """By model; a model without a price is refused."""


class RemotesSettings(Section):
    """How calls to remote backends travel and what they may cost, never what is asked.

    So no stage's outputs depend on it, and raising a budget makes nothing stale.
    """

    gemini: RemoteSettings
    openai: RemoteSettings
    http: RemoteSettings

    def named(self, name: Literal["gemini", "openai", "http"]) -> RemoteSettings:
        """The settings of one backend."""
        return {"gemini": self.gemini, "openai": self.openai, "http": self.http}[name]


class UnifiedSettings(Section):
    """The unified model of the adaptive system, and how it is called."""

    model: str
    """Folder or hub name of an Emu3."""
    dtype: Literal["float32", "bfloat16", "float16"]
    image_pixels: Annotated[int, Field(ge=0, le=4096)]
    """Side of the pictures that it gives to others; 0 leaves them as the model makes them."""
    grid_side: Annotated[int, Field(ge=1, le=128)]
    """Side of the pictures that it makes, in tokens."""
    batch_size: Count
    """Streams that it writes at a time."""
