"""Unified models through ``transformers``: text and pictures in one stream of tokens (Emu3).

What the model writes is held to the stream's form (``stream.py``) while it writes. The same class
runs the pocket Emu3 on a CPU and ``BAAI/Emu3`` checkpoints on a GPU; only the folder, the device
and the number type differ.
"""

# The libraries' own annotations are looser than their code (lazy exports, config as dict).
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoTokenizer,
    Emu3ForConditionalGeneration,
    Emu3ImageProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
)

from interloom import images
from interloom.backends.stream import GREEDY, Grid, Limits, Sampling, SpanConstraint, Stream
from interloom.dialogue import unified_prompt
from interloom.errors import InterloomError
from interloom.records import Failure, Segment
from interloom.roles import GenerationJob
from interloom.seeding import derive_seed

ARCHITECTURE = "Emu3ForConditionalGeneration"


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt: its tokens, and whether it came to an end.

    One that neither ended nor was cut off has as its last token one at which it was to pause.
    """

    tokens: tuple[int, ...]
    ended: bool


def check_folder(path: str | Path) -> None:
    """Refuse a folder that does not hold a unified model, before anything heavy is read.

    A name on a model hub (``BAAI/Emu3-Gen-hf``) is left to the hub client.

    Raises:
        InterloomError: no such folder, or it holds another architecture.
    """
    folder = Path(path)
    if not folder.exists():
        if folder.is_absolute() or len(folder.parts) != 2 or folder.parent.is_dir():
            raise InterloomError(
                f"no model folder {path}: run the stage that makes it, or pull it"
                " (`dvc pull`; `interloom pocket train umm` trains the miniature)"
            )
        return
    config = folder / "config.json"
    if not config.is_file():
        raise InterloomError(f"{path} is not a model folder: it has no config.json")
    architectures = json.loads(config.read_text()).get("architectures") or ["an unnamed one"]
    if ARCHITECTURE not in architectures:
        raise InterloomError(
            f"{path} holds {', '.join(architectures)}: a unified model is {ARCHITECTURE}"
        )


class UnifiedModel:
    """An Emu3 that continues many streams at a time.

    Args:
        image_pixels: side of the square pictures that it returns; its own are scaled to it, as the
            miniature's are smaller than those of the world. 0 leaves them as they are.
        grid_side: side of the pictures that it makes, in tokens.
        batch_size: streams per forward pass.
    """

    def __init__(
        self,
        model: Emu3ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Emu3ImageProcessor,
        *,
        name: str = "unified",
        image_pixels: int = 0,
        grid_side: int = 3,
        batch_size: int = 32,
    ) -> None:
        self.model, self.tokenizer, self.image_processor = model, tokenizer, image_processor
        self.name, self.batch_size = name, batch_size
        self.image_pixels, self.grid = image_pixels, Grid(grid_side, grid_side)
        self.stream = Stream(tokenizer, model)
        self.pictures = model.model.vqmodel
        """Makes codes of pictures, and pictures of codes."""

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        image_pixels: int = 0,
        grid_side: int = 3,
        batch_size: int = 32,
    ) -> UnifiedModel:
        """Load a folder that ``save`` wrote (or a hub name).

        Raises:
            InterloomError: the folder is missing, holds another architecture, or does not fit.
        """
        check_folder(path)
        try:
            model = Emu3ForConditionalGeneration.from_pretrained(path, dtype=dtype)
            model = model.to(device).eval()
        except torch.OutOfMemoryError as error:
            raise InterloomError(f"{path} does not fit on {device} as {dtype}: {error}") from error
        return cls(
            model,
            AutoTokenizer.from_pretrained(path),
            Emu3ImageProcessor.from_pretrained(path),
            name=Path(path).name,
            image_pixels=image_pixels,
            grid_side=grid_side,
            batch_size=batch_size,
        )

    @property
    def context(self) -> int:
        """Tokens that the model reads at most."""
        return int(self.model.model.text_model.config.max_position_embeddings)

    def save(self, folder: Path) -> None:
        """Model, tokenizer and image processor as one folder."""
        self.model.save_pretrained(folder)
        self.save_processors(folder)

    def keep_pictures_whole(self) -> None:
        """Read and write pictures with a copy of that part of the model, which is frozen: the model
        itself can then be sharded over processes, when its parts work inside of its forward pass
        alone."""
        self.pictures = deepcopy(self.pictures).requires_grad_(False)

    def save_processors(self, folder: Path) -> None:
        """All but the weights."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)

    # ---------------------------------------------------------------------------- pictures

    @torch.no_grad()
    def encode_pictures(self, pictures: Sequence[bytes]) -> list[list[int]]:
        """The tokens of encoded pictures, each a whole picture in the stream."""
        if not pictures:
            return []
        decoded = [images.from_bytes(picture) for picture in pictures]
        inputs = self.image_processor(decoded, return_tensors="pt")
        sizes = torch.as_tensor(inputs["image_sizes"])
        pixels = inputs["pixel_values"].to(self.pictures.device, self.pictures.dtype)
        codes = self.pictures.encode(pixels, sizes).image_tokens
        assert codes is not None
        return [self.stream.picture(one.cpu()) for one in codes]

    @torch.no_grad()
    def decode_pictures(self, pictures: Sequence[Sequence[int]]) -> list[bytes]:
        """PNG of each whole picture's tokens.

        Raises:
            StreamError: some are not of a picture's form.
        """
        codes = [self.stream.codes(tokens) for tokens in pictures]
        made: dict[int, bytes] = {}
        for shape in dict.fromkeys(one.shape for one in codes):
            places = [i for i, one in enumerate(codes) if one.shape == shape]
            batch = torch.from_numpy(np.stack([codes[i] for i in places]))
            pixels = self.pictures.decode(batch.to(self.pictures.device))
            arrays = self._to_arrays(pixels)
            made |= {i: self._to_png(array) for i, array in zip(places, arrays, strict=True)}
        return [made[i] for i in range(len(codes))]

    def _to_arrays(self, pixels: torch.Tensor) -> np.ndarray:
        """(B, 3, H, W) as the image processor normalises, to uint8 (B, H, W, 3)."""
        channels = pixels.float().cpu().permute(0, 2, 3, 1).numpy()
        mean, std = self.image_processor.image_mean, self.image_processor.image_std
        return np.clip((channels * std + mean) * 255, 0, 255).round().astype(np.uint8)

    def _to_png(self, array: np.ndarray) -> bytes:
        image = Image.fromarray(array)
        side = self.image_pixels
        if side and image.size != (side, side):
            image = image.resize((side, side), Image.Resampling.BICUBIC)
        return images.to_png(image)

    # ----------------------------------------------------------------------------- streams

    def tokens(self, segments: Sequence[Segment]) -> list[list[int]]:
        """The tokens of each segment; a stream is their concatenation after ``bos``."""
        places = [i for i, segment in enumerate(segments) if isinstance(segment, bytes)]
        drawn = self.encode_pictures([s for s in segments if isinstance(s, bytes)])
        found = dict(zip(places, drawn, strict=True))
        return [
            self.stream.text(segment) if isinstance(segment, str) else found[i]
            for i, segment in enumerate(segments)
        ]

    def segments(self, tokens: Sequence[int]) -> list[Segment]:
        """Text and pictures of a stream's tokens.

        Raises:
            StreamError: a picture is cut off or not of its form.
        """
        spans = self.stream.spans(tokens)
        drawn = iter(self.decode_pictures([span for is_picture, span in spans if is_picture]))
        return [next(drawn) if is_picture else self.stream.said(span) for is_picture, span in spans]

    def prompt(self, segments: Sequence[Segment], *, draw: bool = True) -> list[int]:
        """The tokens of a prompt; with ``draw`` it ends where a picture begins."""
        ids = [self.stream.bos, *(token for part in self.tokens(segments) for token in part)]
        return [*ids, *self.stream.header(self.grid)] if draw else ids

    def complete(
        self,
        prompts: Sequence[Sequence[int]],
        limits: Sequence[Limits],
        *,
        text: Sampling = GREEDY,
        picture: Sampling = GREEDY,
        seed: int = 0,
        pauses: Sequence[int] = (),
    ) -> list[Completion]:
        """One completion per prompt (tokens as ``prompt`` makes them), in order.

        A completion holds a picture's beginning that its prompt ended in, so that it is a stream of
        its own. The caller's random state is left as it was.

        Args:
            pauses: tokens of text after which a completion stops without having ended; a prompt of
                everything so far goes on from there.

        Raises:
            InterloomError: out of memory.
        """
        order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
        found: dict[int, Completion] = {}
        with torch.random.fork_rng(devices=self._devices()), torch.inference_mode():
            torch.manual_seed(seed)
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                rows = [list(prompts[i]) for i in batch]
                made = self._continue(rows, [limits[i] for i in batch], text, picture, pauses)
                found |= dict(zip(batch, made, strict=True))
        return [found[i] for i in range(len(prompts))]

    def _devices(self) -> list[torch.device]:
        return [self.model.device] if self.model.device.type == "cuda" else []

    def _continue(
        self,
        rows: Sequence[list[int]],
        limits: Sequence[Limits],
        text: Sampling,
        picture: Sampling,
        pauses: Sequence[int],
    ) -> list[Completion]:
        stream, length = self.stream, max(map(len, rows))
        ids = torch.full((len(rows), length), stream.pad)
        for i, row in enumerate(rows):
            ids[i, length - len(row) :] = torch.tensor(row)
        ids = ids.to(self.model.device)
        constraint = SpanConstraint(
            stream, self.grid, self.model.lm_head.out_features, length, limits,
            text=text, picture=picture,
        )  # fmt: skip
        try:
            made = self.model.generate(
                input_ids=ids,
                attention_mask=(ids != stream.pad).long(),
                logits_processor=LogitsProcessorList([constraint]),
                max_new_tokens=max(limit.tokens for limit in limits),
                # All shaping is the constraint's: plain sampling of what it leaves.
                do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                eos_token_id=[stream.eos, *pauses], pad_token_id=stream.pad,
            )  # fmt: skip
        except torch.OutOfMemoryError as error:
            raise InterloomError(
                f"out of memory with {len(rows)} streams at a time: lower batch_size"
            ) from error
        header = stream.header(self.grid)
        completions = []
        for row, new, limit in zip(rows, made[:, length:].tolist(), limits, strict=True):
            written = new[: limit.tokens]
            stops = [place for place, token in enumerate(written) if token in (stream.eos, *pauses)]
            ended = bool(stops) and written[stops[0]] == stream.eos
            if stops:
                written = written[: stops[0] + (not ended)]
            begun = header if row[-len(header) :] == header else []
            completions.append(Completion((*begun, *written), ended))
        return completions


class UnifiedGenerator:
    """A unified model in the role of Generator: the first picture that it draws for a prompt.

    Args:
        picture: how visual tokens are drawn.
    """

    def __init__(self, unified: UnifiedModel, picture: Sampling) -> None:
        self.unified, self.picture, self.name = unified, picture, unified.name

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        """One PNG per job, in order. The seed of a call is made of all its jobs' seeds."""
        if not jobs:
            return []
        unified, stream = self.unified, self.unified.stream
        prompts = []
        for job in jobs:
            given = [*job.references, *([job.source] if job.source else [])]
            prompts.append(unified.prompt(unified_prompt(job.prompt, given)))
        left = len(stream.form(unified.grid)) - len(stream.header(unified.grid))
        made = unified.complete(
            prompts,
            [Limits(tokens=left)] * len(jobs),
            picture=self.picture,
            seed=derive_seed(*(job.seed for job in jobs)),
        )
        return list(unified.decode_pictures([completion.tokens for completion in made]))
