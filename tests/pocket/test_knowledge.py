from __future__ import annotations

import random
import re
from collections import Counter
from itertools import product

import pytest

from interloom.pocket import knowledge
from interloom.pocket.knowledge import (
    MAIN_CATEGORIES,
    RISE,
    WISE,
    Procedure,
    ReasoningRule,
    RuleError,
    applicable,
    example_scene,
    instantiate,
    places,
    procedures,
    reasoning_rules,
    riddles,
    rule_instructions,
    rule_result,
    split,
)
from interloom.pocket.scene import COLOURS, KINDS, POSITIONS, SPRITES, Scene, Sprite, apply

ITEMS = (*riddles(), *reasoning_rules(), *procedures())
NATURAL = re.compile(r"[a-z0-9 ,:]+")


def rule(identifier: str) -> ReasoningRule:
    return next(rule for rule in reasoning_rules() if rule.id == identifier)


def test_ids_are_unique_and_begin_with_their_category():
    ids = [item.id for item in ITEMS]
    assert len(set(ids)) == len(ids)
    assert all(item.id.startswith(f"{item.category}-") for item in ITEMS)


@pytest.mark.parametrize(
    ("bank", "categories", "least"),
    [(riddles, WISE, 24), (reasoning_rules, RISE, 20), (procedures, MAIN_CATEGORIES, 5)],
)
def test_every_category_is_well_filled_on_both_sides(bank, categories, least):
    evaluation = Counter(item.category for item in bank("evaluation"))
    whole = evaluation + Counter(item.category for item in bank("train"))
    assert whole == Counter(item.category for item in bank())
    assert set(whole) == set(categories) and min(whole.values()) >= least
    assert min(evaluation.values()) >= 4
    shares = [evaluation[category] / whole[category] for category in categories]
    assert all(0.24 <= share <= 0.41 for share in shares), shares


def test_splits_are_disjoint_and_stable():
    train = {item.id for bank in (riddles, reasoning_rules, procedures) for item in bank("train")}
    evaluation = {item.id for item in ITEMS} - train
    assert all(split(identifier) == "train" for identifier in train)
    assert all(split(identifier) == "evaluation" for identifier in evaluation)
    assert split("culture-christmas") == "train" and split("temporal-sprout-tree") == "evaluation"
    with pytest.raises(ValueError, match="nonsense"):
        split("nonsense")


# ---------------------------------------------------------------------------------- riddles


def test_riddle_phrases_are_unique_short_and_plain():
    phrases = [phrase for riddle in riddles() for phrase in riddle.phrases]
    assert len(set(phrases)) == len(phrases)
    assert all(re.fullmatch(r"[a-z0-9 ]+", p) and len(p.split()) <= 12 for p in phrases)
    assert all(2 <= len(riddle.paraphrases) <= 3 for riddle in riddles())


@pytest.mark.parametrize("riddle", riddles(), ids=lambda r: r.id)
def test_riddle_states_its_answer_in_the_fact_only(riddle):
    assert riddle.answer in SPRITES
    colour, kind = riddle.answer
    for phrase in riddle.phrases:
        assert kind not in phrase and colour not in phrase.split()
    assert {colour, kind} <= set(riddle.fact.split())
    assert NATURAL.fullmatch(riddle.fact)


def test_answers_are_spread_over_kinds_and_colours():
    answers = Counter(riddle.answer for riddle in riddles())
    assert max(answers.values()) <= 6
    assert {sprite.kind for sprite in answers} == set(KINDS)
    assert {sprite.colour for sprite in answers} == set(COLOURS)


def test_vocabularies_are_small():
    texts = {
        "riddles": [t for r in riddles() for t in (*r.phrases, r.fact)],
        "rules": [t for r in reasoning_rules() for t in (*r.instruction, r.auxiliary_text)],
        "procedures": [t for p in procedures() for t in p.requests]
        + [
            f"{step.name} {step.instruction} {step.auxiliary_text or ''}"
            for procedure in procedures()
            for step in procedure.steps
        ],
    }
    for name, bank in texts.items():
        words = set(re.findall(r"[a-z]+", re.sub(r"\{\w+\}", "", " ".join(bank))))
        assert len(words) <= 950, (name, len(words))


# ---------------------------------------------------------------------------------- rules


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


# ---------------------------------------------------------------------------------- procedures


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


def test_requests_are_unique_and_slots_are_used():
    requests = [request for procedure in procedures() for request in procedure.requests]
    assert len(set(requests)) == len(requests)
    for procedure in procedures():
        texts = " ".join(step.edit or step.scene or "" for step in procedure.steps)
        assert all(f"{{{name}}}" in texts for name, _ in procedure.slots), procedure.id


def test_many_procedures_are_long():
    assert len(procedures()) >= 48
    assert sum(len(procedure.steps) >= 5 for procedure in procedures()) >= 15


def test_instances_are_seeded():
    procedure = procedures()[0]
    assert instantiate(procedure, random.Random(1)) == instantiate(procedure, random.Random(1))


def test_module_examples():
    import doctest

    assert doctest.testmod(knowledge).failed == 0
