"""Instructions about several pictures, which are counted from 1; the last one is edited."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from interloom.pocket.goal import Goal
from interloom.pocket.language import MeaningError, normalise
from interloom.pocket.meaning import Understood, understand
from interloom.pocket.scene import COLOURS, KINDS, POSITIONS, Scene, Sprite

Combination = Literal["subject", "background", "merge"]

_SPRITE = rf"((?:{'|'.join(COLOURS)}) (?:{'|'.join(KINDS)}))"
_POSITION = "|".join(sorted(POSITIONS, key=len, reverse=True))
_SUBJECT = re.compile(rf"add the {_SPRITE} of picture (\d) to picture (\d) at the ({_POSITION})")
_BACKGROUND = re.compile(r"give picture (\d) the background of picture (\d)")
_MERGE = re.compile(r"put the things of picture (\d) into the empty places of picture (\d)")


def understand_all(text: str, scenes: Sequence[Scene]) -> Understood:
    """What a text wants of the pictures that come with it; without any, of a blank canvas.

    Raises:
        MeaningError: nothing known is said, or it does not fit the pictures.
    """
    if len(scenes) > 1:
        after = _combined(normalise(text), scenes)
        if after is not None:
            return Understood(Goal(scenes=(after,), before=scenes[-1]))
    return understand(text, scenes[-1] if scenes else None)


def _combined(text: str, scenes: Sequence[Scene]) -> Scene | None:
    def scene(number: str) -> Scene:
        if not 1 <= int(number) <= len(scenes):
            raise MeaningError(f"there is no picture {number} among {len(scenes)}")
        return scenes[int(number) - 1]

    if match := _SUBJECT.fullmatch(text):
        name, source, target, place = match.groups()
        sprite, cell = Sprite(*name.split()), POSITIONS.index(place)
        if sprite not in scene(source).cells:
            raise MeaningError(f"picture {source} has no {sprite}")
        if scene(target).cells[cell] is not None:
            raise MeaningError(f"the {place} of picture {target} is not empty")
        return scene(target).with_cell(cell, sprite)
    if match := _BACKGROUND.fullmatch(text):
        return replace(scene(match[1]), background=scene(match[2]).background)
    if match := _MERGE.fullmatch(text):
        given, kept = scene(match[1]), scene(match[2])
        cells = tuple(b or a for a, b in zip(given.cells, kept.cells, strict=True))
        return Scene(cells, kept.background)
    return None


def describe_combination(
    kind: Combination, first: Scene, second: Scene, rng: random.Random
) -> str | None:
    """An instruction that combines two pictures into the second; ``None`` if they do not allow it
    or it would change nothing."""
    if kind == "subject":
        things, free = [s for _, s in first.sprites()], second.empty()
        if not things or not free:
            return None
        place = POSITIONS[rng.choice(free)]
        return f"add the {rng.choice(things)} of picture 1 to picture 2 at the {place}"
    if kind == "background":
        if first.background == second.background:
            return None
        return "give picture 2 the background of picture 1"
    if not any(second.cells[cell] is None for cell, _ in first.sprites()):
        return None
    return "put the things of picture 1 into the empty places of picture 2"
