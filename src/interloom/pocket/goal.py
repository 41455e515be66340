"""What a request wants to see: one scene, any of several, or some things wherever they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from interloom.pocket.scene import CELLS, Scene, Sprite


@dataclass(frozen=True)
class Goal:
    """The pictures that count as right.

    Either ``scenes`` (each of them is right), or ``contents`` (these sprites, no others, in any
    cells, under ``background``). ``before`` is the picture that was edited, if any.
    """

    scenes: tuple[Scene, ...] = ()
    contents: tuple[Sprite, ...] | None = None
    background: str = "day"
    before: Scene | None = None

    def __post_init__(self) -> None:
        assert bool(self.scenes) != (self.contents is not None), "scenes or contents"

    def satisfied(self, scene: Scene) -> bool:
        return self.nearest(scene) == scene

    def nearest(self, seen: Scene) -> Scene:
        """The acceptable scene that differs least from the one seen.

        With ``contents`` the things already there stay where they are, and what is missing goes to
        the cells whose sprite is not wanted, then to empty ones.
        """
        if self.contents is None:
            changed = [
                (len(scene.difference(seen)) + (scene.background != seen.background), i)
                for i, scene in enumerate(self.scenes)
            ]
            return self.scenes[min(changed)[1]]
        missing = Counter(self.contents)
        cells: list[Sprite | None] = [None] * CELLS
        for cell, sprite in seen.sprites():
            if missing[sprite] > 0:
                cells[cell] = sprite
                missing[sprite] -= 1
        free = [cell for cell in range(CELLS) if cells[cell] is None]
        free.sort(key=lambda cell: (seen.cells[cell] is None, cell))
        for cell, sprite in zip(free, sorted(missing.elements()), strict=False):
            cells[cell] = sprite
        return Scene(tuple(cells), self.background)
