from __future__ import annotations

import doctest
import random
from itertools import product

import pytest
from pocket.strategies import NATURAL

from interloom.pocket import reasoning
from interloom.pocket.knowledge import ReasoningRule, reasoning_rules
from interloom.pocket.reasoning import (
    RuleError,
    applicable,
    example_scene,
    places,
    rule_instructions,
    rule_result,
)
from interloom.pocket.scene import POSITIONS, Scene, Sprite, apply


def rule(identifier: str) -> ReasoningRule:
    return next(rule for rule in reasoning_rules() if rule.id == identifier)


@pytest.mark.parametrize("rule", reasoning_rules(), ids=lambda r: r.id)
def test_rule_applies_to_random_scenes_and_changes_them(rule):
    rng = random.Random(rule.id)
    assert 2 <= len(rule.instruction) <= 4 and bool(rule.edits) != bool(rule.scene)
    for _ in range(5):
        scene, cell = example_scene(rule, rng, count=rng.randint(1, 4))
        after, edits = rule_result(rule, scene, cell)
        assert after != scene and cell in applicable(rule, scene)
        replayed = scene
        for edit in edits:
            replayed = apply(replayed, edit)
        assert replayed == after
        for text in rule_instructions(rule, scene, cell):
            assert NATURAL.fullmatch(text), text
            assert cell is None or POSITIONS[cell] in text


def test_rules_with_the_same_wording_never_compete():
    """One instruction about one scene has one result, whichever rule it came from."""
    by_wording: dict[str, list[ReasoningRule]] = {}
    for one in reasoning_rules():
        for text in one.instruction:
            by_wording.setdefault(text, []).append(one)
    rng = random.Random(0)
    for rules in by_wording.values():
        for one, other in product(rules, rules):
            scene, cell = example_scene(one, rng)
            if cell in applicable(other, scene):
                assert rule_result(one, scene, cell)[0] == rule_result(other, scene, cell)[0]


def test_rotate_is_a_quarter_turn_clockwise():
    scene = Scene.of({0: Sprite("red", "sun"), 1: Sprite("blue", "cup")})
    turned, edits = rule_result(rule("spatial-rotate"), scene)
    assert dict(turned.sprites()) == {2: Sprite("red", "sun"), 5: Sprite("blue", "cup")}
    assert edits
    for _ in range(3):
        turned, _edits = rule_result(rule("spatial-rotate"), turned)
    assert turned == scene


def test_half_turn_is_mirror_and_flip():
    scene = Scene.of({0: Sprite("red", "sun"), 5: Sprite("blue", "cup")})
    half = rule_result(rule("spatial-half-turn"), scene)[0]
    mirrored = rule_result(rule("spatial-mirror"), scene)[0]
    assert rule_result(rule("spatial-flip"), mirrored)[0] == half


def test_colour_wheel_and_article():
    scene = Scene.of({4: Sprite("red", "circle")})
    next_colour = rule_result(rule("logical-next-colour"), scene, 4)[0]
    assert next_colour.cells[4] == Sprite("orange", "circle")
    shape = rule_result(rule("logical-next-shape"), next_colour, 4)[0]
    assert shape.cells[4] == Sprite("orange", "triangle")


def test_a_rule_that_does_not_fit_says_why():
    sprout = Scene.of({4: Sprite("red", "sprout")})
    with pytest.raises(RuleError, match="green sprout"):
        rule_result(rule("temporal-sprout-tree"), sprout, 4)
    top = Scene.of({0: Sprite("red", "circle")})
    with pytest.raises(RuleError, match="above"):
        rule_result(rule("causal-balloon"), top, 0)
    with pytest.raises(RuleError, match="changes nothing"):
        rule_result(rule("spatial-mirror"), sprout)


def test_places_stay_on_the_grid():
    assert places(4)["above"] == 1 and "clockwise" not in places(4)
    assert places(2)["clockwise"] == 5 and places(2)["counterclockwise"] == 1
    assert all(
        0 <= place < 9 and place != cell for cell in range(9) for place in places(cell).values()
    )


def test_module_examples():
    assert doctest.testmod(reasoning).failed == 0
