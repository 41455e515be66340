from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import tiny_umm as builder
import torch

from interloom import images
from interloom.pocket.foundation import umm, vq
from interloom.pocket.foundation import umm_lessons as lessons
from interloom.pocket.foundation.autoencoder import new_autoencoder
from interloom.pocket.language import KEEP, describe_scene, parse
from interloom.pocket.render import render
from interloom.pocket.scene import (
    BACKGROUNDS,
    POSITIONS,
    SPRITES,
    Scene,
    random_scene,
    scene_split,
)
from interloom.pocket.several import understand_all
from interloom.records import FAILURE_KINDS


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
    foreign = ("<", "scores", "is missing at", *FAILURE_KINDS)
    captions = edits = 0
    for _ in range(400):
        for number, turn in enumerate(lessons.draw(rng)):
            said = turn.text if isinstance(turn.answer, Scene) else f"{turn.text} {turn.answer}"
            assert not any(word in said for word in foreign)
            if not isinstance(turn.answer, Scene) or not turn.learned:
                continue
            assert scene_split(turn.answer) == "train"
            if number == 0 and not turn.sources:
                captions += 1
                assert turn.answer.count <= lessons.MAX_CAPTION
            else:
                edits += 1
                assert ";" not in turn.text.removesuffix(f"; {KEEP}"), "one edit at a time"
    assert captions > 50 and edits > 150


def test_checks_of_pictures_are_true_and_orders_put_them_right():
    rng, wrong = random.Random(1), 0
    for _ in range(300):
        asked, check, *more = lessons.checking(rng)
        shown = asked.answer
        assert isinstance(shown, Scene) and isinstance(check.answer, str) and not asked.learned
        for said in check.answer.split("; "):
            wish, _, verdict = said.rpartition(", ")
            what, _, seen = wish.partition(", shows ")
            wanted, _, place = what.partition(" at the ")
            if place:
                assert str(shown.cells[POSITIONS.index(place)] or "nothing") == seen
                assert verdict == ("yes" if wanted == seen else "no")
        if more and more[0].text == lessons.PUT_RIGHT and more[0].answer != "nothing":
            wrong += 1
            assert isinstance(more[0].answer, str)
            mended = parse(more[0].answer, shown).nearest(shown)
            assert mended == understand_all(asked.text, asked.sources).goal.nearest(mended)
        elif more and more[0].text == lessons.ASKED:
            assert more[0].answer == asked.text
    assert wrong > 30


def test_answers_are_learned_and_questions_are_not():
    stream = builder.new().stream
    scene = Scene.of({4: SPRITES[0]})
    turns = [
        lessons.Turn("a caption", scene),
        lessons.Turn("what is it", scene, learned=False),
        lessons.Turn("make it night", Scene(scene.cells, "night")),
        lessons.Turn(lessons.DESCRIBE, describe_scene(scene)),
    ]
    ids, learned = umm.to_tokens(turns, stream)
    spans = stream.spans([t for t, learn in zip(ids, learned, strict=True) if learn])
    assert [is_picture for is_picture, _ in spans] == [True, True, False]
    asked = stream.tokenizer.decode([t for t, la in zip(ids, learned, strict=True) if not la])
    assert "a caption ASSISTANT:" in asked and "describe the picture ASSISTANT:" in asked
    assert asked.count("<|image start|>") == 1 and ids[-1] == stream.eos and learned[-1]


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
    assert {"vq/cells_right", "vq/read", "loss", "caption_3", "swap", *umm.SPOKEN} <= names
    unified = builder.UnifiedModel.from_pretrained(tmp_path / "umm", image_pixels=96)
    assert unified.model.dtype == torch.float32, "half the bytes on disk, whole numbers in memory"
    tokens = unified.encode_pictures([images.to_png(render(Scene()))])[0]
    assert images.size(unified.decode_pictures([tokens])[0]) == (96, 96)
