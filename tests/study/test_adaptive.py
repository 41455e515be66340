from __future__ import annotations

import random
from pathlib import Path

import pytest
import study_project
from sample_stories import direct, multi_step, reflection

from interloom import images
from interloom.adaptive import files
from interloom.benchmarks.graded import Graded
from interloom.pocket.meaning import understand
from interloom.pocket.render import render
from interloom.pocket.scene import Scene
from interloom.records import Attempt, Critique, Step, StepTrace, Thresholds, Trajectory
from interloom.settings.file import load_settings
from interloom.study import beside, report
from interloom.study.adaptive import (
    BUDGETS,
    GRADED,
    Plan,
    Study,
    same_steps,
    variants,
)
from interloom.study.adaptive_claims import findings, plot_budgets, plot_modes, tables
from interloom.study.beside import ATTEMPTS
from interloom.study.reasoning import Row, make_cases, write_rows

SCORES = {
    "sft": 60, "rl": 60, "direct-only": 30, "no-reflection": 50, "no-multi-step": 59.9,
    "full-loss": 55, "no-bonus": 61, "paper-bonus": 50, "no-step-reward": 55,
}  # fmt: skip
IMAGES = {"rl": 1, "no-bonus": 3}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study whose results are made up."""
    tmp_path = tmp_path_factory.mktemp("adaptive")
    root = study_project.make(tmp_path / "project")
    bonus = load_settings(root / "params.yaml").grpo_adaptive.bonus
    made = Study(root, tmp_path / "study", Plan((1, 2), variants(bonus), 16, 2, agents=True))
    rng = random.Random(0)
    for seed in (1, 2):
        data = made.lab.stage(made._params(seed, "full"), "adaptive-data").folder
        stories = [direct(), direct(), reflection(1), multi_step(2)]
        files.write_stories(stories, data / "outputs/adaptive-data/stories.parquet", {})
    made.lay_out()
    for (_, _, name), task in made.cells.items():
        items = {f"{i}": SCORES[name] + rng.gauss(0, 1) for i in range(16)}
        task.folder.mkdir(parents=True)
        Graded("p", "j", items, dict.fromkeys(items, ""), {}, {}, 0.0).save(task.folder / GRADED)
    for (_, name), task in made.told.items():
        rows = [
            Row(f"{n}/{i}", n, "direct" if n < 3 else "multi_step", True, rng.random() < 0.5, False,
                IMAGES.get(name, 2), 1, 1)
            for n in range(1, 7) for i in range(8)
        ]  # fmt: skip
        task.folder.mkdir(parents=True)
        write_rows(task.folder, dict.fromkeys(BUDGETS, rows))
    for task in made.beside.values():
        task.folder.mkdir(parents=True)
        rows = [Row("a", 1, "agents", True, True, False, 3, 0, 0)]
        write_rows(task.folder, dict.fromkeys(ATTEMPTS, rows))
    return made


def test_every_claim_gets_its_verdict(study: Study):
    verdicts = {claim.text: claim.verdict for claim in findings(study).claims}
    assert verdicts["1. all modes beat direct-only on kris"] == "shown"
    assert verdicts["1. all modes beat no-multi-step on omnicontext"] != "refuted"
    assert verdicts["2. RL takes at most 0.65 × the pictures"] == "shown"
    assert verdicts["2. RL loses at most 2 points on kris"] == "shown"
    assert verdicts["3. without the bonus 1.5 × the pictures"] == "shown"
    assert verdicts["3. without the step-wise reward kris is lower"] == "shown"
    assert verdicts["4. the model's own verdicts are right in 90 of 100 at least"] == "shown"


def test_tables_and_plots_are_written(study: Study, tmp_path: Path):
    found = findings(study)
    files_made = report.write("adaptive", "head", found, tmp_path)
    plot_modes(study, tmp_path / "modes.png")
    plot_budgets(study, tmp_path / "budgets.png")
    plots = [tmp_path / "modes.png", tmp_path / "budgets.png"]
    assert all(path.stat().st_size for path in [*files_made, *plots])
    said = tables(study)
    assert "| sft | 1 | 16 | 1.00 | 0.00 | 0.00 | 2.00 |" in said
    assert "| any | 1.00 |" in said
    assert "| 5 | 3.00 | 1.000 |" in said, "the agents' row"


def test_variants_share_the_data_and_all_but_one_share_the_first_training(study: Study):
    kinds = [folder.parent.name for folder in study.lab.tasks]
    assert kinds.count("adaptive-data") == 2
    assert kinds.count("sft-adaptive") == 2 * 5, "four ablations of SFT"
    assert kinds.count("grpo-adaptive") == 2 * 4


def test_fewer_modes_are_trained_for_as_many_steps(tmp_path: Path):
    stories = [direct(), direct(), direct(), reflection(1)]
    files.write_stories(stories, tmp_path / "stories.parquet", {})
    assert same_steps(3.0, tmp_path, ("reflection",)) == 12.0
    assert same_steps(3.0, tmp_path, ("direct", "reflection")) == 3.0


def test_agents_are_counted_by_all_their_pictures_and_judged_by_the_last():
    case = make_cases(1, 3)[0]
    request = beside._request(case)
    assert request.kind == "create" and request.text == case.prompt.instruction
    scene = understand(case.prompt.instruction).goal.scenes[0]
    step = Step(step_number=1, instruction="draw", prompt="draw")
    bad, good = (images.to_png(render(one)) for one in (Scene(), scene))
    refused = Critique(success=False, refine_prompt="again")
    passed = Critique(success=True, refine_prompt="")
    traces = (
        StepTrace(step=step, source=None, attempts=(
            Attempt(prompt="draw", seed=1, image=bad, critique=refused),
            Attempt(prompt="again", seed=2, image=good, critique=passed),
        )),
    )  # fmt: skip
    told = [Trajectory(request=request, plan=None, steps=traces)]
    lost = [Trajectory(request=request, plan=None)]
    strict = Thresholds(instruction=5, consistency=5, quality=3, knowledge=3)
    (row,), (none,) = (beside._rows([case], some, strict) for some in (told, lost))
    assert (row.success, row.images, row.valid) == (True, 2, True)
    assert (none.success, none.images, none.valid) == (False, 0, False)


def test_cases_grow_and_are_the_same_again():
    cases = make_cases(1, 3)
    assert [case.complexity for case in cases] == [n for n in range(1, 7) for _ in range(2)]
    assert [len(case.prompt.references) for case in cases] == [0, 1] * 6
    assert make_cases(1, 3) == cases
    for case in cases[1::2]:
        assert case.prompt.instruction.count(";") == case.complexity - 1
