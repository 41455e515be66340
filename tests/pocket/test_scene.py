from __future__ import annotations

import random

import pytest
from hypothesis import given
from pocket.strategies import edits_of_scenes, scenes

from interloom.pocket.scene import (
    COLOURS,
    KINDS,
    PICTORIAL_KINDS,
    Edit,
    EditError,
    Scene,
    Sprite,
    apply,
    edits_between,
    random_scene,
    scene_split,
)


def test_the_world_is_as_rich_as_promised():
    assert len(KINDS) >= 12
    assert 2 * len(PICTORIAL_KINDS) >= len(KINDS)
    assert len(COLOURS) >= 7


@given(edits_of_scenes())
def test_an_edit_changes_only_what_it_names(case):
    scene, edit = case
    after = apply(scene, edit)
    assert after != scene
    touched = {cell for cell in (edit.at, edit.to) if cell is not None}
    assert set(scene.difference(after)) <= touched
    assert (scene.background != after.background) == (edit.operation == "background")


@given(scenes, scenes)
def test_edits_between_lead_from_one_scene_to_the_other(before, after):
    scene = before
    for edit in edits_between(before, after):
        scene = apply(scene, edit)
    assert scene == after


@given(edits_of_scenes())
def test_one_edit_is_found_again_as_one_edit(case):
    scene, edit = case
    assert len(edits_between(scene, apply(scene, edit))) == 1


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (Edit("add", at=0, sprite=Sprite("red", "cup")), "a red sun is there"),
        (Edit("remove", at=1), "nothing is there"),
        (Edit("recolour", at=0, colour="red"), "already"),
        (Edit("move", at=0, to=4), "a blue cup is there"),
        (Edit("swap", at=0, to=1), "nothing is there"),
        (Edit("background", background="day"), "already"),
    ],
)
def test_an_impossible_edit_says_why(edit, reason):
    scene = Scene.of({0: Sprite("red", "sun"), 4: Sprite("blue", "cup")})
    with pytest.raises(EditError, match=reason):
        apply(scene, edit)


def test_one_tenth_of_the_scenes_is_held_out_and_backgrounds_do_not_matter():
    rng = random.Random(0)
    drawn = [random_scene(rng, 4) for _ in range(4000)]
    share = sum(scene_split(scene) == "evaluation" for scene in drawn) / len(drawn)
    assert 0.08 < share < 0.12
    for scene in drawn[:200]:
        assert len({scene_split(Scene(scene.cells, b)) for b in ("day", "dusk", "night")}) == 1
