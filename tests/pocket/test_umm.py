from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import tiny_umm as builder
import torch

from interloom import images
from interloom.pocket.foundation import umm, vq
from interloom.pocket.foundation.autoencoder import new_autoencoder
from interloom.pocket.render import render
from interloom.pocket.scene import BACKGROUNDS, SPRITES, Scene, random_scene, scene_split


def test_every_content_has_one_code():
    scenes = [
        Scene.of(dict(enumerate(SPRITES[start : start + 9])), sky)
        for sky in BACKGROUNDS for start in range(0, len(SPRITES) - 9, 9)
    ]  # fmt: skip
    for scene in [*scenes, *(Scene(background=sky) for sky in BACKGROUNDS)]:
        codes = vq.scene_codes(scene)
        assert vq.codes_scene(codes) == scene and min(codes) >= 0 and max(codes) < vq.CODES
    assert vq.CODES == 297 == 3 * (1 + len(SPRITES))


def test_codes_are_sums_of_what_they_share():
    torch.manual_seed(0)
    codes = vq.Codebook()()
    assert codes.shape == (297, 24)
    assert len({tuple(code.tolist()) for code in codes}) == 297
    red, blue = (vq.scene_codes(Scene.of({0: sprite}))[0] for sprite in SPRITES[:2])
    at_night = [vq.scene_codes(Scene.of({0: sprite}, "night"))[0] for sprite in SPRITES[:2]]
    by_day, by_night = codes[red] - codes[blue], codes[at_night[0]] - codes[at_night[1]]
    assert torch.allclose(by_day, by_night, atol=1e-5)


def test_the_picture_tokenizer_sees_what_training_shows_it():
    """The image processor halves pictures as the training does."""
    unified = builder.new()
    scene = random_scene(random.Random(1), 5)
    picture = render(scene, jitter_seed=2)
    theirs = unified.image_processor([picture], return_tensors="pt")
    ours = vq._halved([np.asarray(picture)])
    assert theirs["image_sizes"].tolist() == [[48, 48]]
    # Whole numbers per pixel on their side, rounded once for each direction.
    assert (torch.as_tensor(theirs["pixel_values"]) - ours).abs().max() <= 1 / 127.5 + 1e-4


def test_lessons_are_of_the_training_side_short_and_without_stories():
    rng = random.Random(0)
    pictures = captions = descriptions = 0
    for _ in range(400):
        turns = umm.lesson(rng)
        for number, turn in enumerate(turns):
            words = turn.text.split()
            assert not any(word.startswith("<") for word in words)
            if isinstance(turn.answer, Scene):
                pictures += 1
                assert scene_split(turn.answer) == "train"
            else:
                descriptions += 1
            if number == 0 and turn.source is None:
                captions += 1
                assert isinstance(turn.answer, Scene) and turn.answer.count <= umm.MAX_CAPTION
    assert captions > 100 and pictures > 400 and descriptions > 20


def test_answers_are_learned_and_questions_are_not():
    stream = builder.new().stream
    scene = Scene.of({4: SPRITES[0]})
    turns = [
        umm.Turn("a caption", scene),
        umm.Turn("make it night", Scene(scene.cells, "night")),
        umm.describe_turn(scene, shown=True),
    ]
    ids, learned = umm.to_tokens(turns, stream)
    spans = stream.spans([t for t, learn in zip(ids, learned, strict=True) if learn])
    assert [is_picture for is_picture, _ in spans] == [True, True, False]
    asked = stream.tokenizer.decode([t for t, la in zip(ids, learned, strict=True) if not la])
    assert "a caption ASSISTANT:" in asked and "describe the picture ASSISTANT:" in asked
    assert "<|image start|>" not in asked and ids[-1] == stream.eos and learned[-1]


def test_a_held_out_edit_is_no_training_scene():
    rng = random.Random(5)
    assert {scene_split(umm._held_out(rng, 3)) for _ in range(20)} == {"evaluation"}


@pytest.mark.slow
def test_it_trains_from_scratch_in_small(tmp_path: Path):
    torch.set_num_threads(1)
    reported: dict[int, dict] = {}
    umm.train_umm(
        new_autoencoder(), tmp_path / "umm", tmp_path / "work", 1,
        lambda step, metrics: reported.setdefault(step, {}).update(metrics), 0.003,
    )  # fmt: skip
    assert not list((tmp_path / "umm").rglob("*.bin"))
    names = {name for metrics in reported.values() for name in metrics}
    assert {"vq/cells_right", "vq/read", "loss", "caption_3", "swap", "describe"} <= names
    unified = builder.UnifiedModel.from_pretrained(tmp_path / "umm", image_pixels=96)
    assert unified.model.dtype == torch.float32, "half the bytes on disk, whole numbers in memory"
    tokens = unified.encode_pictures([images.to_png(render(Scene()))])[0]
    assert images.size(unified.decode_pictures([tokens])[0]) == (96, 96)
