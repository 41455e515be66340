"""Checks before training: what can be known to fail is said now, and not an hour later.

``check_samples`` runs one forward and one backward pass on the longest sample, so that a model
that does not fit, a template that drops images or a token count that does not match shows before
the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from transformers import Qwen3VLForConditionalGeneration

from interloom.backends.transformers import ImageOnlyQwen3VLProcessor, encode
from interloom.errors import InterloomError


def check_group(group_size: int, batch_size: int, micro_batch_size: int, devices: int = 1) -> None:
    """Refuse GRPO settings that give no group statistics, no whole batches, or groups that are
    spread over devices.

    Raises:
        InterloomError: naming the setting.
    """
    if group_size < 2:
        raise InterloomError(
            f"grpo_critic.group_size = {group_size}: an advantage compares rollouts of one prompt, "
            "use at least 2"
        )
    if batch_size % devices:
        raise InterloomError(
            f"grpo_critic.batch_size = {batch_size} prompts do not spread over {devices} devices: "
            "the rollouts of a prompt stay on one, so use a multiple of their number"
        )
    completions = batch_size * group_size
    if completions % micro_batch_size:
        raise InterloomError(
            f"grpo_critic.micro_batch_size = {micro_batch_size} does not divide the {completions} "
            f"completions of a step (batch_size {batch_size} × group_size {group_size})"
        )


def check_samples(
    model: Qwen3VLForConditionalGeneration,
    processor: ImageOnlyQwen3VLProcessor,
    samples: Sequence[dict[str, Any]],
    *,
    what: str,
    images_needed: bool,
    probe: int = 256,
) -> int:
    """One forward and backward pass on the longest of the samples; returns its number of tokens.

    Args:
        samples: conversations with ``prompt``, ``completion`` (messages) and ``images`` (PIL).
        what: the dataset's name in errors.
        images_needed: a dataset without a single image is a mistake (the critic's).
        probe: at most so many samples, spread over the data, are looked at.

    Raises:
        InterloomError: no samples, no images, image places and image features differ in number, a
            sample longer than the model's context, or out of memory.
    """
    if not len(samples):
        raise InterloomError(f"{what} is empty: nothing to train on")
    stride = max(1, len(samples) // probe)
    probed = [samples[i] for i in range(0, len(samples), stride)]
    if images_needed and not any(len(sample["images"]) for sample in probed):
        raise InterloomError(f"{what} has no images: a critic cannot learn to see from text")
    rendered = [(_render(processor, sample, what), sample) for sample in probed]
    tokenizer: Any = processor.tokenizer  # type: ignore[attr-defined]
    text, longest = max(rendered, key=lambda item: _length(tokenizer, *item))
    inputs = encode(processor, [text], [longest["images"]])
    tokens = int(inputs["input_ids"].shape[1])
    _check_images(model, inputs, what)
    text_config: Any = model.config.text_config
    context = text_config.max_position_embeddings
    if tokens > context:
        raise InterloomError(
            f"{what}: the longest sample has {tokens} tokens, the model reads {context}: "
            "lower models.max_image_pixels or filter the data"
        )
    _forward_backward(model, inputs, what, tokens)
    return tokens


def _render(processor: ImageOnlyQwen3VLProcessor, sample: dict[str, Any], what: str) -> str:
    text = processor.apply_chat_template(
        [*sample["prompt"], *sample["completion"]], tokenize=False, add_generation_prompt=False
    )
    assert isinstance(text, str)
    places, given = text.count(processor.image_token), len(sample["images"])
    if places != given:
        raise InterloomError(
            f"{what}: the chat template made {places} image place(s) for {given} image(s); "
            "a template that drops images would train on text alone"
        )
    return text


def _length(tokenizer: Any, text: str, sample: dict[str, Any]) -> int:
    pictures: Sequence[Image] = sample["images"]
    # Each image becomes tokens in proportion to its area; exact counts follow from the real
    # encoding.
    area = sum(picture.width * picture.height for picture in pictures) // 1024
    return len(tokenizer(text)["input_ids"]) + area


def _check_images(
    model: Qwen3VLForConditionalGeneration, inputs: dict[str, Any], what: str
) -> None:
    places = int((inputs["input_ids"] == model.config.image_token_id).sum())
    features = 0
    if "image_grid_thw" in inputs:
        vision_config: Any = model.config.vision_config
        merge = vision_config.spatial_merge_size**2
        features = int(inputs["image_grid_thw"].prod(dim=1).sum()) // merge
    if places != features:
        raise InterloomError(
            f"{what}: {places} image tokens for {features} image features; processor and model do "
            "not belong together (patch_size, merge_size or image token)"
        )


def _forward_backward(
    model: Qwen3VLForConditionalGeneration, inputs: dict[str, Any], what: str, tokens: int
) -> None:
    inputs = {key: value.to(model.device) for key, value in inputs.items()}
    try:
        loss = model(**inputs, labels=inputs["input_ids"]).loss
        loss.backward()
    except torch.OutOfMemoryError as error:
        raise InterloomError(
            f"{what}: the longest sample ({tokens} tokens) does not fit in memory; lower "
            "models.max_image_pixels, use bfloat16 or LoRA, or set gradient_checkpointing"
        ) from error
    finally:
        model.zero_grad(set_to_none=True)
    if not torch.isfinite(loss):
        raise InterloomError(f"{what}: the loss of the longest sample is {loss.item()}")
