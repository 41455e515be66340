"""An untrained unified model of pocket size, with a picture tokenizer whose codes are laid out."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path

import torch

from interloom.backends.unified import UnifiedModel
from interloom.pocket.foundation.umm_model import new_image_processor, new_umm, train_umm_tokenizer
from interloom.pocket.foundation.vq import Codebook, new_vq


@cache
def _tokenizer():
    return train_umm_tokenizer()


def tokenizer():
    """One of its own, as tags may be added to it."""
    return deepcopy(_tokenizer())


def new() -> UnifiedModel:
    """Two layers, random weights, pictures of noise."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vq = new_vq()
    with torch.no_grad():
        vq.quantize.embedding.weight.copy_(Codebook()())
    words = tokenizer()
    model = new_umm(words, vq.eval(), layers=2, hidden=32).eval()
    return UnifiedModel(
        model, words, new_image_processor(), name="tiny", image_pixels=96, batch_size=3
    )


def build(folder: Path) -> Path:
    """The same as a model folder."""
    new().save(folder)
    return folder
