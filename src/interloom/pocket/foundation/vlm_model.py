"""The miniature vision-language model as it is before training: tokenizer, processor, network.

The same classes as at paper scale (``Qwen3VLForConditionalGeneration``), shrunk; one cell of the
world is one image token.
"""

# The libraries' own annotations are looser than their code (lazy exports, config as dict).
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import json
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from interloom.backends.transformers import ImageOnlyQwen3VLProcessor
from interloom.pocket.foundation.skills import draw
from interloom.pocket.foundation.tokenizer import instruction_corpus
from interloom.pocket.render import CELL_PIXELS

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
ANSWER_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
CHAT_TEMPLATE = """{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\n' -}}
{%- if m.content is string -%}{{- m.content -}}
{%- else -%}{%- for c in m.content -%}
{%- if c.type == 'image' or 'image' in c -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif 'text' in c -%}{{- c.text -}}{%- endif -%}
{%- endfor -%}{%- endif -%}
{{- '<|im_end|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"""
VOCABULARY = 2200
TOKENIZER_LESSONS = 12_000
PATCH = CELL_PIXELS // 2
"""Pixels of a patch's side: two by two patches are one cell."""


def train_vlm_tokenizer(lessons: int = TOKENIZER_LESSONS) -> PreTrainedTokenizerFast:
    """Words of the world, of its lessons and of JSON, one token each where they are common."""
    rng = random.Random(0)
    corpus = instruction_corpus()
    for _ in range(lessons):
        lesson = draw(rng)
        corpus += [lesson.question.replace("<image>", ""), lesson.answer]
    fields = ("execution_plan", "step_number", "step_name", "instruction", "prompt",
              "auxiliary_text", "previous_step_success", "refine_prompt")  # fmt: skip
    shape = {field: "a" for field in fields} | {"n": [None, True, False, 1, 2, 3, 4, 5, 6, 7, 8]}
    corpus += [json.dumps([shape, shape])] * 200
    corpus += ["system\nuser\nassistant\n request: step: used: Before: After: badly made pictures"
               " are there, step is next."] * 200  # fmt: skip
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r" ?[A-Za-z_]+| ?[0-9]| ?[^\sA-Za-z_0-9]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(ANSWER_TAGS),
        min_frequency=3,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in ANSWER_TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
        chat_template=CHAT_TEMPLATE,
    )


def new_processor(tokenizer: PreTrainedTokenizerFast) -> ImageOnlyQwen3VLProcessor:
    """Patches of 16 pixels, merged two by two: one token per cell of the world."""
    images = Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        temporal_patch_size=2,
        merge_size=2,
        size={"shortest_edge": CELL_PIXELS**2, "longest_edge": 512 * 512},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return ImageOnlyQwen3VLProcessor(
        image_processor=images, tokenizer=tokenizer, chat_template=CHAT_TEMPLATE
    )


def new_vlm(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLForConditionalGeneration:
    """About 1.6 M parameters. The wide initialisation matters at this size: captions are learned
    many times faster than with the library's 0.02."""
    hidden, heads = 128, 4
    spread = 0.06

    def token(name: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(name))

    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 352,
            "num_hidden_layers": 3,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "head_dim": hidden // heads,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
            "tie_word_embeddings": True,
            "initializer_range": spread,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_heads": 4,
            "in_channels": 3,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": hidden,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
            "initializer_range": spread,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
        initializer_range=spread,
    )
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    return model
