"""The byte-level BPE of the miniature generator: one token for each common word of the world."""

# The libraries' own annotations are looser than their code (lazy exports, config as dict).
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportCallIssue=false

from __future__ import annotations

import json
import random

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen2TokenizerFast
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from interloom.pocket.language import (
    CORRECTION_STYLES,
    Form,
    correct,
    describe_edit,
    describe_scene,
)
from interloom.pocket.scene import OPERATIONS, apply, random_edit, random_scene

CHAT_TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
_SENTENCES = 6000


def instruction_corpus(seed: int = 0) -> list[str]:
    """Sentences in every wording that the language can write."""
    rng = random.Random(seed)
    forms: tuple[Form, ...] = ("canonical", "paraphrased", "vague", "state")
    corpus: list[str] = []
    while len(corpus) < _SENTENCES:
        scene = random_scene(rng, rng.randint(1, 5))
        edit = random_edit(rng, scene, rng.choice(OPERATIONS))
        if edit is None:
            continue
        corpus += [describe_edit(edit, scene, form, rng) for form in forms]
        corpus += [correct(edit, scene, style) for style in CORRECTION_STYLES]
        corpus += [describe_scene(apply(scene, edit), form, rng) for form in forms]
    return corpus


def byte_level_bpe(
    corpus: list[str], vocabulary: int
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a Qwen2-style BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
    return model["vocab"], [(a, b) for a, b in merges]


def train_tokenizer(vocabulary: int = 700) -> Qwen2TokenizerFast:
    """The generator's tokenizer; its chat template adds as few tokens as can be."""
    vocab, merges = byte_level_bpe(instruction_corpus(), vocabulary)
    tokenizer = Qwen2TokenizerFast(
        vocab=vocab,
        merges=merges,
        unk_token="<|endoftext|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.padding_side = "right"
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = 512
    return tokenizer
