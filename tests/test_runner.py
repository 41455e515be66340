from __future__ import annotations

import json

from tiny_project.project import Project


def test_repro_writes_everything_and_then_nothing(project: Project) -> None:
    project.repro()
    assert len(project.outputs()) == 6
    assert project.leftovers() == []
    second = project.repro()
    assert "Data and pipelines are up to date" in second.stdout
    assert "done in" not in second.stdout


def test_digests_are_those_of_dvc(project: Project) -> None:
    import yaml

    project.repro()
    lock = yaml.safe_load((project.root / "dvc.lock").read_text())
    theirs = {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}
    assert theirs == project.outputs()


def test_only_stages_whose_sections_changed_run_again(project: Project) -> None:
    project.repro()
    project.set_params(planner_data={"samples_per_trajectory": 9}, evaluate={"items": 9})
    assert "up to date" in project.repro().stdout
    project.set_params(trajectories={"shard_rows": 11})
    again = project.repro().stdout
    assert "'numbers' didn't change" in again
    assert "Running stage 'squares'" in again


def test_another_input_does_not_resume(project: Project) -> None:
    project.stage("numbers")
    failed = project.stage("squares", check=False, TINY_FAIL_AT="3")
    assert "told to fail at 3" in failed.stderr
    project.set_params(trajectories={"batch_size": 3})
    assert "starting at 0" in project.stage("squares").stdout


def test_failure_leaves_old_outputs_and_no_halves(project: Project) -> None:
    project.stage("numbers")
    project.stage("squares")
    before = project.outputs()
    project.set_params(prompts={"count": 7})
    project.stage("numbers")
    project.stage("squares", check=False, TINY_FAIL_AT="5")
    assert project.outputs()["outputs/squares"] == before["outputs/squares"]
    assert project.leftovers() == []


def test_missing_input_names_the_stage_that_makes_it(project: Project) -> None:
    done = project.stage("squares", check=False)
    assert "needs outputs/numbers.txt, which is not there" in done.stderr


def test_reading_an_undeclared_section_is_refused(project: Project) -> None:
    project.stage("numbers")
    project.stage("squares")
    done = project.stage("total", check=False, TINY_READ_UNDECLARED="1")
    assert "no attribute 'prompts'" in done.stderr


def test_events_for_the_flow(project: Project) -> None:
    from interloom.progress import from_event

    project.stage("numbers")
    done = project.stage("squares", INTERLOOM_PROGRESS="events")
    reports = [report for line in done.stdout.splitlines() if (report := from_event(line))]
    assert reports[-1].done == reports[-1].total == 5
    assert json.loads((project.root / "metrics/squares.json").read_text())["sum"] > 0
