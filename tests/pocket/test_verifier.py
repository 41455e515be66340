from __future__ import annotations

import io
import os
import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from interloom.pocket.goal import Goal
from interloom.pocket.render import CELL_PIXELS, render, render_array
from interloom.pocket.scene import Edit, Scene, Sprite, apply, random_scene
from interloom.pocket.verifier import judge, read, read_many

SUN, CUP, FISH = Sprite("red", "sun"), Sprite("blue", "cup"), Sprite("yellow", "fish")
BEFORE = Scene.of({0: SUN, 4: CUP, 8: FISH})
READ_BACK = int(os.environ.get("INTERLOOM_READ_BACK", "1500"))


def _spoiled(rng: random.Random, scene: Scene, index: int) -> Image.Image:
    """Jitter always; every third with noise, every third as JPEG of quality 60."""
    array = render_array(scene, rng).astype(np.float32)
    if index % 3 == 1:
        noise = np.random.default_rng(index)
        array += noise.normal(0, noise.uniform(2, 10), array.shape)
    image = Image.fromarray(array.clip(0, 255).astype(np.uint8))
    if index % 3 == 2:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=60)
        image = Image.open(buffer)
    return image


def test_rendered_scenes_read_back_under_jitter_noise_and_jpeg():
    rng = random.Random(1)
    exact = wrong = 0
    for start in range(0, READ_BACK, 100):
        scenes = [random_scene(rng, rng.randint(0, 9)) for _ in range(100)]
        images = [_spoiled(rng, scene, start + i) for i, scene in enumerate(scenes)]
        for scene, reading in zip(scenes, read_many(images), strict=True):
            exact += reading.scene == scene
            wrong += reading.scene is not None and reading.scene != scene
    assert exact / READ_BACK >= 0.999
    assert wrong == 0


def test_one_by_one_reads_the_same_as_many_at_once():
    rng = random.Random(2)
    images = [render(random_scene(rng, 5), i) for i in range(6)]
    for alone, among in zip(map(read, images), read_many(images), strict=True):
        assert alone.scene == among.scene is not None
        # The last digits depend on how many are read together, and on the processor.
        assert alone.quality == pytest.approx(among.quality, abs=0.01)
        for one, other in zip(alone.cells, among.cells, strict=True):
            assert one.confidence == pytest.approx(other.confidence, abs=1e-3)


def _cell(image: Image.Image, cell: int) -> tuple[int, int, int, int]:
    x, y = cell % 3 * CELL_PIXELS, cell // 3 * CELL_PIXELS
    return x, y, x + CELL_PIXELS, y + CELL_PIXELS


def test_a_blend_of_two_sprites_is_unreadable():
    one = render(Scene.of({4: Sprite("red", "house")}))
    other = render(Scene.of({4: Sprite("green", "cross")}))
    reading = read(Image.blend(one, other, 0.5))
    assert reading.unreadable == [4]
    assert reading.scene is None
    assert reading.quality < 4


def test_noise_in_a_cell_is_unreadable_not_guessed():
    image = render(BEFORE)
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    image.paste(Image.fromarray(noise), _cell(image, 4))
    assert 4 in read(image).unreadable


def test_blur_lowers_quality_and_is_named():
    image = render(BEFORE)
    blurred = image.filter(ImageFilter.GaussianBlur(1.6))
    reading = read(blurred)
    assert reading.quality < read(image).quality
    assert "blurred" in {fault.kind for fault in reading.faults}


def test_a_colour_off_the_palette_is_named():
    array = render_array(Scene.of({4: Sprite("red", "circle")})).astype(int)
    sprite = np.abs(array - array[0, 0]).sum(-1) > 60
    array[sprite] = (255, 120, 170)
    reading = read(array.astype(np.uint8))
    assert reading.unreadable == [4] or "off_palette" in {f.kind for f in reading.faults}


def test_an_uneven_background_is_named():
    array = render_array(BEFORE)
    array[:, :32] = array[:, :32] // 2
    assert "uneven_background" in {fault.kind for fault in read(array).faults}


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (200, 200)])
def test_any_size_and_mode_is_read(size):
    image = render(BEFORE).resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    assert read(image).best_guess.background == "day"


class TestScores:
    edit = Edit("recolour", at=4, colour="green")
    goal = Goal(scenes=(apply(BEFORE, edit),), before=BEFORE)

    def test_done(self):
        verdict = judge(render(apply(BEFORE, self.edit)), self.goal)
        assert verdict.success
        assert (verdict.semantic, verdict.quality) == (10, 10)
        axes = (verdict.instruction, verdict.consistency, verdict.knowledge, verdict.craft)
        assert axes == (5, 5, 5, 5)

    def test_nothing_done(self):
        verdict = judge(render(BEFORE), self.goal)
        assert verdict.missed == (4,)
        assert verdict.damaged == ()
        assert verdict.semantic == 5.0  # the kind is right, the colour is not
        assert verdict.consistency == 5

    def test_collateral_damage_is_named_cell_by_cell(self):
        spoiled = apply(apply(BEFORE, self.edit), Edit("remove", at=8)).with_cell(2, SUN)
        verdict = judge(render(spoiled), self.goal)
        assert verdict.missed == ()
        assert verdict.damaged == (2, 8)
        assert verdict.semantic == pytest.approx(4.0)
        assert verdict.consistency < 5

    def test_a_wrong_background_counts_against_the_rest(self):
        spoiled = Scene(apply(BEFORE, self.edit).cells, "night")
        verdict = judge(render(spoiled), self.goal)
        assert verdict.background_wrong
        assert not verdict.success

    def test_things_in_any_place_are_right_where_no_place_was_asked_for(self):
        goal = Goal(contents=(SUN, CUP), background="night")
        assert judge(render(Scene.of({3: CUP, 7: SUN}, "night")), goal).success
        assert not judge(render(Scene.of({3: CUP, 7: CUP}, "night")), goal).success

    def test_a_blank_picture_satisfies_nothing(self):
        blank = Image.new("RGB", (96, 96), "white")
        assert not judge(blank, Goal(scenes=(BEFORE,))).success
