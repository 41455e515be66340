from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pocket.strategies import edits_of_scenes, scenes

from interloom.pocket.language import (
    CORRECTION_STYLES,
    MeaningError,
    correct,
    describe_edit,
    describe_scene,
    parse,
    parse_canonical_edit,
    parse_canonical_scene,
    phrasings,
)
from interloom.pocket.scene import OPERATIONS, Scene, Sprite, apply

FORMS = ("canonical", "paraphrased", "vague", "state")


@given(edits_of_scenes(), st.sampled_from((*FORMS, "usual")), st.integers(0, 2**32))
def test_every_form_of_an_edit_parses_back_to_its_meaning(case, form, seed):
    scene, edit = case
    goal = parse(describe_edit(edit, scene, form, random.Random(seed)), scene)
    assert goal.satisfied(apply(scene, edit))
    if form != "vague":
        assert goal.scenes == (apply(scene, edit),)


@given(edits_of_scenes(), st.sampled_from(CORRECTION_STYLES))
def test_every_correction_means_the_edit(case, style):
    scene, edit = case
    assert parse(correct(edit, scene, style), scene).scenes == (apply(scene, edit),)


@given(scenes, st.sampled_from(FORMS), st.integers(0, 2**32))
def test_every_form_of_a_scene_parses_back(scene, form, seed):
    assert parse(describe_scene(scene, form, random.Random(seed))).satisfied(scene)


@given(scenes)
def test_canonical_captions_round_trip(scene):
    assert parse_canonical_scene(describe_scene(scene)) == scene


@given(edits_of_scenes())
def test_canonical_edits_round_trip(case):
    scene, edit = case
    assert apply(scene, parse_canonical_edit(describe_edit(edit, scene), scene)) == apply(
        scene, edit
    )


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_wording_is_tried(operation):
    wordings = phrasings()["edits"][operation]
    assert len(wordings["paraphrased"]) >= 5
    assert len(set(wordings["paraphrased"])) == len(wordings["paraphrased"])


@pytest.mark.parametrize(
    "text",
    [
        "make everything nicer",
        "remove the red sun at the center",
        "add a pink cup at the top left",
        "a red sun at the top left, a blue cup at the top left",
        "",
    ],
)
def test_what_means_nothing_here_is_refused(text):
    with pytest.raises(MeaningError):
        parse(text, Scene.of({0: Sprite("red", "sun")}))
