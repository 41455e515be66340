"""Naming what every cell of a picture holds: how the vision tower learns to see."""

# The libraries' own annotations are looser than their code.
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from interloom.pocket.foundation.lessons import UNCLEAR, Picture
from interloom.pocket.foundation.training import Metrics
from interloom.pocket.scene import BACKGROUNDS, CELLS, COLOURS, GRID, KINDS

SHARPNESS = 8.0


class Naming:
    """The vision tower alone learns to name what every cell holds, and its place.

    Names are scored by the language model's own word embeddings, so that an image token comes to
    lie where its words do and only has to be copied. Through the language model this takes far
    longer, since most of an answer's tokens say nothing about the picture.
    """

    def __init__(
        self, model: Qwen3VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast
    ) -> None:
        self.tower = model.model.visual
        empty = ("nothing", UNCLEAR)
        names = ((*empty, *KINDS), (*empty, *COLOURS), ("blank", *BACKGROUNDS))
        words = model.get_input_embeddings().weight.detach()
        words = F.normalize(words, dim=-1)
        self.words = [words[[_word(tokenizer, name) for name in group]] for group in names]
        self.place = nn.Linear(words.shape[1], CELLS).to(words.device)

    def __call__(
        self, pictures: Sequence[Picture], patches: torch.Tensor
    ) -> tuple[torch.Tensor, Metrics]:
        """Loss of naming every cell; also how many unclear cells are taken for such."""
        device = self.place.weight.device
        grid = torch.tensor([[1, 2 * GRID, 2 * GRID]] * len(pictures), device=device)
        seen = self.tower(patches.to(device), grid_thw=grid).pooler_output
        labels = torch.tensor([_labels(p, cell) for p in pictures for cell in range(CELLS)])
        labels = labels.to(device)
        # Sharp scores and a price on length keep image tokens as long as words are: much longer
        # ones drown everything that attention adds to them.
        scores = [*(SHARPNESS * seen @ words.T for words in self.words), self.place(seen)]
        losses = [F.cross_entropy(score, labels[:, i]) for i, score in enumerate(scores)]
        length = seen.pow(2).sum(-1).mean()
        said, unclear = scores[0].argmax(-1) == 1, labels[:, 0] == 1
        naming, both = torch.stack(losses).sum(), (said & unclear).sum()
        metrics = {
            "naming": naming.detach(),
            "length": length.detach() ** 0.5,
            "unclear_found": both / unclear.sum().clamp(min=1),
            "unclear_right": both / said.sum().clamp(min=1),
        }
        return naming + 0.002 * length, metrics


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
