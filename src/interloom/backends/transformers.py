"""Vision-language chat models through ``transformers``: what planners and critics think with.

The same class runs the pocket Qwen3-VL on a CPU and Qwen3-VL-8B on a GPU; only the folder, the
device and the number type differ.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from interloom import images
from interloom.backends.ledger import NOTHING, Usage
from interloom.dialogue import Conversation
from interloom.errors import InterloomError

if TYPE_CHECKING:
    from PIL.Image import Image

ARCHITECTURE = "Qwen3VLForConditionalGeneration"
_DICE = threading.Lock()
"""Held while answers are sampled: the random state is the process's own."""


class ImageOnlyQwen3VLProcessor(Qwen3VLProcessor):
    """Qwen3-VL's processor without its video half.

    The video half needs torchvision, which has no build for every torch; nothing here reads videos.
    ``from_pretrained`` reads the folders of the full processor as well.
    """

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None
    ) -> None:
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template)


def load_processor(
    path: str | Path, *, max_image_pixels: int | None = None
) -> ImageOnlyQwen3VLProcessor:
    """The processor saved in a model folder, padding on the left (a decoder continues on the
    right).

    Args:
        max_image_pixels: larger images are scaled down to this many pixels.

    Raises:
        InterloomError: not a model folder, it holds another architecture, or a hub has none.
    """
    check_folder(path)
    try:
        processor = ImageOnlyQwen3VLProcessor.from_pretrained(path)
    except OSError as error:  # of hub names alone: folders were looked at
        reason = str(error).splitlines()[0]
        raise InterloomError(
            f"{path}: no model folder, nor to be had from a hub: {reason}"
        ) from None
    assert isinstance(processor, ImageOnlyQwen3VLProcessor)
    processor.tokenizer.padding_side = "left"  # type: ignore[attr-defined]
    if max_image_pixels is not None:
        size = processor.image_processor.size  # type: ignore[attr-defined]
        size["longest_edge"] = max_image_pixels
        size["shortest_edge"] = min(size["shortest_edge"], max_image_pixels)
    return processor


def load_model(
    path: str | Path, *, device: str = "cpu", dtype: str = "float32"
) -> Qwen3VLForConditionalGeneration:
    """The weights of a model folder in evaluation mode. ``dtype`` is a torch name, e.g.
    ``bfloat16``."""
    check_folder(path)
    try:
        model = Qwen3VLForConditionalGeneration.from_pretrained(path, dtype=number_type(dtype))
        return model.to(device).eval()  # type: ignore[arg-type]
    except SafetensorError as error:
        raise InterloomError(
            f"{path}: the weights are damaged ({error}); fetch them again"
        ) from error
    except torch.OutOfMemoryError as error:
        raise InterloomError(f"{path} does not fit on {device} as {dtype}: {error}") from error


def check_folder(path: str | Path) -> None:
    """Refuse a path that does not hold a Qwen3-VL, before anything heavy is read.

    A name on a model hub (``Qwen/Qwen3-VL-8B-Instruct``) is not a folder and is left to the hub
    client.
    """
    folder = Path(path)
    if not folder.exists():
        if folder.is_absolute() or len(folder.parts) != 2 or folder.parent.is_dir():
            raise InterloomError(f"no model folder {path}: run the stage that makes it, or pull it")
        return
    config = folder / "config.json"
    if not config.is_file():
        raise InterloomError(f"{path} is not a model folder: it has no config.json")
    architectures = json.loads(config.read_text()).get("architectures") or ["an unnamed one"]
    if ARCHITECTURE not in architectures:
        raise InterloomError(
            f"{path} holds {', '.join(architectures)}: planner and critic need {ARCHITECTURE}"
        )


def number_type(name: str) -> torch.dtype:
    """The torch number type called ``name``; ``InterloomError`` for others."""
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in dtypes:
        raise InterloomError(f"dtype {name!r}: use one of {', '.join(dtypes)}")
    return dtypes[name]


class ChatModel:
    """A Qwen3-VL that answers many conversations at a time. Threads may share it.

    Args:
        batch_size: conversations per forward pass.
        max_new_tokens: longest answer; a longer one is cut (and will not parse).
    """

    def __init__(
        self,
        model: Qwen3VLForConditionalGeneration,
        processor: ImageOnlyQwen3VLProcessor,
        *,
        name: str = "model",
        batch_size: int = 32,
        max_new_tokens: int = 512,
    ) -> None:
        self.model = model
        self.processor = processor
        self.name = name
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens
        self.usage: list[Usage] = []
        """Tokens read and written for each answer of the last ``generate``."""
        self._turn = threading.Lock()  # a Qwen3-VL keeps state of the answer that it is writing

    def as_another(self, name: str, max_new_tokens: int) -> ChatModel:
        """The same weights under another name, with another longest answer."""
        other = copy(self)
        other.name, other.max_new_tokens, other.usage = name, max_new_tokens, []
        return other

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        batch_size: int = 32,
        max_new_tokens: int = 512,
        max_image_pixels: int | None = None,
    ) -> ChatModel:
        """Load a folder that ``save_pretrained`` wrote (or a hub name).

        Raises:
            InterloomError: the folder is missing, holds another architecture, or does not fit.
        """
        processor = load_processor(path, max_image_pixels=max_image_pixels)
        model = load_model(path, device=device, dtype=dtype)
        name = Path(path).name
        return cls(
            model, processor, name=name, batch_size=batch_size, max_new_tokens=max_new_tokens
        )

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        temperature: float = 0.0,
        seed: int = 0,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[str]:
        """One answer per conversation, in order, without special tokens.

        Conversations are answered longest first, so that those of a batch need little padding.

        Args:
            temperature: 0 is greedy; above it, plain sampling (no top-k, no nucleus).
            seed: of the sampling; the caller's own random state is left as it was.
            on_progress: called with the number of answers that each batch added.

        Raises:
            InterloomError: a chat template that drops images, or out of memory.
        """
        items = conversations
        texts = [render_prompt(self.processor, item) for item in items]
        order = sorted(range(len(items)), key=lambda i: (-len(texts[i]), i))
        answers: list[str] = [""] * len(items)
        self.usage = [NOTHING] * len(items)
        with self._turn, self._seeded(seed, temperature), torch.inference_mode():
            for batch in _batches(order, self.batch_size):
                pictures = [[images.from_bytes(b) for b in items[i].images] for i in batch]
                inputs = encode(self.processor, [texts[i] for i in batch], pictures)
                for i, answer in zip(batch, self._answer(inputs, temperature), strict=True):
                    answers[i], self.usage[i] = answer
                if on_progress is not None:
                    on_progress(len(batch))
        return answers

    @contextmanager
    def _seeded(self, seed: int, temperature: float) -> Iterator[None]:
        """A random state that starts from ``seed``, if answers are sampled at all."""
        if not temperature:
            yield
            return
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with _DICE, torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield

    def _answer(self, inputs: dict[str, Any], temperature: float) -> list[tuple[str, Usage]]:
        inputs = {key: value.to(self.model.device) for key, value in inputs.items()}
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        tokenizer: Any = self.processor.tokenizer  # type: ignore[attr-defined]
        model: Any = self.model
        try:
            tokens = model.generate(
                **inputs,
                **sampling,
                max_new_tokens=self.max_new_tokens,
                suppress_tokens=image_tokens(self.model),
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        except torch.OutOfMemoryError as error:
            raise InterloomError(
                f"out of memory with batch_size {len(inputs['input_ids'])}: lower it"
            ) from error
        new = tokens[:, inputs["input_ids"].shape[1] :]
        read = inputs["attention_mask"].sum(1).tolist()
        written = (new != tokenizer.pad_token_id).sum(1).tolist()
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        return [
            (text.strip(), Usage(*counts))
            for text, *counts in zip(texts, read, written, strict=True)
        ]


def image_tokens(model: Qwen3VLForConditionalGeneration) -> list[int]:
    """Tokens that stand for pictures. Sampled into an answer, they would break the next forward
    pass."""
    config = model.config
    return [
        config.image_token_id,
        config.video_token_id,
        config.vision_start_token_id,
        config.vision_end_token_id,
    ]


def render_prompt(processor: ImageOnlyQwen3VLProcessor, conversation: Conversation) -> str:
    """The chat template's text for a conversation, ending where the assistant begins.

    Raises:
        InterloomError: the text has not one image place per image.
    """
    text = processor.apply_chat_template(
        conversation.messages, tokenize=False, add_generation_prompt=True
    )
    assert isinstance(text, str)
    places = text.count(processor.image_token)
    if places != len(conversation.images):
        raise InterloomError(
            f"the chat template made {places} image place(s) for {len(conversation.images)} "
            "image(s): it drops or doubles images; check chat_template and the messages"
        )
    return text


def encode(
    processor: ImageOnlyQwen3VLProcessor, texts: Sequence[str], pictures: Sequence[Sequence[Image]]
) -> dict[str, Any]:
    """Token and pixel tensors of a left-padded batch, with the keys that the model's forward
    takes."""
    some = any(len(row) for row in pictures)
    process: Any = processor
    return dict(
        process(
            text=list(texts),
            images=[list(row) for row in pictures] if some else None,
            padding=True,
            padding_side="left",
            return_tensors="pt",
            add_special_tokens=False,
        )
    )


def _batches(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (order[start : start + size] for start in range(0, len(order), size))
