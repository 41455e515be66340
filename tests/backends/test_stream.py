from __future__ import annotations

import random

import numpy as np
import pytest
import tiny_umm as builder
import torch

from interloom import images
from interloom.backends.stream import Limits, Sampling, SpanConstraint, StreamError
from interloom.backends.unified import UnifiedModel
from interloom.dialogue import unified_prompt
from interloom.pocket.render import render
from interloom.pocket.scene import random_scene


@pytest.fixture(scope="module")
def unified() -> UnifiedModel:
    return builder.new()


def a_picture(seed: int) -> bytes:
    return images.to_png(render(random_scene(random.Random(seed), 4), seed))


def test_a_picture_stands_in_the_stream_as_emu3_writes_it(unified):
    tokens = unified.encode_pictures([a_picture(1)])[0]
    said = unified.tokenizer.decode(tokens)
    rows = said.count("<|extra_200|>")
    assert said.startswith("<|image start|>3*3<|image token|><|visual token ")
    assert said.endswith("<|extra_200|><|extra_201|><|image end|>") and rows == 3
    assert said.count("<|visual token ") == 9


def test_codes_and_tokens_are_the_librarys_own_mapping(unified):
    codes = np.arange(9).reshape(3, 3) * 31
    tokens = unified.stream.picture(codes)
    assert (unified.stream.codes(tokens) == codes).all()
    theirs = unified.model.vocabulary_mapping.convert_img2bpe(torch.from_numpy(codes))
    assert [t for t in tokens if t in theirs.flatten().tolist()] == theirs.flatten().tolist()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda t: t[1:], "end without its beginning"),
        (lambda t: t[:-1], "cut off"),
        (lambda t: [*t[:6], *t[7:]], "not the form"),
        (lambda t: [*t[:6], t[0], *t[7:]], "not the form|cut off"),
        (lambda t: [t[0], *t[4:]], "without its beginning|not the form|of the size"),
    ],
)
def test_broken_pictures_are_named(unified, spoil, said):
    tokens = unified.encode_pictures([a_picture(2)])[0]
    with pytest.raises(StreamError, match=said):
        unified.segments(spoil(tokens))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_completions_hold_to_their_spans(unified, temperature):
    prompts = [
        unified.prompt(unified_prompt("a red sun at the center")),
        unified.prompt(unified_prompt("make it night", [a_picture(4)])),
        unified.prompt(unified_prompt("a blue cup")),
        unified.prompt(unified_prompt("describe"), draw=False),
    ]
    limits = [Limits(60, images=1), Limits(60, images=2), Limits(200), Limits(30, images=0)]
    sampling = Sampling(temperature)
    made = unified.complete(prompts, limits, text=sampling, picture=sampling, seed=3)
    again = unified.complete(prompts, limits, text=sampling, picture=sampling, seed=3)
    assert made == again
    for completion, limit in zip(made, limits, strict=True):
        header = len(unified.stream.header(unified.grid))
        assert len(completion.tokens) <= limit.tokens + header
        whole = list(completion.tokens)
        if whole.count(unified.stream.start) > whole.count(unified.stream.end):
            whole = whole[: len(whole) - 1 - whole[::-1].index(unified.stream.start)]
        spans = unified.stream.spans(whole)
        pictures = [span for is_picture, span in spans if is_picture]
        for span in pictures:
            assert unified.stream.codes(span).shape == (3, 3)
        visual = set(unified.stream.visual.tolist())
        assert not any(set(span) & visual for is_picture, span in spans if not is_picture)
        if limit.images is not None:
            assert len(pictures) <= limit.images
    assert made[0].tokens[0] == unified.stream.start
    assert not [t for t in made[3].tokens if t == unified.stream.start], "no picture allowed"


def test_each_kind_of_span_is_sampled_in_its_own_way(unified):
    stream = unified.stream
    torch.manual_seed(1)
    scores = torch.randn(2, len(unified.tokenizer))
    prompt = [stream.bos, *stream.header(unified.grid)]
    text = [stream.bos] * (len(prompt) - 1) + stream.text(" red")
    constraint = SpanConstraint(
        stream, unified.grid, scores.shape[1], 1, [Limits(9)] * 2,
        text=Sampling(2.0, top_k=5), picture=Sampling(0.0),
    )  # fmt: skip
    shaped = constraint(torch.tensor([prompt, text]), scores.clone())
    assert shaped[0].isfinite().sum() == 1 and shaped[1].isfinite().sum() == 5
    assert int(shaped[0].argmax()) in stream.visual.tolist()
    kept = shaped[1].isfinite()
    assert torch.equal(shaped[1][kept], scores[1][kept] / 2)
