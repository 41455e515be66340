from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from sample_stories import picture

from interloom.adaptive.requests import (
    CATEGORIES,
    GROUPS,
    SUBCATEGORIES,
    pocket_prompts,
    read_prompts,
)
from interloom.backends.pocket import reading
from interloom.errors import InterloomError
from interloom.pocket.scene import scene_split
from interloom.pocket.several import understand_all

ROUND = sum(one.weight for one in SUBCATEGORIES)


@pytest.fixture(scope="module")
def prompts():
    return pocket_prompts(ROUND * 3, 3)


def test_21_sub_categories_in_six_groups():
    assert len(SUBCATEGORIES) == len(set(CATEGORIES)) == 21
    assert len(GROUPS) == 6


def test_requests_are_spread_by_weight_differ_and_are_of_the_training_side(prompts):
    wanted = {f"{one.group}/{one.name}": 3 * one.weight for one in SUBCATEGORIES}
    assert Counter(p.category for p in prompts) == wanted and set(wanted) == set(CATEGORIES)
    assert len({(p.instruction, p.references) for p in prompts}) == 3 * ROUND
    assert len({p.id for p in prompts}) == 3 * ROUND
    for prompt in prompts:
        scenes = [reading(data).best_guess for data in prompt.references]
        goal = understand_all(prompt.instruction, scenes).goal
        assert any(scene_split(scene) == "train" for scene in goal.scenes)
        assert goal.before is None or goal.nearest(goal.before) != goal.before
        assert len(prompt.references) == (2 if prompt.category.startswith("multi-image") else
                                          len(prompt.references[:1]))  # fmt: skip


def test_a_seed_gives_the_same_requests(prompts):
    assert pocket_prompts(21, 3) == prompts[:21]
    assert pocket_prompts(21, 4) != prompts[:21]


def test_requests_of_a_file(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(picture(1))
    lines = [{"instruction": "a boat"}, {"id": "x", "instruction": "b", "images": ["a.png"]}]
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    first, second = read_prompts(path)
    assert (first.id, second.id, second.references) == ("r/000000", "x", (picture(1),))
    path.write_text(json.dumps({"instruction": "a <evaluate>"}))
    with pytest.raises(InterloomError, match="record 0, field 'instruction'"):
        list(read_prompts(path))
    path.write_text(json.dumps({"instruction": "a", "images": ["b.png"]}))
    with pytest.raises(InterloomError, match=r"no image 'b\.png'"):
        list(read_prompts(path))
