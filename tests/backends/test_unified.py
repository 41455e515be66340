from __future__ import annotations

import random

import numpy as np
import pytest
import tiny_umm as builder
import torch

from interloom import images
from interloom.backends.stream import Grid, Limits, Sampling, SpanConstraint
from interloom.backends.unified import UnifiedGenerator, UnifiedModel
from interloom.dialogue import unified_prompt
from interloom.errors import InterloomError
from interloom.pocket.render import render
from interloom.pocket.scene import random_scene
from interloom.roles import GenerationJob


@pytest.fixture(scope="module")
def unified() -> UnifiedModel:
    return builder.new()


def a_picture(seed: int) -> bytes:
    return images.to_png(render(random_scene(random.Random(seed), 4), seed))


def test_pictures_are_decoded_as_the_library_decodes_them(unified):
    codes = np.arange(9).reshape(3, 3)
    tokens = unified.stream.picture(codes)
    png = unified.decode_pictures([tokens, tokens])[1]
    assert images.size(png) == (96, 96)
    visual = tokens[tokens.index(unified.stream.wrapper) + 1 : -2]
    # The library takes what generation ends with (frame end, image end, end of text) away.
    given = torch.tensor([[*visual, *tokens[-2:], unified.stream.eos]])
    pixels = unified.model.decode_image_tokens(image_tokens=given, height=3, width=3)
    small = UnifiedModel(unified.model, unified.tokenizer, unified.image_processor, image_pixels=0)
    ours = np.asarray(images.from_bytes(small.decode_pictures([tokens])[0]), np.float32)
    theirs = ((pixels[0].permute(1, 2, 0).numpy() * 0.5 + 0.5) * 255).clip(0, 255)
    assert np.abs(ours - theirs).max() <= 0.51


def test_streams_are_read_back(unified):
    text = "USER: a red sun, ASSISTANT:"
    parts = unified.tokens([text, a_picture(3), "<evaluate>x"])
    flat = [token for part in parts for token in part]
    back = unified.segments([unified.stream.bos, *flat, unified.stream.eos])
    assert [type(part) for part in back] == [str, bytes, str]
    assert (back[0], back[2]) == (text, "<evaluate>x")
    assert unified.tokens([back[1]]), "a picture of its own can be read again"


def test_rows_do_not_depend_on_their_company(unified):
    prompts = [
        unified.prompt(unified_prompt(text)) for text in ("a red sun", "an orange cup at night")
    ]
    together = unified.complete(prompts, [Limits(40)] * 2)
    alone = [unified.complete([prompt], [Limits(40)])[0] for prompt in prompts]
    assert [c.tokens[:24] for c in together] == [c.tokens[:24] for c in alone]


def test_a_budget_ends_the_story_after_its_last_evaluation(unified):
    stream = unified.stream
    end_after = stream.text(".")[0]
    picture = unified.encode_pictures([a_picture(5)])[0]
    ids = torch.tensor([[stream.bos, *picture, *stream.text(" red"), end_after]])
    one_more = torch.cat([ids, torch.tensor([stream.text(" sun")])], dim=1)
    scores = torch.zeros(1, len(unified.tokenizer))
    for budget, ends in ((1, True), (2, False)):
        constraint = SpanConstraint(
            stream, Grid(3, 3), len(unified.tokenizer), 1,
            [Limits(9, images=budget, end_after=end_after)],
            text=Sampling(1.0), picture=Sampling(1.0),
        )  # fmt: skip
        asked = constraint(ids, scores.clone()).isfinite()[0]
        assert asked[stream.eos] and asked.sum() > 100, "it says how it would go on"
        assert bool(asked[stream.start]) != ends
        free = constraint(one_more, scores.clone()).isfinite()[0]
        assert (free.nonzero().flatten().tolist() == [stream.eos]) == ends


def test_completions_pause_and_go_on_as_if_they_had_not(unified):
    prompt = unified.prompt(unified_prompt("a red sun at the center"))
    (whole,) = unified.complete([prompt], [Limits(60, images=1)])
    written = whole.tokens[len(unified.stream.header(unified.grid)) :]
    pause = written[24]  # of the text after the picture
    place = written.index(pause) + 1
    (first,) = unified.complete([prompt], [Limits(60, images=1)], pauses=[pause])
    assert first.tokens == whole.tokens[: len(whole.tokens) - len(written) + place]
    assert not first.ended and first.tokens[-1] == pause
    so_far = [*prompt, *written[:place]]
    (rest,) = unified.complete([so_far], [Limits(60 - place, images=0)])
    assert rest.tokens[:20] == written[place:][:20] and rest.ended == whole.ended


def test_as_a_generator(unified):
    generator = UnifiedGenerator(unified, Sampling(1.0))
    jobs = [
        GenerationJob(prompt="a red sun", seed=1),
        GenerationJob(prompt="make it night", seed=2, source=a_picture(6)),
        GenerationJob(prompt="merge", seed=2, source=a_picture(6), references=(a_picture(7),)),
    ]
    made = generator.generate(jobs)
    assert [images.size(png) for png in made] == [(96, 96)] * 3
    assert made == generator.generate(jobs)
    changed = [job.model_copy(update={"seed": 9}) for job in jobs]
    assert generator.generate(changed) != made
    assert generator.generate([]) == []


def test_folders_are_loaded_and_others_refused(tiny_umm, tmp_path, tiny_vlm):
    loaded = UnifiedModel.from_pretrained(tiny_umm, image_pixels=96)
    prompt = loaded.prompt(unified_prompt("a red sun"))
    fresh = builder.new()
    assert loaded.complete([prompt], [Limits(30)]) == fresh.complete([prompt], [Limits(30)])
    with pytest.raises(InterloomError, match="interloom pocket train umm"):
        UnifiedModel.from_pretrained(tmp_path / "nothing")
    with pytest.raises(InterloomError, match=r"no config\.json"):
        UnifiedModel.from_pretrained(tmp_path)
    with pytest.raises(InterloomError, match=r"Qwen3VL.*a unified model is Emu3"):
        UnifiedModel.from_pretrained(tiny_vlm)
