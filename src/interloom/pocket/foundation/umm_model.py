"""The miniature unified model as it is before training: tokenizer, image processor, network.

The same classes as at paper scale (``Emu3ForConditionalGeneration``), shrunk: one cell of the world
is one visual token. The tokenizer has Emu3's special tokens under Emu3's names.
"""

# The libraries' own annotations are looser than their code (lazy exports, config as dict).
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import random

import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Emu3Config,
    Emu3ForConditionalGeneration,
    Emu3ImageProcessor,
    GenerationConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.emu3.modeling_emu3 import Emu3VQVAE

from interloom.pocket.foundation.tokenizer import instruction_corpus
from interloom.pocket.foundation.vq import CODES, SIDE_PIXELS
from interloom.pocket.knowledge import reasoning_rules, riddles
from interloom.pocket.scene import GRID

PAD, BOS, EOS = "<|endoftext|>", "<|extra_203|>", "<|extra_204|>"
ROW_END = "<|extra_200|>"
EXTRA_TOKENS = {
    "image_token": "<image>",
    "boi_token": "<|image start|>",
    "eoi_token": "<|image end|>",
    "image_wrapper_token": "<|image token|>",
    "eof_token": "<|extra_201|>",
}
VISUAL_TOKENS = tuple(f"<|visual token {code:06d}|>" for code in range(CODES))
VOCABULARY = 1100
"""Words and their parts; special and visual tokens come on top."""


def train_umm_tokenizer() -> PreTrainedTokenizerFast:
    """Words of the world, of its riddles and of talk about pictures, one token each."""
    corpus = instruction_corpus()
    corpus += [text for riddle in riddles() for text in (*riddle.phrases, riddle.fact)]
    corpus += [text for r in reasoning_rules() for text in (*r.instruction, r.auxiliary_text)]
    corpus += ["USER: ASSISTANT: describe the picture; what is at; what will be seen: one by one:"
               " is it so what was asked say it again: put it right, shows yes no missing not"
               " should be empty and unclear nothing background scores: instruction consistency"
               " quality knowledge 1 2 3 4 5 6 7 8 9. 3*3 under-editing: over-editing: targeting"
               " error: logic flaw: visual artifacts: it is badly made"] * 200  # fmt: skip
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r" ?[A-Za-z_]+| ?[0-9]| ?[^\sA-Za-z_0-9]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, BOS, EOS, ROW_END, *EXTRA_TOKENS.values(), *VISUAL_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY + len(special),
        min_frequency=3,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    random.Random(0).shuffle(corpus)
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens=EXTRA_TOKENS,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=2048,
    )


def new_image_processor() -> Emu3ImageProcessor:
    """Pictures of any size to 48×48 in [-1, 1], each pixel the mean of those it covers."""
    return Emu3ImageProcessor(
        resample=Image.Resampling.BOX,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        min_pixels=SIDE_PIXELS**2,
        max_pixels=SIDE_PIXELS**2,
        spatial_factor=SIDE_PIXELS // GRID,
    )


def new_umm(
    tokenizer: PreTrainedTokenizerFast, vq: Emu3VQVAE, layers: int = 4, hidden: int = 128
) -> Emu3ForConditionalGeneration:
    """About 0.9 M parameters besides the picture tokenizer's. Seed torch first.

    Visual tokens begin where their codes say, so that the model need not find out which of them
    share a kind, a colour or a background.
    """
    heads = 4
    names = (ROW_END, EXTRA_TOKENS["image_token"], *VISUAL_TOKENS)
    config = Emu3Config(
        vq_config=vq.config.to_dict(),
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 3 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
            "attention_dropout": 0.0,
            # Wide, as for the other miniatures: 0.02 learns many times slower at this size.
            "initializer_range": 0.06,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "tie_word_embeddings": True,
        },
        vocabulary_map={name: tokenizer.convert_tokens_to_ids(name) for name in names},
        tie_word_embeddings=True,
    )
    model = Emu3ForConditionalGeneration(config)
    model.model.vqmodel.load_state_dict(vq.state_dict())
    model.model.vqmodel.requires_grad_(False).eval()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    codes = vq.quantize.embedding.weight
    codes = (codes - codes.mean(0)) / codes.std()
    spread = torch.randn(codes.shape[1], hidden) / codes.shape[1] ** 0.5
    visual = torch.tensor(tokenizer.convert_tokens_to_ids(list(VISUAL_TOKENS)))
    with torch.no_grad():
        model.model.text_model.embed_tokens.weight[visual] = 0.06 * codes @ spread
    return model
