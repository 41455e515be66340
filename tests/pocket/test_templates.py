from __future__ import annotations

import pytest

from interloom.pocket.scene import Scene, Sprite
from interloom.pocket.templates import carry_out, fill


def test_slots_are_filled_and_orange_gets_its_article():
    slots = {"colour": "orange", "kind": "cup"}
    assert fill("draw a {colour} {kind}", slots) == "draw an orange cup"
    assert fill("a {kind} of {colour}", slots) == "a cup of orange"
    with pytest.raises(KeyError, match="place"):
        fill("at the {place}", slots)


def test_sentences_are_carried_out_in_order():
    text = "add a red sun at the top left; make the red sun at the top left blue"
    scene, edits = carry_out(text, Scene())
    assert scene == Scene.of({0: Sprite("blue", "sun")})
    assert [edit.operation for edit in edits] == ["add", "recolour"]
    with pytest.raises(ValueError):
        carry_out("make it nicer", scene)
    with pytest.raises(ValueError):
        carry_out("remove the red sun at the top left", scene)
