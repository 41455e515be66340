"""The data stages end to end, through the real runner."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from data_project import HERE, Project, new_project

from interloom.construct import store
from interloom.errors import InterloomError
from interloom.records import Failure
from interloom.seeding import derive_seed


def rows(project: Project, path: str) -> list[dict]:
    return list(store.read_rows(project[path]))


def metrics(project: Project, name: str) -> dict:
    return json.loads(project[f"metrics/{name}.json"].read_text())


def test_every_stage_leaves_its_products(data_project: Project):
    assert len(rows(data_project, "outputs/prompts.parquet")) == 60
    assert len(list(data_project["outputs/trajectories"].iterdir())) == 4, "two of each generator"
    result = json.loads(data_project["outputs/validation/result.json"].read_text())
    assert result["success"] and set(result["suites"]) == {
        "files", "prompts", "trajectories", "critic-sft", "critic-rl", "critic-corpus",
        "planner-sft", "planner-general",
    }  # fmt: skip
    docs = data_project["outputs/validation/data-docs"]
    assert "critic-sft" in (docs / "index.html").read_text()


def test_the_account_is_a_drawing_too(data_project: Project):
    for name in ("prompts", "trajectories", "critic-data", "planner-data"):
        drawing = ElementTree.parse(data_project[f"plots/{name}.svg"]).getroot()
        words = " ".join(drawing.itertext())
        numbers = metrics(data_project, name)
        steps = [key.removesuffix(".came") for key in numbers if key.endswith(".came")]
        assert steps and all(f"{step}: {numbers[f'{step}.came']}" in words for step in steps)


def test_trajectories_come_from_two_generators(data_project: Project):
    trajectories = list(store.read_trajectories(data_project["outputs/trajectories"]))
    assert sorted(t.request.id for t in trajectories) == [f"p{i:05d}" for i in range(60)]
    names = [{a.generator for trace in t.steps for a in trace.attempts} for t in trajectories]
    assert sum(n == {"generator-weak"} for n in names) in range(20, 31)
    assert all(len(n) <= 1 for n in names)


def test_accounts_add_up(data_project: Project):
    for name in ("prompts", "trajectories", "critic-data", "planner-data"):
        flat = metrics(data_project, name)
        with data_project[f"plots/{name}.csv"].open() as file:
            table = list(csv.DictReader(file))
        for step in {row["step"] for row in table}:
            came = sum(int(row["rows"]) for row in table if row["step"] == step)
            assert came == flat[f"{step}.came"]
    critic = metrics(data_project, "critic-data")
    assert critic["sft_rows"] == len(rows(data_project, "outputs/critic-data/sft.parquet"))
    assert critic["attempts"] == metrics(data_project, "trajectories")["attempts"]


def test_critic_rows_are_what_the_trajectories_hold(data_project: Project):
    attempts = {}
    for trajectory in store.read_trajectories(data_project["outputs/trajectories"]):
        for trace in trajectory.steps:
            for number, attempt in enumerate(trace.attempts):
                name = f"{trajectory.request.id}/{trace.step.step_number}/{number}"
                attempts[name] = (trace, attempt)
    for split in ("sft", "rl"):
        for row in rows(data_project, f"outputs/critic-data/{split}.parquet"):
            trace, attempt = attempts[row["id"]]
            assert row["after"] == attempt.image and row["before"] == trace.source
            assert row["success"] == attempt.critique.success and row["split"] == split


AGAIN = """
import sys
from pathlib import Path
import pytest
from data_project import DATA_STAGES, new_project, play_generators
with pytest.MonkeyPatch.context() as patch:
    play_generators(patch)
    new_project(Path(sys.argv[1])).run(*DATA_STAGES)
"""


def test_same_seed_same_bytes_in_another_process(data_project: Project, tmp_path: Path):
    """Two clean clones agree; another order of sets and dicts by hash changes nothing."""
    places = [HERE / "src", HERE, HERE / "tests"]
    env = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(map(str, places))}
    subprocess.run([sys.executable, "-c", AGAIN, str(tmp_path)], env=env, check=True)
    for path in sorted(data_project["outputs"].rglob("*")):
        relative = path.relative_to(data_project.root)
        if path.is_file() and "data-docs" not in relative.parts:
            assert path.read_bytes() == (tmp_path / relative).read_bytes(), relative


def test_killed_trajectories_resume_with_what_is_known(
    data_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from pocket_renderer import RenderGenerator

    from interloom import cast
    from interloom.cache import CachedGenerator

    project = new_project(tmp_path)
    (tmp_path / "outputs").mkdir()
    shutil.copy(data_project["outputs/prompts.parquet"], tmp_path / "outputs")
    made: list[RenderGenerator] = []

    class Dying(RenderGenerator):
        def generate(self, jobs):
            if len(made) == 1 and self.drawn > 30:
                raise KeyboardInterrupt
            return super().generate(jobs)

    def generator(settings, remotes, cache):
        weak = settings.model.endswith("weak")
        made.append(Dying(0.55 if weak else 0.15, Path(settings.model).name))
        return CachedGenerator(made[-1], cache)

    monkeypatch.setattr(cast, "generator", generator)
    with pytest.raises(KeyboardInterrupt):
        project.run("trajectories")
    assert not project["outputs/trajectories"].exists(), "nothing half-written"
    first = made[0].drawn
    project.run("trajectories")
    whole = metrics(data_project, "trajectories")["images"]
    assert sum(one.drawn for one in made) == whole, "no call was made twice"
    assert made[1].drawn < whole - first + 1
    for path in data_project["outputs/trajectories"].iterdir():
        assert path.read_bytes() == (project["outputs/trajectories"] / path.name).read_bytes()


def test_failed_calls_are_recorded_and_never_become_data(
    data_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from pocket_renderer import RenderGenerator

    from interloom import cast

    class Flaky(RenderGenerator):
        def generate(self, jobs):
            drawn = super().generate(jobs)
            return [
                Failure(role="generator", reason="timeout")
                if derive_seed("flaky", job.seed) % 12 == 0
                else picture
                for job, picture in zip(jobs, drawn, strict=True)
            ]

    monkeypatch.setattr(cast, "generator", lambda *_: Flaky(0.4))
    project = new_project(tmp_path)
    (tmp_path / "outputs").mkdir()
    shutil.copy(data_project["outputs/prompts.parquet"], tmp_path / "outputs")
    project.run("trajectories", "critic-data")
    failed = metrics(project, "trajectories")["failed_calls"]
    assert failed > 5
    lost = metrics(project, "critic-data")["filter-steps.lost.call-failed"]
    assert lost > 3
    for split in ("sft", "rl"):
        for row in rows(project, f"outputs/critic-data/{split}.parquet"):
            assert row["semantic"] is not None and row["after"] is not None


def test_too_little_data_is_said(copied_project: Project, monkeypatch: pytest.MonkeyPatch):
    from interloom import cast

    class Silent:
        name = "silent"

        def score(self, cases):
            return [Failure(role="judge", reason="down") for _ in cases]

    monkeypatch.setattr(cast, "judge", lambda *_: Silent())
    before = copied_project["outputs/critic-data/sft.parquet"].read_bytes()
    with pytest.raises(InterloomError, match="no step is left after filtering"):
        copied_project.run("critic-data")
    assert copied_project["outputs/critic-data/sft.parquet"].read_bytes() == before
