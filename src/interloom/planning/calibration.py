"""The figures behind ``interloom plan``: typed, each with its unit and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from interloom.errors import InterloomError
from interloom.params import Section, explain, read_params

FILE = Path(__file__).with_name("calibration.yaml")
Size = TypeVar("Size")
Positive = Annotated[float, Field(gt=0)]


class Figure(Section):
    """One supposed or known number."""

    value: Positive
    unit: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=1)]
    """``published``, ``measured`` or ``assumed``, and by whom."""


class GpuFigures(Section):
    """The card that training runs on."""

    name: str
    memory: Figure
    peak: Figure
    bandwidth: Figure
    link: Figure
    price: Figure


class ShareFigures(Section):
    """How much of a card's speed is reached."""

    training: Figure
    drawing: Figure
    prefill: Figure
    decoding: Figure
    generating: Figure
    linking: Figure


class MemoryFigures(Section):
    """What a training keeps in memory beside its weights."""

    sharded: Figure
    copied: Figure
    overhead: Figure
    layer: Figure
    logits: Figure
    rollouts: Figure


class LanguageFigures(Section):
    """The size of a model that reads and writes tokens."""

    parameters: Figure
    layers: int
    hidden: int
    kv_heads: int
    head_dim: int
    vocabulary: int


class VlmFigures(LanguageFigures):
    """The size of a vision-language model."""

    image_token_pixels: int
    """Pixels that one image token stands for."""


class GeneratorFigures(Section):
    """The size of an image generator."""

    transformer: Figure
    """What runs in every step."""
    others: Figure
    """What runs once a picture, or is only held."""
    latent_pixels: int
    """Pixels that one token of the transformer stands for."""
    text_tokens: int


class DataFigures(Section):
    """What becomes of requests."""

    steps_per_request: Figure
    attempts_per_step: Figure
    kept_attempts: Figure
    planner_images: Figure
    edited_share: Figure
    steps_per_item: Figure
    image: Figure


class StoryFigures(Section):
    """What becomes of the adaptive system's requests; lengths in tokens, pictures apart."""

    stories: Figure
    requests_per_story: Figure
    references: Figure
    reflection_pictures: Figure
    plan_steps: Figure
    step_tries: Figure
    rollout_pictures: Figure
    prompt: Figure
    evaluation: Figure
    reflection: Figure
    step: Figure
    picture_frame: Figure


class BenchmarkFigures(Section):
    """A published benchmark."""

    items: Figure
    calls: Figure
    """Of the judge, per answer."""


class TokenFigures(Section):
    """Lengths of what the agents read and write, pictures apart."""

    planner_text: Figure
    planner_answer: Figure
    critic_text: Figure
    critic_answer: Figure


class CallFigures(Section):
    """One call of a remote model."""

    image_tokens: Figure
    plan_input: Figure
    plan_output: Figure
    critique_input: Figure
    critique_output: Figure
    score_input: Figure
    score_output: Figure
    words_output: Figure
    picture_output: Figure
    seconds: Figure


class PublishedFigures(Section):
    """What the paper says that it took."""

    hours: Figure
    gpus: Figure
    planner_rows: Figure
    critic_rows: Figure
    rl_rows: Figure


class Calibration(Section):
    """The whole file."""

    gpu: GpuFigures
    shares: ShareFigures
    memory: MemoryFigures
    vlms: dict[str, VlmFigures]
    unified: dict[str, LanguageFigures]
    generators: dict[str, GeneratorFigures]
    data: DataFigures
    tokens: TokenFigures
    stories: StoryFigures
    benchmarks: dict[str, BenchmarkFigures]
    calls: CallFigures
    published: PublishedFigures

    def vlm(self, name: str) -> VlmFigures:
        """The size of a model of the params file.

        Raises:
            InterloomError: the calibration does not know it.
        """
        return _known(self.vlms, name, "models.vlm: the calibration has no sizes of")

    def unified_model(self, name: str) -> LanguageFigures:
        """The size of a unified model of the params file.

        Raises:
            InterloomError: the calibration does not know it.
        """
        return _known(self.unified, name, "unified.model: the calibration has no sizes of")

    def generator(self, name: str) -> GeneratorFigures:
        """The size of a generator of the params file.

        Raises:
            InterloomError: the calibration does not know it.
        """
        return _known(
            self.generators, name, "models: the calibration has no sizes of the generator"
        )


def _known(sizes: Mapping[str, Size], name: str, problem: str) -> Size:
    if name not in sizes:
        raise InterloomError(
            f"{problem} {name!r} (it knows {', '.join(sizes)}): copy {FILE.name}, add it, and give "
            "--calibration"
        )
    return sizes[name]


def load(path: Path = FILE) -> Calibration:
    """Read and check a calibration file.

    Raises:
        InterloomError: naming the file, the figure and what is allowed.
    """
    raw = read_params(path)
    try:
        return Calibration.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        problems = "; ".join(explain(problem, Calibration) for problem in error.errors())
        raise InterloomError(f"{path}: {problems}") from None


def figures(calibration: Calibration) -> Iterator[tuple[str, Figure]]:
    """Every figure with its dotted name."""

    def walk(value: Any, name: str) -> Iterator[tuple[str, Figure]]:
        if isinstance(value, Figure):
            yield name, value
        elif isinstance(value, Section):
            for key, inner in value:
                yield from walk(inner, f"{name}.{key}" if name else key)
        elif isinstance(value, dict):
            for key, inner in value.items():
                yield from walk(inner, f"{name}.{key}")

    yield from walk(calibration, "")
