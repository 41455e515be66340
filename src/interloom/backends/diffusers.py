"""Image generators from ``diffusers``: any pipeline that generates and edits, called in batches.

``Flux2KleinPipeline`` takes a list of images as references *for every prompt*, so that different
edits cannot share a call. :class:`PairedFlux2KleinPipeline` gives each prompt its own references;
everything else is the library's own ``__call__``.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DiffusionPipeline,
    Flux2KleinPipeline,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
)
from PIL import Image
from safetensors import SafetensorError

from interloom.errors import InterloomError
from interloom.images import from_bytes, size, to_png
from interloom.records import Failure
from interloom.roles import GenerationJob

EDITORS = (QwenImageEditPipeline, QwenImageEditPlusPipeline)
"""Pipelines that cannot do without a picture: what has none is painted on a white one."""


class PairedFlux2KleinPipeline(Flux2KleinPipeline):
    """``Flux2KleinPipeline`` where ``image`` holds each prompt's references in turn.

    ``image`` must have R·B entries of one size for B prompts: first the R references of the first
    prompt, then those of the second, and so on.
    """

    def prepare_image_latents(
        self,
        images: list[torch.Tensor],
        batch_size: int,
        generator: Any,
        device: torch.device,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Packed reference latents (B, R·L, C) and their position ids (B, R·L, 4)."""
        assert len(images) % batch_size == 0, (len(images), batch_size)
        per_prompt = len(images) // batch_size
        pixels = torch.cat(images).to(device=device, dtype=dtype)
        latents = self._encode_vae_image(image=pixels, generator=generator)
        packed = self._pack_latents(latents)
        packed = packed.reshape(batch_size, per_prompt * packed.shape[1], packed.shape[2])
        ids = self._prepare_image_ids([latent[None] for latent in latents[:per_prompt]])
        return packed.to(device), ids.repeat(batch_size, 1, 1).to(device)


class DiffusersGenerator:
    """A frozen pipeline in the role of Generator.

    Args:
        path: folder of ``save_pretrained`` or a hub name.
        call: keyword arguments of the pipeline's call (steps, guidance, size, …).
        batch_size: most images made in one call.
        name: what records call this generator; the folder's name by default.

    Raises:
        InterloomError: the folder is missing or is no pipeline.
    """

    def __init__(
        self,
        path: str | Path,
        call: dict[str, Any],
        *,
        batch_size: int = 32,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        name: str | None = None,
    ) -> None:
        try:
            pipeline = DiffusionPipeline.from_pretrained(str(path), dtype=dtype)
        except (ImportError, OSError, SafetensorError, ValueError) as error:
            raise InterloomError(
                f"generator {path}: cannot be loaded as a diffusers pipeline ({error})."
                " Run `dvc pull` for the shipped ones, check the name, or install what it misses."
            ) from error
        if type(pipeline) is Flux2KleinPipeline:
            pipeline = PairedFlux2KleinPipeline(**pipeline.components, is_distilled=True)
        self.pipeline: Any = pipeline.to(device)
        self.pipeline.set_progress_bar_config(disable=True)
        self.name = name or Path(path).name
        self.call: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in call.items()
        }
        self.batch_size = batch_size

    def with_call(self, **changes: Any) -> DiffusersGenerator:
        """The same pipeline called in another way."""
        other = copy(self)
        other.call = self.call | changes
        return other

    @property
    def edits(self) -> bool:
        """Whether the pipeline takes pictures."""
        return "image" in inspect.signature(type(self.pipeline).__call__).parameters

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        """One PNG per job, in order. Jobs with references of the same sizes share a batch."""
        groups: dict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
        for index, job in enumerate(jobs):
            groups[tuple(size(data, "source image") for data in _references(job))].append(index)
        answers: list[bytes | Failure | None] = [None] * len(jobs)
        for sizes, indices in groups.items():
            most = self.batch_size if self._together(len(sizes)) else 1
            for start in range(0, len(indices), most):
                batch = indices[start : start + most]
                for index, answer in zip(batch, self._make([jobs[i] for i in batch]), strict=True):
                    answers[index] = answer
        return [answer for answer in answers if answer is not None]

    def _together(self, references: int) -> bool:
        """Whether jobs with so many references can share a call."""
        if isinstance(self.pipeline, PairedFlux2KleinPipeline):
            return True
        return references == 0 and not isinstance(self.pipeline, EDITORS)

    def images(
        self, prompts: list[str], sources: list[Image.Image] | None, seeds: list[int]
    ) -> list[Image.Image]:
        """One pipeline call: B prompts, their B sources (or none) and B seeds to B images."""
        generators = [torch.Generator(self.pipeline.device).manual_seed(seed) for seed in seeds]
        pictures = {"image": sources} if sources else {}
        return self.pipeline(prompt=prompts, generator=generators, **pictures, **self.call).images

    def _make(self, jobs: list[GenerationJob]) -> list[bytes | Failure]:
        sources = [from_bytes(data, "source image") for job in jobs for data in _references(job)]
        if not sources and isinstance(self.pipeline, EDITORS):
            size = int(self.call["width"]), int(self.call["height"])
            sources = [Image.new("RGB", size, "white")]
        try:
            images = self.images([job.prompt for job in jobs], sources, [job.seed for job in jobs])
        except (torch.OutOfMemoryError, RuntimeError, ValueError) as error:
            # Pipelines refuse pictures that are too small or too narrow with a ValueError.
            reason = f"{type(error).__name__}: {error}"
            return [Failure(role="generator", reason=reason)] * len(jobs)
        return [to_png(image) for image in images]


def _references(job: GenerationJob) -> tuple[bytes, ...]:
    return (*((job.source,) if job.source else ()), *job.references)
