"""Unified models through ``transformers``: text and pictures in one stream of tokens (Emu3).

A picture stands in the stream as Emu3 writes it: ``<|image start|>``, its size in tokens
(``3*3``), ``<|image token|>``, the rows of visual tokens with a row end each, the frame end and
``<|image end|>``. What the model writes is held to that form while it writes: inside a picture it
can choose visual tokens only, and everywhere else text only. The same class runs the pocket Emu3 on
a CPU and ``BAAI/Emu3`` checkpoints on a GPU; only the folder, the device and the number type
differ.
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
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
)

from interloom import images
from interloom.dialogue import unified_prompt
from interloom.errors import InterloomError
from interloom.records import Failure, Segment
from interloom.roles import GenerationJob
from interloom.seeding import derive_seed

ARCHITECTURE = "Emu3ForConditionalGeneration"
VISUAL = -1
"""In a picture's form: the place of a visual token."""


class StreamError(ValueError):
    """Tokens that are no stream: a picture that is cut off or not of its form."""


@dataclass(frozen=True)
class Grid:
    """A picture's size in tokens."""

    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.rows}*{self.columns}"


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn in one kind of span; temperature 0 takes the likeliest.

    ``top_k`` 0 leaves all tokens of that kind in.
    """

    temperature: float = 0.0
    top_k: int = 0


GREEDY = Sampling()


@dataclass(frozen=True)
class Limits:
    """What one completion may use. ``images`` counts the pictures that it makes.

    When they are used up no further picture can begin, and after the token ``end_after`` (if
    given) the completion ends. The tokens ``reluctant`` are made less likely, by ``reluctance``
    nats.
    """

    tokens: int
    images: int | None = None
    end_after: int | None = None
    reluctant: tuple[int, ...] = ()
    reluctance: float = 0.0


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt: its tokens, and whether it came to an end by itself."""

    tokens: tuple[int, ...]
    ended: bool


class Stream:
    """How text and pictures are written as tokens, and read back."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, model: Emu3ForConditionalGeneration
    ) -> None:
        self.tokenizer = tokenizer
        mapping = model.vocabulary_mapping
        self.visual = torch.tensor([mapping.img2bpe[code] for code in sorted(mapping.img2bpe)])
        """Token of each code of the picture tokenizer."""
        self.row_end = mapping.eol_token_id
        names = ("boi_token", "image_wrapper_token", "eof_token", "eoi_token")
        self.start, self.wrapper, self.frame_end, self.end = (
            int(tokenizer.convert_tokens_to_ids(getattr(tokenizer, name))) for name in names
        )
        self.bos, self.eos = int(tokenizer.bos_token_id), int(tokenizer.eos_token_id)
        self.pad = int(tokenizer.pad_token_id)
        self._codes = {token: code for code, token in enumerate(self.visual.tolist())}

    def text(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def said(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones included."""
        text = self.tokenizer.decode(list(tokens))
        assert isinstance(text, str)  # one row of tokens is one text
        return text

    def header(self, grid: Grid) -> list[int]:
        """What a picture begins with; a prompt that ends so asks for a picture."""
        return [self.start, *self.text(str(grid)), self.wrapper]

    def form(self, grid: Grid) -> list[int]:
        """A whole picture's tokens, with ``VISUAL`` where the model chooses."""
        row = [VISUAL] * grid.columns + [self.row_end]
        return [*self.header(grid), *(row * grid.rows), self.frame_end, self.end]

    def picture(self, codes: np.ndarray | torch.Tensor) -> list[int]:
        """Codes (rows, columns) as the tokens of a whole picture."""
        rows, columns = codes.shape
        chosen = iter(self.visual[torch.as_tensor(codes).flatten()].tolist())
        form = self.form(Grid(rows, columns))
        return [next(chosen) if token == VISUAL else token for token in form]

    def codes(self, tokens: Sequence[int]) -> np.ndarray:
        """The codes (rows, columns) of a whole picture's tokens.

        Raises:
            StreamError: they are not of a picture's form.
        """
        if self.wrapper not in tokens:
            raise StreamError("a picture without its beginning")
        first = list(tokens).index(self.wrapper)
        said = self.said(tokens[1:first]).strip()
        rows, _, columns = said.partition("*")
        if not (rows.isdigit() and columns.isdigit()):
            raise StreamError(f"a picture of the size {said!r}")
        grid = Grid(int(rows), int(columns))
        form = self.form(grid)
        fits = len(form) == len(tokens) and all(
            token in self._codes if wanted == VISUAL else token == wanted
            for token, wanted in zip(tokens, form, strict=True)
        )
        if not fits:
            raise StreamError(f"a picture that has not the form of {grid} tokens")
        chosen = [self._codes[t] for t, w in zip(tokens, form, strict=True) if w == VISUAL]
        return np.array(chosen).reshape(grid.rows, grid.columns)

    def spans(self, tokens: Sequence[int]) -> list[tuple[bool, list[int]]]:
        """Tokens cut where pictures begin and end: ``(is_picture, tokens)``; no span is empty.

        Raises:
            StreamError: a picture is cut off or not of its form.
        """
        spans: list[tuple[bool, list[int]]] = []
        rest = [t for t in tokens if t not in (self.bos, self.eos, self.pad)]
        while rest:
            start = rest.index(self.start) if self.start in rest else len(rest)
            if start:
                if self.end in rest[:start]:
                    raise StreamError("a picture's end without its beginning")
                spans.append((False, rest[:start]))
                rest = rest[start:]
                continue
            if self.end not in rest:
                raise StreamError("a picture that is cut off")
            stop = rest.index(self.end) + 1
            spans.append((True, rest[:stop]))
            rest = rest[stop:]
        return spans

    def not_text(self, size: int) -> torch.Tensor:
        """Mask (size,) of the tokens that cannot stand in text; a picture may begin there."""
        mask = torch.zeros(size, dtype=torch.bool)
        mask[self.visual] = True
        for token in (self.row_end, self.wrapper, self.frame_end, self.end, self.bos, self.pad):
            mask[token] = True
        placeholder = getattr(self.tokenizer, "image_token", None)
        if placeholder is not None:
            mask[self.tokenizer.convert_tokens_to_ids(placeholder)] = True
        return mask


class SpanConstraint(LogitsProcessor):
    """Holds every row of a batch to the form of its span, and samples each kind in its own way.

    Stateless: what span a row is in is read from its own tokens, so rows may be anywhere.
    """

    def __init__(
        self,
        stream: Stream,
        grid: Grid,
        vocabulary: int,
        prompt: int,
        limits: Sequence[Limits],
        *,
        text: Sampling,
        picture: Sampling,
    ) -> None:
        self.stream, self.prompt, self.text, self.picture = stream, prompt, text, picture
        self.form = torch.tensor(stream.form(grid))
        self.header = len(stream.header(grid))
        self.not_text = stream.not_text(vocabulary)
        self.not_visual = torch.ones(vocabulary, dtype=torch.bool)
        self.not_visual[stream.visual] = False
        none = 1 << 30
        self.images = torch.tensor([none if li.images is None else li.images for li in limits])
        self.end_after = torch.tensor(
            [VISUAL if li.end_after is None else li.end_after for li in limits]
        )
        self.price = torch.zeros(len(limits), vocabulary)
        for row, limit in enumerate(limits):
            self.price[row, list(limit.reluctant)] = limit.reluctance

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V) after the tokens (B, L)."""
        device, length = input_ids.device, input_ids.shape[1]
        where = torch.arange(length, device=device)
        started = torch.where(input_ids == self.stream.start, where, -1).amax(1)
        ended = torch.where(input_ids == self.stream.end, where, -1).amax(1)
        drawing = started > ended
        wanted = self.form.to(device)[(length - started).clamp(max=len(self.form) - 1)]
        # A prompt may end in a picture's beginning; that picture counts too.
        made = (input_ids[:, max(0, self.prompt - self.header) :] == self.stream.start).sum(1)
        used_up = made >= self.images.to(device)

        free = drawing & (wanted == VISUAL)
        banned = torch.where(
            free[:, None], self.not_visual.to(device), self.not_text.to(device)
        ).clone()
        banned[~drawing & used_up, self.stream.start] = True
        scores = (scores - self.price.to(device)).masked_fill(banned, -torch.inf)
        scores = torch.where(
            drawing[:, None], _sampled(scores, self.picture), _sampled(scores, self.text)
        )
        forced = torch.where(drawing & (wanted != VISUAL), wanted, VISUAL)
        last = input_ids[:, -1]
        finished = ~drawing & used_up & (last == self.end_after.to(device))
        forced = torch.where(finished, self.stream.eos, forced)
        rows = forced != VISUAL
        scores[rows] = -torch.inf
        scores[rows, forced[rows]] = 0.0
        return scores


def _sampled(scores: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Scores from which plain sampling draws as ``sampling`` says."""
    keep = 1 if sampling.temperature == 0 else sampling.top_k
    if keep:
        least = scores.topk(min(keep, scores.shape[-1]), dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    return scores / (sampling.temperature or 1.0)


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
    ) -> list[Completion]:
        """One completion per prompt (tokens as ``prompt`` makes them), in order.

        A completion holds a picture's beginning that its prompt ended in, so that it is a stream of
        its own. The caller's random state is left as it was.

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
                made = self._continue(rows, [limits[i] for i in batch], text, picture)
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
                eos_token_id=stream.eos, pad_token_id=stream.pad,
            )  # fmt: skip
        except torch.OutOfMemoryError as error:
            raise InterloomError(
                f"out of memory with {len(rows)} streams at a time: lower batch_size"
            ) from error
        header = stream.header(self.grid)
        completions = []
        for row, new, limit in zip(rows, made[:, length:].tolist(), limits, strict=True):
            written = new[: limit.tokens]
            ended = stream.eos in written
            if ended:
                written = written[: written.index(stream.eos)]
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
