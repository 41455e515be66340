from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image

from interloom import images
from interloom.backends import transformers as backend
from interloom.backends.transformers import ChatModel
from interloom.dialogue import Conversation
from interloom.errors import InterloomError

RED, BLUE = (images.to_png(Image.new("RGB", (96, 96), colour)) for colour in ("red", "blue"))


def ask(text: str, *pictures: bytes) -> Conversation:
    parts = [{"type": "image"}] * len(pictures) + [{"type": "text", "text": text}]
    return Conversation([{"role": "user", "content": parts}], list(pictures))


MIXED = [
    ask("what is at the top left"),
    ask("before and after", RED, BLUE),
    ask("x"),
    ask("a much longer question about this picture", RED),
    ask("before and after", BLUE, RED),
]


@pytest.fixture(scope="module")
def chat(tiny_vlm: Path) -> ChatModel:
    return ChatModel.from_pretrained(tiny_vlm, batch_size=2, max_new_tokens=12)


def test_answers_come_in_order_and_do_not_depend_on_the_batch(chat: ChatModel, tiny_vlm: Path):
    together = chat.generate(MIXED)
    alone = [answer for item in MIXED for answer in chat.generate([item])]
    assert together == alone
    chat.generate(MIXED)
    read, written = zip(*((one.input_tokens, one.output_tokens) for one in chat.usage), strict=True)
    assert read[1] == read[4] > read[2] and all(0 < count <= 12 for count in written)
    assert len(set(together)) > 1
    large = ChatModel.from_pretrained(tiny_vlm, batch_size=8, max_new_tokens=12)
    assert large.generate(MIXED) == together


def test_sampling_repeats_with_its_seed_and_leaves_the_callers_random_state(chat: ChatModel):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = chat.generate(MIXED, temperature=1.0, seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert chat.generate(MIXED, temperature=1.0, seed=1) == first
    assert chat.generate(MIXED, temperature=1.0, seed=2) != first


def test_threads_that_share_a_model_get_the_answers_that_each_gets_alone(chat: ChatModel):
    other = chat.as_another("other", 6)
    assert (other.name, other.max_new_tokens, chat.max_new_tokens) == ("other", 6, 12)

    def greedy() -> list[str]:
        return chat.generate(MIXED)

    def sampled() -> list[str]:
        return other.generate(MIXED, temperature=1.0, seed=4)

    alone = [greedy(), sampled()] * 3
    with ThreadPoolExecutor(6) as pool:
        together = [pool.submit(work).result for work in (greedy, sampled) * 3]
        assert [result() for result in together] == alone
    assert other.usage != chat.usage


def test_image_tokens_are_never_sampled(chat: ChatModel):
    with torch.no_grad():  # make them by far the likeliest
        weights = chat.model.lm_head.weight
        kept = weights.clone()
        weights[backend.image_tokens(chat.model)] *= 50
        try:
            inputs = backend.encode(
                chat.processor,
                [backend.render_prompt(chat.processor, MIXED[1])],
                [[images.from_bytes(RED)] * 2],
            )
            sampled = [text for text, _ in chat._answer(inputs, 1.0)]
            ids = chat.processor.tokenizer(sampled)["input_ids"][0]  # type: ignore[attr-defined]
        finally:
            weights.copy_(kept)
    assert not set(ids) & set(backend.image_tokens(chat.model))


def test_progress_counts_every_answer(chat: ChatModel):
    seen: list[int] = []
    chat.generate(MIXED, on_progress=seen.append)
    assert sum(seen) == len(MIXED)
    assert chat.generate([]) == []


def test_a_template_that_drops_images_is_refused(tiny_vlm: Path):
    chat = ChatModel.from_pretrained(tiny_vlm)
    chat.processor.chat_template = "{%- for m in messages -%}{{- m.role -}}{%- endfor -%}"
    with pytest.raises(InterloomError, match="0 image place"):
        chat.generate([ask("look", RED)])


def test_a_missing_or_foreign_folder_is_refused(tmp_path: Path):
    with pytest.raises(InterloomError, match="no model folder"):
        ChatModel.from_pretrained(tmp_path / "nothing")
    with pytest.raises(InterloomError, match=r"no config\.json"):
        ChatModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    with pytest.raises(InterloomError, match="BertModel"):
        ChatModel.from_pretrained(tmp_path)


def test_an_unknown_dtype_is_refused(tiny_vlm: Path):
    with pytest.raises(InterloomError, match="float8"):
        ChatModel.from_pretrained(tiny_vlm, dtype="float8")
