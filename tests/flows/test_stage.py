"""What the params file and the caller say of time and retries, stage by stage."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiny_project.project import Project, copy_project

from interloom.errors import InterloomError


@pytest.fixture
def limited(project_template: Path, tmp_path: Path) -> Path:
    project = copy_project(project_template, tmp_path / "project")
    single = {"evaluate": {"timeout_minutes": 5.0, "retries": 0}}
    project.set_params(
        orchestration={"timeout_minutes": 60.0, "retries": 1, "stages": single},
    )
    return project.root


def test_limits_of_single_stages(limited: Path) -> None:
    from flows.stage import Limits, make_plan

    plan = make_plan(limited)
    assert plan.limits("prompts") == Limits(3600, 1)
    assert plan.limits("evaluate") == Limits(300, 0)


def test_what_the_caller_says_holds_for_all(limited: Path) -> None:
    from flows.stage import Limits, make_plan

    plan = make_plan(limited, timeout_minutes=2, retries=3)
    assert plan.limits("prompts") == plan.limits("evaluate") == Limits(120, 3)
    assert make_plan(limited, retries=2).limits("evaluate") == Limits(300, 2)


def test_limits_of_a_stage_that_is_not_there(limited: Path) -> None:
    from flows.stage import make_plan

    text = (limited / "params.yaml").read_text().replace("evaluate:", "evalute:", 2)
    (limited / "params.yaml").write_text(text.replace("\nevalute:", "\nevaluate:"))
    with pytest.raises(InterloomError, match="no stage 'evalute'; stages: prompts, "):
        make_plan(limited)


def test_a_flow_alone_outside_of_a_project(tmp_path: Path) -> None:
    done = Project(tmp_path, {}).run(sys.executable, "-m", "flows.dataset", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"interloom: {tmp_path} is in no interloom project")
    assert "Traceback" not in done.stderr
