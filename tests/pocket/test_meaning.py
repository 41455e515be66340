from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pocket.strategies import edits_of_scenes

from interloom.pocket.knowledge import procedures, reasoning_rules, riddles
from interloom.pocket.language import MeaningError, describe_edit, describe_scene
from interloom.pocket.meaning import pose_riddle, procedure_steps, understand
from interloom.pocket.procedures import instantiate
from interloom.pocket.reasoning import example_scene, rule_instructions, rule_result
from interloom.pocket.scene import OPERATIONS, Scene, Sprite, apply, random_edit


@pytest.mark.parametrize("riddle", riddles(), ids=lambda riddle: riddle.id)
def test_a_riddle_in_any_sentence_means_its_answer(riddle):
    rng = random.Random(riddle.id)
    other = Sprite("red", "cup") if str(riddle.answer) != "red cup" else Sprite("blue", "cup")
    scene = Scene.of({0: riddle.answer, 5: other})
    for phrase in riddle.phrases:
        asked = pose_riddle(describe_scene(scene), riddle, phrase)
        understood = understand(asked)
        assert understood.goal.satisfied(scene)
        assert phrase in understood.recall and str(riddle.answer) in understood.recall
        for operation in OPERATIONS:
            edit = random_edit(rng, scene, operation)
            assert edit is not None
            try:
                asked = pose_riddle(describe_edit(edit, scene), riddle, phrase)
            except MeaningError:
                continue  # the edit does not speak of the answer
            assert understand(asked, scene).goal.satisfied(apply(scene, edit))


@pytest.mark.parametrize("rule", reasoning_rules(), ids=lambda rule: rule.id)
def test_a_reasoning_instruction_means_its_result(rule):
    rng = random.Random(rule.id)
    for _ in range(3):
        scene, cell = example_scene(rule, rng)
        expected, _ = rule_result(rule, scene, cell)
        for instruction in rule_instructions(rule, scene, cell):
            assert understand(instruction, scene).goal.satisfied(expected)


@pytest.mark.parametrize("procedure", procedures(), ids=lambda procedure: procedure.id)
def test_a_request_finds_its_procedure(procedure):
    instance = instantiate(procedure, random.Random(procedure.id))
    for request in instance.requests:
        known = procedure_steps(request)
        assert known is not None and known.procedure is procedure
    full = procedure_steps(instance.requests[0])
    assert full is not None
    assert full.done(None) == 0
    assert full.done(full.steps[0].scene) >= 1


@settings(max_examples=50)
@given(edits_of_scenes(), st.integers(0, 2**32))
def test_plain_wordings_need_no_knowledge(case, seed):
    scene, edit = case
    understood = understand(describe_edit(edit, scene, "paraphrased", random.Random(seed)), scene)
    assert understood.recall == ""
    assert understood.goal.satisfied(apply(scene, edit))


def test_nonsense_is_refused():
    with pytest.raises(MeaningError):
        understand("make the picture nicer")
