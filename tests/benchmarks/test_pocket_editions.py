"""The three pocket editions: held out by construction, solvable by the oracle, not by a blank
picture."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from executor import Executor

from interloom import images, loop
from interloom.backends.pocket import PocketTeacher, scene_of
from interloom.benchmarks import pocket_rise, pocket_ueval, pocket_wise, ueval
from interloom.benchmarks.graded import Graded
from interloom.pocket.knowledge import riddles
from interloom.pocket.meaning import procedure_steps
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, scene_split
from interloom.records import Attempt, Plan, Request, Step, StepTrace, Trajectory

COUNT, SEED = 48, 7
EDITIONS = (pocket_ueval, pocket_wise, pocket_rise)
each_edition = pytest.mark.parametrize("edition", EDITIONS, ids=lambda edition: edition.NAME)


@each_edition
def test_the_oracle_solves_every_item(edition: ModuleType, tmp_path: Path):
    oracle = PocketTeacher()
    requests = edition.requests(COUNT, SEED)
    trajectories = loop.run(requests, oracle, Executor(), oracle, max_attempts=2, seed=SEED)
    edition.write(tmp_path, trajectories, with_text=True)
    graded = edition.grade(tmp_path, COUNT, SEED)
    assert [name for name, value in graded.items.items() if value < 100] == []
    assert graded.overall.value == pytest.approx(100) and graded.unjudged == 0
    assert len(graded.items) == len(requests) == COUNT


def blank(request: Request) -> Trajectory:
    step = Step(step_number=1, instruction="", prompt="x")
    attempt = Attempt(prompt="x", seed=0, image=images.to_png(render(Scene())))
    trace = StepTrace(step=step, source=None, attempts=(attempt,))
    return Trajectory(request=request, plan=Plan(steps=(step,)), steps=(trace,))


@each_edition
def test_a_blank_picture_solves_nothing(edition: ModuleType, tmp_path: Path):
    requests = edition.requests(COUNT, SEED)
    edition.write(tmp_path, [blank(request) for request in requests], with_text=True)
    graded = edition.grade(tmp_path, COUNT, SEED)
    # WISE pays 0.3 for realism and aesthetics of any clean picture.
    limit = 30 if edition is pocket_wise else 5
    assert max(graded.items.values()) <= limit + 1e-9


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
    assert len(edition.requests(COUNT, SEED)) == len({r.id for r in edition.requests(COUNT, SEED)})


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
    graded = {made.item.category for made in pocket_wise.items(COUNT, SEED)}
    assert graded == set(pocket_wise.wise.CATEGORIES)
    for made in pocket_wise.items(COUNT, SEED):
        assert pocket_wise.wise.category_of(made.item.prompt_id) == made.item.category


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
