from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import study_project

from interloom.errors import InterloomError
from interloom.study.lab import Lab
from interloom.study.tasks import is_done, run_all


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return study_project.make(tmp_path / "project")


def kinds(lab: Lab) -> list[str]:
    return sorted(folder.relative_to(lab.out).parts[-2] for folder in lab.tasks)


def test_variants_share_all_that_their_change_does_not_reach(root: Path, tmp_path: Path):
    lab = Lab(root, tmp_path / "study")
    full, other = lab.params("full", ()), lab.params("other", ("grpo_critic.alpha=1",))
    lab.stage(full, "grpo-critic")
    assert kinds(lab) == [
        "critic-data", "grpo-critic", "planner-data", "prompts", "sft-critic", "trajectories",
        "validate",
    ]  # fmt: skip
    lab.stage(other, "grpo-critic")
    assert kinds(lab).count("grpo-critic") == 2 and len(lab.tasks) == 8
    lab.stage(lab.params("data", ("critic_data.filter=false",)), "sft-critic")
    assert kinds(lab).count("critic-data") == 2 and kinds(lab).count("trajectories") == 1


def test_a_folder_is_found_again_and_is_another_for_other_inputs(root: Path, tmp_path: Path):
    def folder(*changes: str) -> Path:
        lab = Lab(root, tmp_path / "study")
        return lab.stage(lab.params("p", changes), "sft-critic").folder

    first = folder()
    assert folder() == first
    assert folder("tracking.enabled=false") == first  # no stage reads it
    assert len({first, folder("seed=8"), folder("prompts.count=9")}) == 3
    (root / "data/vlm/weights").write_text("another")
    assert folder() != first


def test_a_cell_waits_for_its_agents_and_for_the_cell_it_starts_from(root: Path, tmp_path: Path):
    lab = Lab(root, tmp_path / "study")
    params = lab.params("p", ())
    first = lab.cell(params, "ueval", "planner-sft", "planner-sft")
    second = lab.cell(params, "ueval", "full-rl", "full-rl", start=first)
    needed = {need.relative_to(lab.out).parts[-2] for need in second.needs}
    assert needed == {"sft-planner", "grpo-critic", "planner-sft"}
    assert list(lab.tasks).index(first.folder) < list(lab.tasks).index(second.folder)
    fewer = lab.params("fewer", ("evaluate.max_attempts=1",))
    third = lab.cell(fewer, "ueval", "full-rl", "t-max-1", start=second)
    assert second.folder in third.needs and kinds(lab).count("grpo-critic") == 1
    assert lab.cell(params, "ueval", "generator", "generator").needs == ()


def test_a_stage_runs_in_a_folder_of_its_own(root: Path, tmp_path: Path):
    lab = Lab(root, tmp_path / "study")
    params = lab.params("p", ("prompts.count=12", "seed=3"))
    task = lab.stage(params, "prompts")
    run_all(list(lab.tasks.values()), 1, lambda text: None)
    assert pq.read_metadata(task.folder / "outputs/prompts.parquet").num_rows == 12
    assert (task.folder / "data").resolve() == (root / "data").resolve()
    assert is_done(task.folder) and not list((task.folder / ".interloom/work/prompts").glob("*"))


def test_an_unknown_param_is_refused(root: Path, tmp_path: Path):
    with pytest.raises(InterloomError, match="KEY=VALUE"):
        Lab(root, tmp_path / "study").params("p", ("prompts.cuont=1",))
