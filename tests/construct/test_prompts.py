from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from interloom.backends.pocket import PocketTeacher, on_evaluation_side
from interloom.construct import pocket_prompts, prompts, store
from interloom.construct.prompts import quotas
from interloom.dialogue import plan_faults
from interloom.errors import InterloomError
from interloom.pocket import knowledge
from interloom.records import Plan

COUNT = 120


@pytest.fixture(scope="module")
def made() -> list[pocket_prompts.Draft]:
    return prompts.drafts(pocket_prompts.SHARES, COUNT, 3, on_evaluation_side, Counter())


def test_requests_are_unique_and_cover_the_categories(made: list[pocket_prompts.Draft]):
    assert len(made) == COUNT
    assert len({(d.text, d.pictures) for d in made}) == COUNT
    assert {d.category for d in made} == set(knowledge.MAIN_CATEGORIES)
    assert {d.kind for d in made} == {"create", "continuation", "text_response"}
    assert len({(d.category, d.subcategory) for d in made}) > 25


def test_same_seed_same_requests_and_another_seed_others(made: list[pocket_prompts.Draft]):
    held_out = on_evaluation_side
    again = prompts.drafts(pocket_prompts.SHARES, COUNT, 3, held_out, Counter())
    other = prompts.drafts(pocket_prompts.SHARES, 20, 4, held_out, Counter())
    assert again == made
    assert not {d.text for d in other if not d.pictures} & {d.text for d in made}


def test_nothing_is_of_the_evaluation_side(made: list[pocket_prompts.Draft]):
    for draft in made:
        if draft.kind != "text_response":
            before = draft.pictures[-1] if draft.pictures else None
            assert not on_evaluation_side(draft.text, before), draft.text


def test_the_teacher_plans_every_request(made: list[pocket_prompts.Draft]):
    requests = [store.request_from(row) for row in prompts.rows(made)]
    for request, plan in zip(requests, PocketTeacher().plan(requests), strict=True):
        assert isinstance(plan, Plan), (request.text, plan)
        assert plan_faults(plan, request) == []


def test_rows_round_trip(made: list[pocket_prompts.Draft], tmp_path: Path):
    path = tmp_path / "prompts.parquet"
    store.write_table(path, prompts.rows(made), prompts.prompt_schema(), {"format": "prompts/1"})
    read = list(store.read_rows(path))
    assert [row["id"] for row in read] == [f"p{i:05d}" for i in range(COUNT)]
    assert [row["text"] for row in read] == [draft.text for draft in made]
    assert all(isinstance(json.loads(row["slots"]), dict) for row in read)


def test_exhausted_writer_is_named():
    def parrot(rng: random.Random) -> pocket_prompts.Draft:
        return pocket_prompts.Draft("draw a red sun", "art", "x", "t", {})

    lost: Counter[str] = Counter()
    with pytest.raises(InterloomError, match=r"prompts\.count = 3: only 1 .* 'parrot'"):
        prompts.drafts([(parrot, 1.0)], 3, 0, lambda text, picture: False, lost)
    assert lost["duplicate"] > 100


def test_quotas_add_up():
    for count in range(50):
        assert sum(quotas([0.22, 0.08, 0.12, 0.24, 0.34], count)) == count
