"""The trajectories stage with Gemini as teacher and two remote generators, over real HTTP."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from data_project import Project
from model_server import Asked, Said, picture, serving
from remote_project import REQUESTS, answer, fill, settings_for

from interloom.backends.ledger import LEDGER, Ledger
from interloom.construct import store
from interloom.errors import InterloomError
from interloom.records import Trajectory

TESTS = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    return fill(tmp_path)


def made(root: Path) -> dict[str, Trajectory]:
    return {t.request.id: t for t in store.read_trajectories(root / "outputs/trajectories")}


def test_the_loop_over_real_wires(root: Path):
    with serving(answer) as server:
        project = Project(root, settings_for(server))
        project.run("trajectories")
        found = made(root)
        assert set(found) == {request.id for request in REQUESTS}
        refused = found.pop("forbidden").failure
        assert refused is not None and refused.reason == "refused: SAFETY"
        assert all(trajectory.failure is None for trajectory in found.values())
        texts = found.pop("describe")
        assert [step.step.auxiliary_text for step in texts.steps] == ["a text"] * 2
        assert [step.step.step_number for step in found["go-on"].steps] == [2]
        for trajectory in found.values():
            for step in trajectory.steps:
                first, second = step.attempts
                assert first.critique and not first.critique.success
                assert second.prompt == "a better one"
                assert second.critique and second.critique.success
        drawn = {a.image for t in found.values() for s in t.steps for a in s.attempts}
        assert drawn == {picture("green"), picture("yellow")}, "by either generator"

        before, costs = len(server.asked), Ledger(root / LEDGER).costs()
        assert {cost.backend for cost in costs} == {"gemini", "http"}
        assert {cost.purpose for cost in costs} == {"trajectories"}
        assert sum(cost.calls for cost in costs) == before
        assert sum(cost.failures for cost in costs) == 3, "two errors and a refusal"

        first = (root / "outputs/trajectories").rename(root / "first")
        shutil.rmtree(root / ".interloom/work")
        project.run("trajectories")
        assert len(server.asked) == before + 1, "only what was refused is asked again"
        for shard in first.iterdir():
            assert shard.read_bytes() == (root / "outputs/trajectories" / shard.name).read_bytes()


KILLED = """
import sys
from pathlib import Path
from data_project import Project
from remote_project import settings_for
class At:
    url = sys.argv[2]
Project(Path(sys.argv[1]), settings_for(At(), concurrency=3)).run("trajectories")
"""


def test_a_killed_stage_loses_only_the_calls_in_flight(root: Path):
    def slowly(asked: Asked) -> Said:
        return replace(answer(asked), delay=0.15)

    with serving(slowly) as server:
        run = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(root), server.url],
            env=TESTS | {"GEMINI_API_KEY": "k"},
        )
        while len(server.asked) < 12:
            assert run.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        run.kill()
        run.wait()
        time.sleep(0.5)
        Project(root, settings_for(server)).run("trajectories")
        found = made(root)
        total = len(server.asked)
    with serving(answer) as server:
        shutil.rmtree(root / ".interloom")
        Project(root, settings_for(server)).run("trajectories")
        whole = len(server.asked)
    assert made(root) == found
    # Three calls to each backend may have been in flight, and errors come by count.
    assert whole <= total <= whole + 6 + 3


def test_other_params_ask_only_what_is_new(root: Path):
    with serving(answer) as server:
        settings = settings_for(server)
        Project(root, settings).run("trajectories")
        before = len(server.asked)
        once = settings.trajectories.model_copy(update={"max_attempts": 1, "shard_rows": 3})
        Project(root, settings.model_copy(update={"trajectories": once})).run("trajectories")
        assert all(len(s.attempts) <= 1 for t in made(root).values() for s in t.steps)
        # First attempts are known; second steps now edit other pictures, and these look alike.
        assert len(server.asked) == before + 1, "only what was refused is asked again"


def test_the_budget_ends_the_stage_and_a_larger_one_goes_on(root: Path):
    with serving(answer) as server:
        with pytest.raises(InterloomError, match=r"remote\.gemini\.budget_usd = 0\.004"):
            Project(root, settings_for(server, budget_usd=0.004)).run("trajectories")
        assert not (root / "outputs/trajectories").exists()
        spent, _, _ = Ledger(root / LEDGER).spent("gemini")
        assert 0.001 < spent <= 0.004
        Project(root, settings_for(server)).run("trajectories")
        bodies = [asked.body for asked in server.asked if "models" in asked.path]
    assert len(made(root)) == len(REQUESTS)
    repeated = len(bodies) - len(set(bodies))
    assert repeated <= 3, "only errors and the refusal were asked again"
