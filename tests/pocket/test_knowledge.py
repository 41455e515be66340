from __future__ import annotations

import re
from collections import Counter

import pytest
from pocket.strategies import NATURAL

from interloom.pocket.knowledge import (
    MAIN_CATEGORIES,
    RISE,
    WISE,
    procedures,
    reasoning_rules,
    riddles,
    split,
)
from interloom.pocket.scene import COLOURS, KINDS, SPRITES

ITEMS = (*riddles(), *reasoning_rules(), *procedures())


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


def test_requests_are_unique_and_slots_are_used():
    requests = [request for procedure in procedures() for request in procedure.requests]
    assert len(set(requests)) == len(requests)
    for procedure in procedures():
        texts = " ".join(step.edit or step.scene or "" for step in procedure.steps)
        assert all(f"{{{name}}}" in texts for name, _ in procedure.slots), procedure.id


def test_many_procedures_are_long():
    assert len(procedures()) >= 48
    assert sum(len(procedure.steps) >= 5 for procedure in procedures()) >= 15
