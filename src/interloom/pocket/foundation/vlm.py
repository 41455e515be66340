"""The miniature vision-language model: a whole ``Qwen3VLForConditionalGeneration``, from scratch.

It learns general skills (``skills.py``) on rendered pictures and on pictures that went through the
generator's autoencoder, so that it can see what a generator makes. One cell of the world is one
image token.
"""

# The libraries' own annotations are looser than their code (lazy exports, config as dict).
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportCallIssue=false

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from interloom.backends.transformers import ImageOnlyQwen3VLProcessor
from interloom.pocket.foundation.lessons import UNCLEAR, Lesson, Picture, random_picture
from interloom.pocket.foundation.skills import READING, draw, list_cells
from interloom.pocket.foundation.training import Average, Metrics, Report, Schedule, train
from interloom.pocket.foundation.vlm_model import (
    PATCH,
    TOKENIZER_LESSONS,
    new_processor,
    new_vlm,
    train_vlm_tokenizer,
)
from interloom.pocket.render import SIZE_PIXELS, render_array
from interloom.pocket.scene import BACKGROUNDS, CELLS, COLOURS, GRID, KINDS, Scene, random_sprite
from interloom.pocket.verifier import read_many

SCHEDULE = Schedule(
    steps=6000, learning_rate=2e-3, matrix_rate=1e-2, flat=0.5, weight_decay=0.01, average=0.998
)
BATCH = 12
GROUP = 4
"""Batches that are drawn together and sorted by length, so that little of a batch is padding."""
SHARPNESS = 8.0
READING_SCHEDULE = Schedule(
    steps=2500, learning_rate=2e-3, matrix_rate=1e-2, flat=0.6, weight_decay=0.01, average=0.998
)
NAMING_SCHEDULE = Schedule(
    steps=1000, learning_rate=2e-3, flat=0.5, weight_decay=0.01, average=0.998
)
NAMING_PICTURES = 24
"""Pictures per step while the vision tower learns to name cells."""
MADE = 0.35
"""Share of pictures that went through the generator's autoencoder; spoiled ones always do."""
SPOILED = 400
"""Spoiled cells kept per background, to be put into pictures."""


# -------------------------------------------------------------------------------- pictures


def draw_picture(picture: Picture, rng: np.random.Generator) -> np.ndarray:
    """uint8 (96, 96, 3) as rendered, with some noise."""
    if picture.blank:
        return np.full((SIZE_PIXELS, SIZE_PIXELS, 3), 255, np.uint8)
    jitter = random.Random(int(rng.integers(2**62)))
    array = render_array(picture.scene, jitter).astype(np.float32)
    return np.clip(array + rng.normal(0, rng.choice((0, 2, 5)), array.shape), 0, 255).astype(
        np.uint8
    )


class Eye:
    """Pictures to pixel patches as the processor makes them, some of them as a generator would.

    A cell is spoiled as generators spoil it: its latents lie between those of two sprites, and the
    verifier calls what they decode to unreadable.
    """

    def __init__(self, autoencoder: AutoencoderKLFlux2, spoiled: int = SPOILED) -> None:
        self.autoencoder = autoencoder
        self.spoiled = {name: self._spoiled_cells(name, spoiled) for name in BACKGROUNDS}

    def look(self, pictures: Sequence[Picture], rng: np.random.Generator) -> torch.Tensor:
        """(N·36, 1536) float32; no rows for no pictures."""
        if not pictures:
            return torch.empty(0, PATCH * PATCH * 3 * 2)
        pixels = self._drawn(pictures, rng)
        spoiled = np.array([bool(picture.unclear) for picture in pictures])
        chosen = torch.from_numpy(spoiled | (rng.random(len(pictures)) < MADE))
        if chosen.any():
            latents = self._encode(pixels[chosen])
            for i, at in enumerate(chosen.nonzero()[:, 0].tolist()):
                for cell in pictures[at].unclear:
                    bank = self.spoiled[pictures[at].scene.background]
                    latents[i][_tokens(cell)] = bank[rng.integers(len(bank))]
            latents = latents + 0.15 * rng.random() * torch.randn_like(latents)
            pixels[chosen] = self._decode(latents)
        return to_patches(pixels)

    def _drawn(self, pictures: Sequence[Picture], rng: np.random.Generator) -> torch.Tensor:
        arrays = np.stack([draw_picture(picture, rng) for picture in pictures])
        return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1

    # Pictures are made in full precision, also inside a bfloat16 training step.
    @torch.no_grad()
    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return self.autoencoder.encode(pixels, return_dict=False)[0].mode()

    @torch.no_grad()
    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return self.autoencoder.decode(latents, return_dict=False)[0].clamp(-1, 1)

    def _spoiled_cells(self, background: str, count: int) -> list[torch.Tensor]:
        """At least ``count`` cells' latents between two sprites, unreadable when decoded."""
        rng, python = np.random.default_rng(0), random.Random(f"spoiled:{background}")
        found: list[torch.Tensor] = []
        while len(found) < count:
            scenes = [_full_scene(python, background) for _ in range(16)]
            latents = self._encode(self._drawn([Picture(scene) for scene in scenes], rng))
            share = torch.from_numpy(rng.uniform(0.3, 0.7, (16, 1, GRID, GRID))).float()
            share = share.repeat_interleave(2, 2).repeat_interleave(2, 3)
            mixed = share * latents + (1 - share) * latents.roll(1, 0)
            arrays = ((self._decode(mixed).permute(0, 2, 3, 1) + 1) * 127.5).byte().numpy()
            for i, reading in enumerate(read_many(list(arrays))):
                found += [mixed[i][_tokens(cell)] for cell in reading.unreadable]
        return found


def _full_scene(rng: random.Random, background: str) -> Scene:
    return Scene(tuple(random_sprite(rng) for _ in range(CELLS)), background)


def _tokens(cell: int) -> tuple[slice, slice, slice]:
    """Where a cell's latents stand in (channels, 6, 6)."""
    row, column = divmod(cell, GRID)
    return slice(None), slice(2 * row, 2 * row + 2), slice(2 * column, 2 * column + 2)


def to_patches(pixels: torch.Tensor) -> torch.Tensor:
    """(N, 3, 96, 96) in [-1, 1] to (N·36, 1536), in ``Qwen2VLImageProcessor``'s order."""
    n = len(pixels)
    doubled = pixels[:, None].expand(n, 2, 3, SIZE_PIXELS, SIZE_PIXELS)
    split = doubled.reshape(n, 1, 2, 3, GRID, 2, PATCH, GRID, 2, PATCH)
    return split.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9).reshape(n * CELLS * 4, -1)


# ------------------------------------------------------------------------------- training


def _length(lesson: Lesson) -> int:
    """Characters, counting a picture as about its tokens."""
    return len(lesson.question) + len(lesson.answer) + 40 * len(lesson.pictures)


def collate(
    lessons: Sequence[Lesson], tokenizer: PreTrainedTokenizerFast, patches: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Right-padded batch; loss on the answers only."""
    vision = "<|vision_start|>" + "<|image_pad|>" * CELLS + "<|vision_end|>"
    prompts = [
        f"<|im_start|>user\n{lesson.question.replace('<image>', vision)}<|im_end|>\n"
        "<|im_start|>assistant\n"
        for lesson in lessons
    ]
    asked = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answered = tokenizer(
        [f"{lesson.answer}<|im_end|>\n" for lesson in lessons], add_special_tokens=False
    )["input_ids"]
    length = max(len(a) + len(b) for a, b in zip(asked, answered, strict=True))
    ids = torch.full((len(lessons), length), tokenizer.pad_token_id)
    labels = torch.full_like(ids, -100)
    mask = torch.zeros_like(ids)
    for i, (a, b) in enumerate(zip(asked, answered, strict=True)):
        end = len(a) + len(b)
        ids[i, :end] = torch.tensor(a + b)
        labels[i, len(a) : end] = torch.tensor(b)
        mask[i, :end] = 1
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if len(patches):
        count = len(patches) // (CELLS * 4)
        batch["pixel_values"] = patches
        batch["image_grid_thw"] = torch.tensor([[1, 2 * GRID, 2 * GRID]] * count)
        image_token = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        batch["mm_token_type_ids"] = (ids == image_token).long()
    return batch


def _in_groups(
    seed: str, draw_one: Callable[[random.Random, int], Lesson]
) -> Callable[[int], list[Lesson]]:
    """The batch of a step. ``GROUP`` batches are drawn together and sorted by length."""

    @lru_cache(maxsize=1)
    def group(number: int) -> list[Lesson]:
        python = random.Random(f"{seed}:{number}")
        drawn = [draw_one(python, number * GROUP) for _ in range(GROUP * BATCH)]
        return sorted(drawn, key=_length)

    def batch(step: int) -> list[Lesson]:
        number, part = divmod(step, GROUP)
        return group(number)[part * BATCH :][:BATCH]

    return batch


class Naming:
    """The second part: the vision tower alone learns to name what every cell holds, and its place.

    Names are scored by the language model's own word embeddings, so that an image token comes to
    lie where its words do and only has to be copied. Through the language model this takes far
    longer, since most of an answer's tokens say nothing about the picture.
    """

    def __init__(
        self,
        model: Qwen3VLForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        eye: Eye,
    ) -> None:
        self.tower, self.eye = model.model.visual, eye
        empty = ("nothing", UNCLEAR)
        names = ((*empty, *KINDS), (*empty, *COLOURS), ("blank", *BACKGROUNDS))
        words = model.get_input_embeddings().weight.detach()
        words = F.normalize(words, dim=-1)
        self.words = [words[[_word(tokenizer, name) for name in group]] for group in names]
        self.place = nn.Linear(words.shape[1], CELLS)

    def __call__(self, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, Metrics]:
        python = random.Random(int(rng.integers(2**62)))
        pictures = [random_picture(python) for _ in range(NAMING_PICTURES)]
        grid = torch.tensor([[1, 2 * GRID, 2 * GRID]] * len(pictures))
        seen = self.tower(self.eye.look(pictures, rng), grid_thw=grid).pooler_output
        labels = torch.tensor([_labels(p, cell) for p in pictures for cell in range(CELLS)])
        # Sharp scores and a price on length keep image tokens as long as words are: much longer
        # ones drown everything that attention adds to them.
        scores = [*(SHARPNESS * seen @ words.T for words in self.words), self.place(seen)]
        losses = [F.cross_entropy(score, labels[:, i]) for i, score in enumerate(scores)]
        length = seen.pow(2).sum(-1).mean()
        metrics = {"naming": sum(loss.item() for loss in losses), "length": length.item() ** 0.5}
        return torch.stack(losses).sum() + 0.002 * length, metrics


def _word(tokenizer: PreTrainedTokenizerFast, name: str) -> int:
    tokens = tokenizer(f" {name}", add_special_tokens=False)["input_ids"]
    assert len(tokens) == 1, f"{name!r} is not one token but {len(tokens)}"
    return tokens[0]


def _labels(picture: Picture, cell: int) -> tuple[int, int, int, int]:
    """Kind (0 nothing, 1 unclear), colour (likewise), background (0 blank) and place of a cell."""
    sprite = picture.scene.cells[cell]
    background = 0 if picture.blank else 1 + list(BACKGROUNDS).index(picture.scene.background)
    if cell in picture.unclear:
        return 1, 1, background, cell
    if sprite is None:
        return 0, 0, background, cell
    colour = list(COLOURS).index(sprite.colour)
    return 2 + KINDS.index(sprite.kind), 2 + colour, background, cell


def train_vlm(
    autoencoder: AutoencoderKLFlux2,
    out: Path,
    work: Path,
    seed: int,
    report: Report,
    scale: float = 1.0,
    *,
    tokenizer_lessons: int = TOKENIZER_LESSONS,
) -> None:
    """Train from scratch and write the folder (model, processor) whole.

    ``scale`` is a factor on the steps of its three parts: reading, naming, all skills.
    """
    tokenizer = train_vlm_tokenizer(tokenizer_lessons)
    processor = new_processor(tokenizer)
    torch.manual_seed(seed)
    model = new_vlm(tokenizer)
    # Batches of many short texts: half again as fast here as the fused kernel with a mask.
    model.set_attn_implementation({"text_config": "eager"})
    eye = Eye(autoencoder)
    reading, first, schedule = (
        s.scaled(scale) for s in (READING_SCHEDULE, NAMING_SCHEDULE, SCHEDULE)
    )

    def loss_of(lessons: Sequence[Lesson], rng: np.random.Generator) -> torch.Tensor:
        pictures = [picture for lesson in lessons for picture in lesson.pictures]
        batch = collate(lessons, tokenizer, eye.look(pictures, rng))
        labels = batch.pop("labels")[:, 1:]
        # Words are scored where an answer stands only: over the whole batch that costs as much as
        # the rest of the model.
        states = model.model(**batch).last_hidden_state[:, :-1][labels != -100]
        return F.cross_entropy(model.lm_head(states), labels[labels != -100])

    # Reading comes first. A model that has learned to name cells, and only then meets questions
    # whether two names are the same, stays stuck at guessing that they are.
    texts = _in_groups(f"{seed}:reading", lambda python, _: draw(python, READING))

    def read(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, Metrics]:
        return loss_of(texts(step), rng), {}

    before = first.steps + reading.steps
    train(
        "vlm-reading", {"model": model.model.language_model}, read, reading,
        work=work, seed=seed, report=lambda step, metrics: report(step - before, metrics),
        mixed=True,
    )  # fmt: skip
    naming = Naming(model, tokenizer, eye)
    train(
        "vlm-naming", {"tower": naming.tower, "place": naming.place}, naming, first,
        work=work, seed=seed, report=lambda step, metrics: report(step - first.steps, metrics),
    )  # fmt: skip
    # From here on the tower stands still: the first steps of an untrained language model would
    # undo it. What goes from its first layer straight into the language model starts at nothing.
    tower = naming.tower.requires_grad_(False)
    for merger in tower.deepstack_merger_list.requires_grad_(True):
        nn.init.zeros_(merger.linear_fc2.weight)
        nn.init.zeros_(merger.linear_fc2.bias)

    def look_first(python: random.Random, step: int) -> Lesson:
        # First of all learn to look: listing the cells of one picture comes before the rest.
        looking = 0.6 if step < schedule.steps // 10 else 0.0
        return list_cells(python) if python.random() < looking else draw(python)

    lessons = _in_groups(str(seed), look_first)

    def step_function(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, Metrics]:
        return loss_of(lessons(step), rng), {}

    every = max(1, schedule.steps // 12)

    def check(step: int, average: Average) -> None:
        if step % every:
            return
        average.swap()
        state = torch.get_rng_state()
        report(step, skill_accuracy(model, processor, eye, seed=seed + 7, count=96))
        torch.set_rng_state(state)
        average.swap()

    train(
        "vlm", {"model": model}, step_function, schedule, work=work, seed=seed, report=report,
        on_step=check, mixed=True,
    )  # fmt: skip
    aside = out.with_name(out.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    model.save_pretrained(aside)
    processor.save_pretrained(aside)
    aside.rename(out)


@torch.no_grad()
def skill_accuracy(
    model: Qwen3VLForConditionalGeneration,
    processor: ImageOnlyQwen3VLProcessor,
    eye: Eye,
    seed: int,
    count: int,
    skill: Callable[[random.Random], Lesson] = draw,
) -> dict[str, float]:
    """Shares of answer tokens and of whole answers that are right, on fresh lessons.

    Teacher-forced: every token is guessed from the right ones before it.
    """
    model.eval()
    rng = np.random.default_rng(seed)
    python = random.Random(seed)
    lessons = [skill(python) for _ in range(count)]
    pictures = [picture for lesson in lessons for picture in lesson.pictures]
    batch = collate(lessons, processor.tokenizer, eye.look(pictures, rng))
    labels = batch.pop("labels")[:, 1:]
    guesses = model(**batch).logits[:, :-1].argmax(-1)
    asked = labels != -100
    right = (guesses == labels) | ~asked
    return {
        "token_accuracy": (right & asked).sum().item() / asked.sum().item(),
        "answer_accuracy": right.all(1).float().mean().item(),
    }
