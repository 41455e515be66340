"""The pocket editions: their items, their records, and what an empty answer gets.

That all items can be solved, are held out, and are not solved by a blank picture is proved by
``validate`` (``test_validation.py``).
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from interloom import images
from interloom.backends.pocket import scene_of
from interloom.benchmarks import (
    geneval,
    kris,
    omnicontext,
    pocket_comm,
    pocket_geneval,
    pocket_kris,
    pocket_omnicontext,
    pocket_rise,
    pocket_ueval,
    pocket_wise,
    ueval,
)
from interloom.benchmarks.editions import POCKET
from interloom.benchmarks.graded import Graded
from interloom.pocket.knowledge import riddles
from interloom.pocket.meaning import procedure_steps
from interloom.pocket.references import mentioned
from interloom.pocket.render import render
from interloom.pocket.scene import scene_split
from interloom.records import Trajectory

COUNT, SEED = 48, 7
EDITIONS = tuple(POCKET.values())
each_edition = pytest.mark.parametrize("edition", EDITIONS, ids=lambda edition: edition.NAME)


@each_edition
def test_a_system_that_gave_nothing_scores_zero_and_is_not_unjudged(
    edition: ModuleType, tmp_path: Path
):
    requests = edition.requests(COUNT, SEED)
    edition.write(tmp_path, [Trajectory(request=r, plan=None) for r in requests], with_text=True)
    graded = edition.grade(tmp_path, COUNT, SEED)
    assert (graded.overall.value, graded.unjudged) == (0, 0)


@each_edition
def test_items_repeat_for_a_seed_and_differ_between_seeds(edition: ModuleType):
    texts = [request.text for request in edition.requests(COUNT, SEED)]
    edition.items.cache_clear()
    assert [request.text for request in edition.requests(COUNT, SEED)] == texts
    assert [request.text for request in edition.requests(COUNT, SEED + 1)] != texts
    requests = edition.requests(COUNT, SEED)
    assert len(requests) == len({r.id for r in requests}) == len(texts) >= COUNT - 8


def test_items_stand_on_the_evaluation_side():
    evaluation = {phrase for riddle in riddles("evaluation") for phrase in riddle.phrases}
    for made in pocket_wise.items(COUNT, SEED):
        assert any(phrase in made.item.prompt for phrase in evaluation)
        assert str(next(s for _, s in made.scene.sprites())) not in made.item.prompt
    for made in pocket_rise.items(COUNT, SEED):
        assert scene_split(made.before) == "evaluation"
        assert scene_of(made.item.image) == made.before
    for item in pocket_ueval.items(COUNT, SEED):
        known = procedure_steps(item.prompt)
        assert (known is not None) == (item.question_type == "procedure")


def test_every_category_is_there():
    assert {item.task for item in pocket_ueval.items(COUNT, SEED)} == set(ueval.TASKS)
    assert {made.item.tag for made in pocket_geneval.items(COUNT, SEED)} == set(geneval.TAGS)
    assert {made.item.type for made in pocket_kris.items(COUNT, SEED)} == set(kris.TYPES)
    tasks = {made.item.task for made in pocket_omnicontext.items(COUNT, SEED)}
    assert tasks == set(omnicontext.TASKS)
    assert {made.item.task for made in pocket_comm.items(COUNT, SEED)} == {"task3", "task4"}
    graded = {made.item.category for made in pocket_wise.items(COUNT, SEED)}
    assert graded == set(pocket_wise.wise.CATEGORIES)
    for made in pocket_wise.items(COUNT, SEED):
        assert pocket_wise.wise.category_of(made.item.prompt_id) == made.item.category


def test_pictures_given_show_what_is_asked_about():
    for made in pocket_omnicontext.items(16, SEED):
        numbers = mentioned(made.item.instruction)
        scenes = [scene_of(image) for image in made.item.images]
        assert all(scene is not None for scene in scenes)
        things = {str(sprite) for _, sprite in made.target.sprites()}
        for number in numbers:
            ((_, thing),) = scenes[number - 1].sprites()
            assert str(thing) in things
            assert str(thing) not in made.item.instruction, "one has to look"
        assert made.item.task.startswith("scene") == (len(scenes) > len(numbers))
    for made in pocket_kris.items(30, SEED):
        assert scene_of(made.item.images[-1]) == made.before
        assert made.item.reference is not None and scene_of(made.item.reference) == made.after


def test_comm_pays_for_each_figure_apart():
    made = next(m for m in pocket_comm.items(16, SEED) if m.item.task == "task4")
    pictures = tuple(images.to_png(render(step.scene)) for step in made.steps)
    told = " <IMAGE> ".join(pocket_comm.said(step) for step in made.steps) + " <IMAGE>"
    best = vars(pocket_comm.judge(pocket_comm.Answer(told, pictures), made))
    assert {value for value in best.values() if value is not None} == {10}
    silent = vars(pocket_comm.judge(pocket_comm.Answer("<IMAGE>" * len(pictures), pictures), made))
    assert [name for name in best if silent[name] != best[name]] == ["consistency"]
    short = vars(pocket_comm.judge(pocket_comm.Answer(told, pictures[:-1]), made))
    assert all(short[name] < 10 for name in ("style", "trend", "completeness", "relevance"))
    turned = vars(pocket_comm.judge(pocket_comm.Answer(told, pictures[::-1]), made))
    assert turned["completeness"] == 10 and turned["trend"] < 10 and turned["consistency"] < 10


def test_scores_of_different_protocols_are_never_compared():
    one = Graded("a/1", "j", {"x": 1.0}, {"x": ""}, {}, {}, 0.0)
    two = Graded("a/2", "j", {"x": 1.0}, {"x": ""}, {}, {}, 0.0)
    with pytest.raises(ValueError, match="not to be compared"):
        one.minus(two)


def test_a_cell_survives_its_file(tmp_path: Path):
    cell = Graded(
        "p", "j", {"x": 50.0, "y": 1.0}, {"x": "a", "y": "b"}, {"a": 2.0, "b": 1.0}, {}, 0.1
    )
    cell.save(tmp_path / "g.json")
    assert Graded.read(tmp_path / "g.json") == cell
