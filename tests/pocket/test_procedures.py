from __future__ import annotations

import random
from itertools import product

import pytest
from pocket.strategies import NATURAL

from interloom.pocket.knowledge import Procedure, procedures
from interloom.pocket.procedures import instantiate
from interloom.pocket.scene import Scene, apply


class _Choices(random.Random):
    """Gives the slots the values of one combination, in order."""

    def __init__(self, values: tuple[str, ...]) -> None:
        super().__init__(0)
        self.values = iter(values)

    def choice(self, seq):
        value = next(self.values)
        assert value in seq
        return value


@pytest.mark.parametrize("procedure", procedures(), ids=lambda p: p.id)
def test_procedure_runs_from_the_empty_scene_with_all_slot_values(procedure: Procedure):
    assert 3 <= len(procedure.requests) <= 4 and 2 <= len(procedure.steps) <= 8
    assert all(step.scene is None for step in procedure.steps[1:])
    for values in product(*(values for _, values in procedure.slots)):
        instance = instantiate(procedure, _Choices(values))
        scene = Scene()
        for step in instance.steps:
            before = scene
            for edit in step.edits:
                scene = apply(scene, edit)
            assert scene == step.scene != before and scene.count <= 7
            for text in (
                step.name,
                step.instruction,
                step.auxiliary_text or "x",
                *instance.requests,
            ):
                assert NATURAL.fullmatch(text) and " a orange" not in text, text


def test_instances_are_seeded():
    procedure = procedures()[0]
    assert instantiate(procedure, random.Random(1)) == instantiate(procedure, random.Random(1))
