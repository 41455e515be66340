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
from interloom.pocket.render import CELL_PIXELS, SIZE_PIXELS, render_array
from interloom.pocket.scene import BACKGROUNDS, CELLS, COLOURS, GRID, KINDS

SCHEDULE = Schedule(steps=7000, learning_rate=2e-3, flat=0.5, weight_decay=0.01, average=0.998)
BATCH = 12
GROUP = 4
"""Batches that are drawn together and sorted by length, so that little of a batch is padding."""
SHARPNESS = 8.0
READING_SCHEDULE = Schedule(
    steps=2000, learning_rate=2e-3, flat=0.5, weight_decay=0.01, average=0.998
)
NAMING_SCHEDULE = Schedule(
    steps=1000, learning_rate=2e-3, flat=0.5, weight_decay=0.01, average=0.998
)
NAMING_PICTURES = 24
"""Pictures per step while the vision tower learns to name cells."""
MADE = 0.25
"""Share of pictures that went through the generator's autoencoder."""


# -------------------------------------------------------------------------------- pictures


def draw_picture(picture: Picture, rng: np.random.Generator) -> np.ndarray:
    """uint8 (96, 96, 3); spoiled cells are blended with another sprite or torn up."""
    if picture.blank:
        return np.full((SIZE_PIXELS, SIZE_PIXELS, 3), 255, np.uint8)
    jitter = random.Random(int(rng.integers(2**62)))
    array = render_array(picture.scene, jitter).astype(np.float32)
    for cell in picture.unclear:
        row, column = divmod(cell, GRID)
        at = (slice(row * CELL_PIXELS, (row + 1) * CELL_PIXELS),
              slice(column * CELL_PIXELS, (column + 1) * CELL_PIXELS))  # fmt: skip
        other = array[at][:: rng.choice((-1, 1)), :: rng.choice((-1, 1))].transpose(1, 0, 2)
        share = rng.uniform(0.4, 0.6)
        array[at] = (1 - share) * array[at] + share * np.roll(other, rng.integers(4, 12), 0)
    return np.clip(array + rng.normal(0, rng.choice((0, 2, 5)), array.shape), 0, 255).astype(
        np.uint8
    )


class Eye:
    """Pictures to pixel patches as the processor makes them, some of them as a generator would."""

    def __init__(self, autoencoder: AutoencoderKLFlux2) -> None:
        self.autoencoder = autoencoder

    def look(self, pictures: Sequence[Picture], rng: np.random.Generator) -> torch.Tensor:
        """(N·36, 1536) float32; no rows for no pictures."""
        if not pictures:
            return torch.empty(0, PATCH * PATCH * 3 * 2)
        arrays = np.stack([draw_picture(picture, rng) for picture in pictures])
        pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1
        chosen = torch.from_numpy(rng.random(len(pictures)) < MADE)
        if chosen.any():
            # Pictures are made in full precision, also inside a bfloat16 training step.
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                latents = self.autoencoder.encode(pixels[chosen], return_dict=False)[0].mode()
                latents = latents + 0.15 * rng.random() * torch.randn_like(latents)
                made = self.autoencoder.decode(latents, return_dict=False)[0]
            pixels[chosen] = made.clamp(-1, 1)
        return to_patches(pixels)


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
    def read(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, Metrics]:
        python = random.Random(int(rng.integers(2**62)))
        return loss_of([draw(python, READING) for _ in range(BATCH)], rng), {}

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

    @lru_cache(maxsize=1)
    def group(number: int) -> list[Lesson]:
        python = random.Random(f"{seed}:{number}")
        # First of all learn to look: listing the cells of one picture comes before the rest.
        looking = 0.6 if number * GROUP < schedule.steps // 10 else 0.0
        lessons = [
            list_cells(python) if python.random() < looking else draw(python)
            for _ in range(GROUP * BATCH)
        ]
        return sorted(lessons, key=_length)

    def step_function(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, Metrics]:
        number, part = divmod(step, GROUP)
        return loss_of(group(number)[part * BATCH :][:BATCH], rng), {}

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
