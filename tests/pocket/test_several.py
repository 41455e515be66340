from __future__ import annotations

import random

import pytest

from interloom.pocket.language import MeaningError
from interloom.pocket.scene import Scene, Sprite, random_scene
from interloom.pocket.several import describe_combination, understand_all

SUN, CUP = Sprite("red", "sun"), Sprite("blue", "cup")
FIRST, SECOND = Scene.of({0: SUN}, "night"), Scene.of({4: CUP})


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("add the red sun of picture 1 to picture 2 at the bottom left", {4: CUP, 6: SUN}),
        ("put the things of picture 1 into the empty places of picture 2", {0: SUN, 4: CUP}),
        ("Give picture 2 the background of picture 1.", {4: CUP}),
        ("remove the blue cup at the center", {}),
    ],
)
def test_the_last_picture_is_edited(text, after):
    goal = understand_all(text, [FIRST, SECOND]).goal
    sky = "night" if "background" in text else "day"
    assert goal.before == SECOND and goal.scenes == (Scene.of(after, sky),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("add the red sun of picture 3 to picture 2 at the center", "no picture 3 among 2"),
        ("add the blue cup of picture 1 to picture 2 at the top left", "has no blue cup"),
        ("add the red sun of picture 1 to picture 2 at the center", "is not empty"),
    ],
)
def test_what_does_not_fit_is_named(text, said):
    with pytest.raises(MeaningError, match=said):
        understand_all(text, [FIRST, SECOND])


@pytest.mark.parametrize("kind", ["subject", "background", "merge"])
def test_every_combination_is_understood_and_changes_something(kind):
    rng = random.Random(3)
    made = 0
    for _ in range(60):
        scenes = [random_scene(rng, rng.randint(0, 4)) for _ in range(2)]
        text = describe_combination(kind, *scenes, rng)
        if text is not None:
            made += 1
            goal = understand_all(text, scenes).goal
            assert goal.scenes[0] != scenes[1] and goal.before == scenes[1]
    assert made > 10


def test_without_pictures_the_canvas_is_blank():
    assert understand_all("a red sun at the center", []).goal.before is None
