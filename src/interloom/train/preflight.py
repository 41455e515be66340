"""Checks before training: what can be known to fail is said now, and not an hour later.

``check_samples`` reads the data as the model will: a template that drops images, a token count that
does not match, a sample that is too long. ``TryLongest`` then runs the longest sample forward and
backward where and as it will be trained (device, adapter, number type, sharding), so that a model
that does not fit shows before the first step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from transformers import (
    Qwen3VLForConditionalGeneration,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from interloom import ranks
from interloom.backends.transformers import ImageOnlyQwen3VLProcessor, encode
from interloom.errors import InterloomError

CANDIDATES = 16
"""Samples that look longest and are measured in tokens."""


@dataclass(frozen=True)
class Longest:
    """The longest sample: what the model takes (a batch of one), and its number of tokens."""

    what: str
    inputs: dict[str, Any]
    tokens: int

    def longer(self, by: int) -> Longest:
        """The same with so many further tokens of text: the longest answer that may be sampled."""
        inputs = dict(self.inputs)
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            if name in inputs:  # the last token is text
                inputs[name] = torch.cat([inputs[name], inputs[name][:, -1:].repeat(1, by)], 1)
        return Longest(self.what, inputs, self.tokens + by)


def check_devices() -> None:
    """Refuse one process with several GPUs: the trainer would split every batch over them, and no
    batch size would be ours.

    Raises:
        InterloomError: naming what to do.
    """
    seen = torch.cuda.device_count()
    if seen > 1 and ranks.world() == 1:
        raise InterloomError(
            f"{seen} GPUs and one process: start the stage with `torchrun --nproc-per-node {seen} "
            "--no-python interloom run …` or accelerate launch (profiles/accelerate), or show it "
            "one GPU with CUDA_VISIBLE_DEVICES"
        )


def check_group(
    group_size: int,
    batch_size: int,
    micro_batch_size: int,
    devices: int = 1,
    *,
    section: str = "grpo_critic",
) -> None:
    """Refuse GRPO settings that give no group statistics, no whole batches, or groups that are
    spread over devices.

    Raises:
        InterloomError: naming the setting.
    """
    if group_size < 2:
        raise InterloomError(
            f"{section}.group_size = {group_size}: an advantage compares rollouts of one prompt, "
            "use at least 2"
        )
    if batch_size % devices:
        raise InterloomError(
            f"{section}.batch_size = {batch_size} prompts do not spread over {devices} devices: "
            "the rollouts of a prompt stay on one, so use a multiple of their number"
        )
    completions = batch_size // devices * group_size
    if completions % micro_batch_size:
        raise InterloomError(
            f"{section}.micro_batch_size = {micro_batch_size} does not divide the {completions} "
            f"completions of a step (batch_size {batch_size} × group_size {group_size}) on each of "
            f"{devices} device(s)"
        )


def check_samples(
    model: Qwen3VLForConditionalGeneration,
    processor: ImageOnlyQwen3VLProcessor,
    samples: Sequence[dict[str, Any]],
    lengths: Sequence[int],
    *,
    what: str,
    images_needed: bool,
    probe: int = 64,
) -> Longest:
    """The longest of the samples, after all that can be known without running it was checked.

    Args:
        samples: conversations with ``prompt``, ``completion`` (messages) and ``images`` (PIL).
        lengths: about how long each is, in any unit.
        what: the dataset's name in errors.
        images_needed: a dataset without a single image is a mistake (the critic's).
        probe: so many samples, spread over the data, are looked at beside the longest.

    Raises:
        InterloomError: no samples, no images, image places and image features differ in number, or
            a sample longer than the model's context.
    """
    if not len(samples):
        raise InterloomError(f"{what} is empty: nothing to train on")
    spread = range(0, len(samples), max(1, len(samples) // probe))
    longest = sorted(range(len(samples)), key=lambda place: -lengths[place])[:CANDIDATES]
    probed = [samples[place] for place in sorted({*spread, *longest})]
    if images_needed and not any(len(sample["images"]) for sample in probed):
        raise InterloomError(f"{what} has no images: a critic cannot learn to see from text")
    rendered = [(_render(processor, sample, what), sample) for sample in probed]
    tokenizer: Any = processor.tokenizer  # type: ignore[attr-defined]
    text, sample = max(rendered, key=lambda item: _length(tokenizer, *item))
    inputs = encode(processor, [text], [sample["images"]])
    tokens = int(inputs["input_ids"].shape[1])
    _check_images(model, inputs, what)
    text_config: Any = model.config.text_config
    context = text_config.max_position_embeddings
    if tokens > context:
        raise InterloomError(
            f"{what}: the longest sample has {tokens} tokens, the model reads {context}: "
            "lower models.max_image_pixels or filter the data"
        )
    return Longest(what, inputs, tokens)


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


class TryLongest(TrainerCallback):
    """Before the first step: the longest sample forward and backward through the prepared model.

    Args:
        longest: what ``check_samples`` found.
        copies: samples of a forward pass on a GPU, whose memory is the limit; a CPU tries one.
        sampled: tokens of the longest answer that may be sampled after it, likewise.
    """

    def __init__(self, longest: Longest, copies: int, sampled: int = 0) -> None:
        self.longest = longest
        self.copies = copies
        self.sampled = sampled

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **_: Any,
    ) -> None:
        assert model is not None
        longest, copies = self.longest, 1
        if args.device.type == "cuda":
            longest, copies = longest.longer(self.sampled), self.copies
        # DeepSpeed's backward pass belongs to its engine: there the forward pass has to do.
        backward = args.deepspeed_plugin is None
        try_longest(model, longest, copies, args.device, backward=backward)


def try_longest(
    model: torch.nn.Module,
    longest: Longest,
    copies: int,
    device: torch.device,
    *,
    backward: bool = True,
) -> None:
    """One forward and backward pass of ``copies`` of the longest sample; no gradient is left.

    Raises:
        InterloomError: out of memory, or a loss that is no number.
    """
    inputs = {key: torch.cat([value] * copies).to(device) for key, value in longest.inputs.items()}
    size = f"{copies} × {longest.tokens} tokens"
    try:
        with torch.set_grad_enabled(backward):
            loss = model(**inputs, labels=inputs["input_ids"]).loss
        if backward:
            loss.backward()
    except torch.OutOfMemoryError as error:
        raise InterloomError(
            f"{longest.what}: the longest sample ({size}) does not fit in memory; lower "
            "micro_batch_size or models.max_image_pixels, set gradient_checkpointing or "
            "lora_rank, or shard the model over more GPUs"
        ) from error
    finally:
        model.zero_grad(set_to_none=True)
    if not torch.isfinite(loss):
        raise InterloomError(
            f"{longest.what}: the loss of the longest sample ({size}) is {loss.item()}"
        )
