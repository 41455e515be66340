from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from interloom.backends.transformers import load_model, load_processor
from interloom.errors import InterloomError
from interloom.train import preflight
from interloom.train.preflight import Longest


def sample(words: int, images: int = 1) -> dict[str, Any]:
    parts = [{"type": "image"}] * images + [{"type": "text", "text": "sun " * words}]
    return {
        "prompt": [{"role": "user", "content": parts}],
        "completion": [{"role": "assistant", "content": [{"type": "text", "text": "yes"}]}],
        "images": [Image.new("RGB", (96, 96))] * images,
    }


@pytest.fixture
def model(tiny_vlm: Path) -> Any:
    return load_model(tiny_vlm)


@pytest.fixture
def processor(tiny_vlm: Path) -> Any:
    return load_processor(tiny_vlm)


def check(
    model: Any, processor: Any, samples: list[dict[str, Any]], images: bool = True
) -> Longest:
    lengths = [len(str(one["prompt"])) for one in samples]
    return preflight.check_samples(
        model, processor, samples, lengths, what="the data", images_needed=images
    )


def test_the_longest_sample_is_found_wherever_it_is(model: Any, processor: Any):
    short = check(model, processor, [sample(2)])
    # Every third place is probed, and this one is not.
    many = [sample(40 if place == 151 else 2) for place in range(200)]
    assert check(model, processor, many).tokens > short.tokens
    assert check(model, processor, [sample(3, images=0)], images=False).tokens > 0


def test_the_longest_sample_is_tried_and_leaves_no_gradients(model: Any, processor: Any):
    longest = check(model, processor, [sample(40)])
    for tried in (longest, longest.longer(7)):
        preflight.try_longest(model, tried, 3, torch.device("cpu"))
    assert longest.longer(7).inputs["input_ids"].shape[1] == longest.tokens + 7
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_does_not_fit_is_named_with_what_to_do(model: Any, processor: Any):
    class Full(torch.nn.Module):
        def forward(self, **inputs: Any) -> Any:
            raise torch.OutOfMemoryError("no room")

    longest = check(model, processor, [sample(2)])
    wanted = rf"2 × {longest.tokens} tokens\) does not fit.*micro_batch_size.*lora_rank"
    with pytest.raises(InterloomError, match=wanted):
        preflight.try_longest(Full(), longest, 2, torch.device("cpu"))
    next(model.parameters()).data.fill_(float("nan"))
    with pytest.raises(InterloomError, match="loss of the longest sample"):
        preflight.try_longest(model, longest, 1, torch.device("cpu"))


def test_data_that_cannot_be_trained_on_is_refused(model: Any, processor: Any):
    with pytest.raises(InterloomError, match="empty"):
        check(model, processor, [])
    with pytest.raises(InterloomError, match="no images"):
        check(model, processor, [sample(2, images=0)])
    with pytest.raises(InterloomError, match=r"has \d+ tokens"):
        check(model, processor, [sample(4000)])


def test_a_template_that_drops_images_is_refused(model: Any, processor: Any):
    processor.chat_template = "{%- for m in messages -%}{{- m.role -}}{%- endfor -%}"
    with pytest.raises(InterloomError, match="drops images"):
        check(model, processor, [sample(2)])


def test_a_processor_of_another_model_is_refused(model: Any, processor: Any):
    model.config.vision_config.spatial_merge_size = 1
    with pytest.raises(InterloomError, match="9 image tokens for 36 image features"):
        check(model, processor, [sample(2)])


@pytest.mark.parametrize(("group", "micro", "named"), [(1, 1, "group_size"), (4, 3, "micro_batch")])
def test_groups_that_cannot_work_are_refused(group: int, micro: int, named: str):
    with pytest.raises(InterloomError, match=named):
        preflight.check_group(group, 2, micro)


def test_groups_stay_whole_on_every_process():
    preflight.check_group(8, 16, 1, devices=4)
    with pytest.raises(InterloomError, match="6 prompts do not spread over 4 devices"):
        preflight.check_group(8, 6, 1, devices=4)
    with pytest.raises(InterloomError, match=r"16 completions of a step.*each of 4 device"):
        preflight.check_group(4, 16, 5, devices=4)
