"""Hypothesis strategies for scenes and edits, and the characters of the world's texts."""

from __future__ import annotations

import random
import re

from hypothesis import strategies as st

from interloom.pocket.scene import (
    BACKGROUNDS,
    CELLS,
    OPERATIONS,
    SPRITES,
    Edit,
    Scene,
    random_edit,
)

NATURAL = re.compile(r"[a-z0-9 ,:]+")

scenes = st.builds(
    Scene,
    cells=st.lists(st.none() | st.sampled_from(SPRITES), min_size=CELLS, max_size=CELLS).map(tuple),
    background=st.sampled_from(tuple(BACKGROUNDS)),
)


@st.composite
def edits_of_scenes(draw: st.DrawFn) -> tuple[Scene, Edit]:
    """A scene and an edit that it allows."""
    scene = draw(scenes)
    rng = random.Random(draw(st.integers(0, 2**32)))
    possible = [random_edit(rng, scene, operation) for operation in OPERATIONS]
    return scene, draw(st.sampled_from([edit for edit in possible if edit]))
