from __future__ import annotations

import pytest

from interloom.pocket.language import MeaningError
from interloom.pocket.references import mentioned, refer, resolve
from interloom.pocket.scene import Scene, Sprite

SUN, CUP = Scene.of({0: Sprite("red", "sun")}), Scene.of({4: Sprite("orange", "cup")})


def test_references_become_what_the_pictures_show():
    text = f"show {refer(2)} at the center, {refer(1)} at the top left"
    assert mentioned(text) == [2, 1]
    assert (
        resolve(text, [SUN, CUP]) == "show an orange cup at the center, a red sun at the top left"
    )
    assert resolve("add a red sun at the center", []) == "add a red sun at the center"


def test_what_cannot_be_seen_is_refused():
    with pytest.raises(MeaningError, match="there are 1 pictures"):
        resolve(f"show {refer(2)}", [SUN])
    with pytest.raises(MeaningError, match="shows 0 things"):
        resolve(f"show {refer(1)}", [Scene()])
