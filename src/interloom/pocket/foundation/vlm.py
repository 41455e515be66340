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
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from interloom.backends.transformers import ImageOnlyQwen3VLProcessor
from interloom.pocket.foundation.eye import Drawn, Eye
from interloom.pocket.foundation.lessons import Lesson, Picture, random_picture
from interloom.pocket.foundation.made import MadePictures
from interloom.pocket.foundation.naming import Naming
from interloom.pocket.foundation.skills import READING, draw, in_tags, list_cells
from interloom.pocket.foundation.training import (
    HERE,
    Ahead,
    Average,
    Machine,
    Metrics,
    Report,
    Schedule,
    StepFunction,
    train,
)
from interloom.pocket.foundation.vlm_model import (
    TOKENIZER_LESSONS,
    new_processor,
    new_vlm,
    train_vlm_tokenizer,
)
from interloom.pocket.scene import CELLS, GRID
from interloom.roles import Generator

SCHEDULE = Schedule(
    steps=6500, learning_rate=2e-3, matrix_rate=1e-2, flat=0.5, weight_decay=0.01, average=0.998
)
BATCH = 12
"""Lessons a step."""
GROUP = 4
"""Batches that are drawn together and sorted by length, so that little of a batch is padding."""
READING_SCHEDULE = Schedule(
    steps=3000, learning_rate=2e-3, matrix_rate=1e-2, flat=0.6, weight_decay=0.01, average=0.998
)
NAMING_SCHEDULE = Schedule(
    steps=1000, learning_rate=2e-3, flat=0.5, weight_decay=0.01, average=0.998
)
SETTLING_SCHEDULE = Schedule(
    steps=2400, learning_rate=8e-4, matrix_rate=4e-3, flat=0.4, weight_decay=0.01, average=0.998
)
MADE_LOOKS = 0.67
"""Share of pictures that the generator made, in the part before the last."""
MADE_LESSONS = 0.25
"""Share of lessons about what the generator made, in the last part."""
TAG_LESSONS = 0.4
"""Share of lessons that are answered between tags and in JSON, in the last part."""
LOOKING_SCHEDULE = Schedule(
    steps=1500, learning_rate=1e-3, flat=0.4, weight_decay=0.01, average=0.998
)
MADE_PICTURES = 1600
"""Pictures from which the generator makes others, for the tower to look at."""
NAMING_PICTURES = 24
"""Pictures per step while the vision tower learns to name cells."""


# ------------------------------------------------------------------------------- training


def _length(lesson: Lesson) -> int:
    """Characters, counting a picture as about its tokens."""
    return len(lesson.question) + len(lesson.answer) + 40 * len(lesson.pictures)


def collate(
    lessons: Sequence[Lesson], tokenizer: PreTrainedTokenizerFast, pictures: int
) -> dict[str, torch.Tensor]:
    """Right-padded batch without its ``pictures``' pixels; loss on the answers only."""
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
    if pictures:
        batch["image_grid_thw"] = torch.tensor([[1, 2 * GRID, 2 * GRID]] * pictures)
        image_token = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        batch["mm_token_type_ids"] = (ids == image_token).long()
    return batch


def _in_groups(
    seed: str, size: int, draw_one: Callable[[random.Random, int], Lesson]
) -> Callable[[int], list[Lesson]]:
    """The ``size`` lessons of a step. ``GROUP`` batches are drawn together and sorted by length."""

    @lru_cache(maxsize=1)
    def group(number: int) -> list[Lesson]:
        python = random.Random(f"{seed}:{number}")
        drawn = [draw_one(python, number * GROUP) for _ in range(GROUP * size)]
        return sorted(drawn, key=_length)

    def batch(step: int) -> list[Lesson]:
        number, part = divmod(step, GROUP)
        return group(number)[part * size :][:size]

    return batch


def train_vlm(
    autoencoder: AutoencoderKLFlux2,
    generator: Generator,
    out: Path,
    work: Path,
    seed: int,
    report: Report,
    scale: float = 1.0,
    batch: int = BATCH,
    machine: Machine = HERE,
    *,
    tokenizer_lessons: int = TOKENIZER_LESSONS,
) -> None:
    """Train from scratch and write the folder (model, processor) whole.

    ``scale`` is a factor on the steps of its parts: reading, naming, all skills, and then, with
    what ``generator`` makes before its eyes, looking closer and some of the skills again.
    """
    tokenizer = train_vlm_tokenizer(tokenizer_lessons)
    torch.manual_seed(seed)
    training = VlmTraining(tokenizer, Eye(autoencoder), work, seed, report, scale, batch, machine)
    training.read()
    training.name_cells()
    training.learn_skills()
    made = MadePictures(generator, max(8, round(MADE_PICTURES * scale)), seed)
    training.look_closer(made)
    training.settle(made)
    aside = out.with_name(out.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    training.model.save_pretrained(aside)
    training.processor.save_pretrained(aside)
    aside.rename(out)


class VlmTraining:
    """The parts of the training, to be called in the order in which they stand here."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        eye: Eye,
        work: Path,
        seed: int,
        report: Report,
        scale: float,
        batch: int = BATCH,
        machine: Machine = HERE,
    ) -> None:
        self.tokenizer, self.eye = tokenizer, eye
        self.work, self.seed, self.report, self.scale = work, seed, report, scale
        self.batch, self.machine = batch, machine
        self.processor = new_processor(tokenizer)
        self.model = new_vlm(tokenizer).to(machine.device)
        # Batches of many short texts: half again as fast here as the fused kernel with a mask.
        self.model.set_attn_implementation({"text_config": "eager"})
        self.tower = self.model.model.visual

    def read(self) -> None:
        """Texts, but for a few pictures that nothing can see yet.

        A model that has learned to name cells, and only then meets questions whether two names are
        the same, stays stuck at guessing that they are.
        """
        before = NAMING_SCHEDULE.scaled(self.scale).steps
        language = {"model": self.model.model.language_model}
        schedule = READING_SCHEDULE.scaled(self.scale)
        step_function = self._lessons("reading", schedule, lambda rng, _: draw(rng, READING))
        self._train("vlm-reading", language, step_function, schedule, -before - schedule.steps,
                    mixed=True)  # fmt: skip

    def name_cells(self) -> None:
        """The vision tower alone, by the words that the language model has read."""
        self.naming = Naming(self.model, self.tokenizer)
        schedule = NAMING_SCHEDULE.scaled(self.scale)
        step_function = self._pictures("naming", schedule, random_picture)
        modules = {"tower": self.tower, "place": self.naming.place}
        self._train("vlm-naming", modules, step_function, schedule, -schedule.steps)

    def learn_skills(self) -> None:
        """The language model on all lessons.

        The tower stands still: the first steps of an untrained language model would undo it. What
        goes from its first layer straight into the language model starts at nothing.
        """
        self.tower.requires_grad_(False)
        for merger in self.tower.deepstack_merger_list.requires_grad_(True):
            nn.init.zeros_(merger.linear_fc2.weight)
            nn.init.zeros_(merger.linear_fc2.bias)
        schedule = SCHEDULE.scaled(self.scale)

        def look_first(python: random.Random, step: int) -> Lesson:
            # First of all learn to look: listing the cells of one picture comes before the rest.
            looking = 0.6 if step < schedule.steps // 10 else 0.0
            return list_cells(python) if python.random() < looking else draw(python)

        every = max(1, schedule.steps // 12)

        def check(step: int, average: Average) -> None:
            if step % every:
                return
            average.swap()
            state = torch.get_rng_state()
            seen = skill_accuracy(
                self.model, self.processor, self.eye, seed=self.seed + 7, count=96
            )
            self.report(step, seen)
            torch.set_rng_state(state)
            average.swap()

        step_function = self._lessons("skills", schedule, look_first)
        modules = {"model": self.model}
        self._train("vlm", modules, step_function, schedule, mixed=True, on_step=check)

    def look_closer(self, made: MadePictures) -> None:
        """The tower's last layers on what a generator makes, by the same words as before.

        What feeds the language model's inner layers stays as these have learned to take it.
        """

        def draw_one(rng: random.Random) -> Picture:
            return made.draw(rng) if rng.random() < MADE_LOOKS else random_picture(rng)

        self.tower.requires_grad_(False)
        for part in (*self.tower.blocks[1:], self.tower.merger):
            part.requires_grad_(True)
        modules = {"tower": self.tower, "place": self.naming.place}
        schedule = LOOKING_SCHEDULE.scaled(self.scale)
        step_function = self._pictures("looking", schedule, draw_one)
        after = SCHEDULE.scaled(self.scale).steps
        self._train("vlm-looking", modules, step_function, schedule, after)

    def settle(self, made: MadePictures) -> None:
        """The language model once more, since the tower tells it more than before."""
        self.tower.requires_grad_(False)
        self.tower.deepstack_merger_list.requires_grad_(True)

        def draw_one(rng: random.Random, _: int) -> Lesson:
            roll = rng.random()
            if roll < MADE_LESSONS:
                return made.lesson(rng)
            return in_tags(rng) if roll < MADE_LESSONS + TAG_LESSONS else draw(rng)

        after = sum(s.scaled(self.scale).steps for s in (SCHEDULE, LOOKING_SCHEDULE))
        schedule = SETTLING_SCHEDULE.scaled(self.scale)
        step_function = self._lessons("settling", schedule, draw_one)
        self._train("vlm-settling", {"model": self.model}, step_function, schedule, after,
                    mixed=True)  # fmt: skip

    def _train(
        self,
        name: str,
        modules: Mapping[str, nn.Module],
        step_function: StepFunction,
        schedule: Schedule,
        offset: int = 0,
        *,
        mixed: bool = False,
        on_step: Callable[[int, Average], None] | None = None,
    ) -> None:
        """One part; its steps are reported ``offset`` later, so that all make one curve."""
        train(
            name, modules, step_function, schedule, work=self.work, seed=self.seed, mixed=mixed,
            batch=self.batch, on_step=on_step,
            report=lambda step, metrics: self.report(offset + step, metrics),
        )  # fmt: skip

    def _pictures(
        self, part: str, schedule: Schedule, draw_one: Callable[[random.Random], Picture]
    ) -> StepFunction:
        """Steps of naming the cells of pictures."""

        def make(step: int) -> tuple[list[Picture], Drawn]:
            python = random.Random(f"{self.seed}:{part}:{step}")
            pictures = [draw_one(python) for _ in range(NAMING_PICTURES)]
            return pictures, self.eye.draw(pictures, _numbers(python))

        ahead = Ahead(make, schedule.steps, self.machine.workers)

        def step_function(step: int, _: np.random.Generator) -> tuple[torch.Tensor, Metrics]:
            pictures, drawn = ahead.at(step)
            return self.naming(pictures, self.eye.see(drawn))

        return step_function

    def _lessons(
        self, part: str, schedule: Schedule, draw_one: Callable[[random.Random, int], Lesson]
    ) -> StepFunction:
        """Steps of answering lessons."""
        lessons = _in_groups(f"{self.seed}:{part}", self.batch, draw_one)

        def make(step: int) -> tuple[dict[str, torch.Tensor], Drawn]:
            numbers = _numbers(random.Random(f"{self.seed}:{part}:{step}"))
            pictures = [picture for lesson in lessons(step) for picture in lesson.pictures]
            drawn = self.eye.draw(pictures, numbers)
            return collate(lessons(step), self.tokenizer, len(pictures)), drawn

        ahead = Ahead(make, schedule.steps, self.machine.workers)

        def step_function(step: int, _: np.random.Generator) -> tuple[torch.Tensor, Metrics]:
            batch, drawn = ahead.at(step)
            return self._loss(batch, self.eye.see(drawn)), {}

        return step_function

    def _loss(self, batch: Mapping[str, torch.Tensor], patches: torch.Tensor) -> torch.Tensor:
        """Words are scored where an answer stands only: over the whole batch that costs as much as
        the rest of the model."""
        labels = batch["labels"][:, 1:]
        answers = (labels != -100).nonzero(as_tuple=True)
        wanted, *places = (t.to(self.model.device) for t in (labels[answers], *answers))
        states = self.model.model(**_inputs(self.model, batch, patches)).last_hidden_state
        return F.cross_entropy(self.model.lm_head(states[:, :-1][tuple(places)]), wanted)


def _inputs(
    model: Qwen3VLForConditionalGeneration, batch: Mapping[str, torch.Tensor], patches: torch.Tensor
) -> dict[str, torch.Tensor]:
    """What the model is called with, where it is."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    if len(patches):
        inputs["pixel_values"] = patches
    return {key: value.to(model.device) for key, value in inputs.items()}


def _numbers(rng: random.Random) -> np.random.Generator:
    return np.random.default_rng(rng.getrandbits(62))


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
    batch = collate(lessons, processor.tokenizer, len(pictures))
    labels = batch["labels"][:, 1:]
    inputs = _inputs(model, batch, eye.look(pictures, rng))
    guesses = model(**inputs).logits[:, :-1].argmax(-1).cpu()
    asked = labels != -100
    right = (guesses == labels) | ~asked
    return {
        "token_accuracy": (right & asked).sum().item() / asked.sum().item(),
        "answer_accuracy": right.all(1).float().mean().item(),
    }
