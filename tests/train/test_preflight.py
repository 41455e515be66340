from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from interloom.backends.transformers import load_model, load_processor
from interloom.errors import InterloomError
from interloom.train import preflight


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


def check(model: Any, processor: Any, samples: list[dict[str, Any]], images: bool = True) -> int:
    return preflight.check_samples(model, processor, samples, what="the data", images_needed=images)


def test_the_longest_sample_is_tried_and_leaves_no_gradients(model: Any, processor: Any):
    short, long = (
        check(model, processor, [sample(2)]),
        check(model, processor, [sample(2), sample(40)]),
    )
    assert long > short
    assert check(model, processor, [sample(3, images=0)], images=False) > 0
    assert all(parameter.grad is None for parameter in model.parameters())


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
