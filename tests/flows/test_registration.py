"""The flow ``registration`` decides: by the gate, by a person, or not; against a real Prefect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flows_server import ask, newest_run
from registry_project import (
    BETTER,
    GOOD,
    MODEL,
    WORSE,
    add_version,
    evidence,
    from_template,
    history,
    promoted,
    runs_of,
    told,
)  # fmt: skip
from tiny_project.project import wait_for

from interloom.catalogue import Catalogue, aliases

HERE = Path(__file__).parent
SOURCES = HERE.parent.parent


class Flows:
    """A process that runs the flow when told to."""

    def __init__(self, server: dict[str, str]) -> None:
        path = os.pathsep.join([str(SOURCES / "src"), str(SOURCES)])
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "PREFECT_"))}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "registering.py")],
            env=env | server | {"PYTHONPATH": path},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._until("READY")

    def start(self, catalogue: Catalogue, **wanted: Any) -> None:
        assert self.process.stdin is not None
        line = json.dumps({"project": str(catalogue.root), **wanted})
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def result(self) -> tuple[str, str]:
        """State and returned value of the flow run."""
        state, value = json.loads(self._until("RESULT").removeprefix("RESULT"))
        return state, value

    def run(self, catalogue: Catalogue, **wanted: Any) -> tuple[str, str]:
        self.start(catalogue, **wanted)
        return self.result()

    def _until(self, word: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word):
                return line
        raise AssertionError("the process ended")


@pytest.fixture(scope="module")
def flows(prefect_server_env: dict[str, str]) -> Iterator[Flows]:
    made = Flows(prefect_server_env)
    yield made
    made.process.kill()
    made.process.communicate()


@pytest.fixture
def catalogue(empty_mlflow: Path, tmp_path: Path) -> Catalogue:
    return from_template(empty_mlflow, tmp_path / "project")


def paused(server: dict[str, str], count: int = 1) -> Any:
    """The flow run that waits for a person; ``count`` is the how-manieth time it does."""

    def waits() -> bool:
        run = newest_run(server)
        states = ask(server, lambda c: c.read_flow_run_states(run.id))
        pauses = sum(state.name == "Paused" for state in states)
        return pauses == count and run.state_name == "Paused"

    wait_for(waits, seconds=90, every=0.3)
    time.sleep(0.5)  # the form is saved after the state
    return newest_run(server)


def answer(server: dict[str, str], run: Any, **fields: str) -> None:
    ask(server, lambda client: client.resume_flow_run(run.id, run_input=fields))


def test_the_gate_promotes_refuses_and_does_not_repeat_itself(
    flows: Flows, catalogue: Catalogue, prefect_server_env: dict[str, str]
) -> None:
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterFlowRunId,
    )

    assert "no @challenger" in flows.run(catalogue)[1]
    add_version(catalogue, evidence(GOOD))
    state, value = flows.run(catalogue)
    assert (state, value) == (
        "Completed", "{'promotion': 'promotion of 1, champion none → 1'}",
    )  # fmt: skip
    assert "version 1 is the champion already" in flows.run(catalogue)[1]
    add_version(catalogue, evidence(WORSE))
    assert "refusal of 2, champion stays 1" in flows.run(catalogue)[1]
    run = newest_run(prefect_server_env)
    only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    (table,) = ask(prefect_server_env, lambda c: c.read_artifacts(artifact_filter=only))
    assert (table.type, table.key) == ("table", "promotion-gate")
    assert "is refused by the gate" in table.description
    failing = [row for row in json.loads(table.data) if row["passed"] == "NO"]
    assert [row["check"] for row in failing] == [
        "rise: difference", "wise: difference", "mean difference",
    ]  # fmt: skip
    tags = runs_of(catalogue)[-1].data.tags
    assert tags["prefect.flow_run_id"] == str(run.id)
    assert str(run.id) in tags["prefect.flow_run_url"]
    assert "nothing to decide: refusal of 2" in flows.run(catalogue)[1]
    assert len(history(catalogue)) == 2


def test_nobody_decides(flows: Flows, catalogue: Catalogue) -> None:
    add_version(catalogue, evidence(GOOD))
    value = flows.run(catalogue, approval="none")[1]
    assert "version 1 waits for `interloom registry promote`" in value
    assert history(catalogue) == []


@pytest.mark.parametrize("nested", [False, True])
def test_a_person_approves(
    flows: Flows, catalogue: Catalogue, prefect_server_env: dict[str, str], nested: bool
) -> None:
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(BETTER))
    flows.start(catalogue, approval="human", nested=nested)
    run = paused(prefect_server_env)
    assert aliases(catalogue, MODEL)["champion"] == "1"
    answer(prefect_server_env, run, decision="approve", name="ana", comment="seen the gallery")
    state, value = flows.result()
    assert state == "Completed"
    assert "promotion of 2, champion 1 → 2" in value
    last = history(catalogue)[-1]
    assert (last.by, last.comment, last.despite_gate) == ("ana", "seen the gallery", False)
    assert runs_of(catalogue)[-1].data.tags["prefect.flow_run_id"] == str(run.id)


def test_a_person_rejects_what_the_gate_would_have_taken(
    flows: Flows, catalogue: Catalogue, prefect_server_env: dict[str, str]
) -> None:
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(BETTER))
    flows.start(catalogue, approval="human")
    answer(prefect_server_env, paused(prefect_server_env), decision="reject", name="ana")
    assert flows.result()[0] == "Completed"
    assert told(catalogue)[-1] == "refusal of 2, champion stays 1"


def test_approving_what_the_gate_refuses_needs_a_comment(
    flows: Flows, catalogue: Catalogue, prefect_server_env: dict[str, str]
) -> None:
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(WORSE))
    flows.start(catalogue, approval="human")
    answer(prefect_server_env, paused(prefect_server_env), decision="approve", name="ana")
    again = paused(prefect_server_env, count=2)
    answer(prefect_server_env, again, decision="approve", name="ana", comment="a licence ends")
    assert "promotion of 2" in flows.result()[1]
    last = history(catalogue)[-1]
    assert (last.despite_gate, last.comment) == (True, "a licence ends")


def test_what_was_decided_elsewhere_meanwhile_holds(
    flows: Flows, catalogue: Catalogue, prefect_server_env: dict[str, str]
) -> None:
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(BETTER))
    flows.start(catalogue, approval="human")
    run = paused(prefect_server_env)
    promoted(catalogue, tuple(score + 5 for score in BETTER))
    answer(prefect_server_env, run, decision="approve", name="ana")
    assert "decision 2 by ana came first" in flows.result()[1]
    assert aliases(catalogue, MODEL)["champion"] == "3"


@pytest.mark.parametrize("nested", [False, True])
def test_cancelled_while_it_waits(
    flows: Flows, catalogue: Catalogue, prefect_server_env: dict[str, str], nested: bool
) -> None:
    from flows_server import outermost_run
    from prefect.states import Cancelling

    add_version(catalogue, evidence(GOOD))
    flows.start(catalogue, approval="human", nested=nested)
    paused(prefect_server_env)
    run = outermost_run(prefect_server_env)
    began = time.monotonic()
    ask(prefect_server_env, lambda client: client.set_flow_run_state(run.id, Cancelling()))
    flows.result()
    assert time.monotonic() - began < 10
    assert outermost_run(prefect_server_env).state.is_cancelled()
    assert history(catalogue) == []


def test_nobody_answers_in_time(flows: Flows, empty_mlflow: Path, tmp_path: Path) -> None:
    catalogue = from_template(empty_mlflow, tmp_path / "project", approval_hours=0.001)
    add_version(catalogue, evidence(GOOD))
    state, value = flows.run(catalogue, approval="human")
    assert state == "Completed"
    assert "nobody decided about version 1 within 0.001 hours" in value
    assert history(catalogue) == []


def test_the_adaptive_system_is_decided_about_by_the_same_flow(
    flows: Flows, catalogue: Catalogue, prefect_server_env: dict[str, str]
) -> None:
    promoted(catalogue, GOOD)
    assert "no @challenger" in flows.run(catalogue, system="adaptive")[1]
    add_version(catalogue, evidence(GOOD), "adaptive")
    waits = flows.run(catalogue, system="adaptive", approval="none")[1]
    assert "`interloom registry promote --system adaptive`" in waits
    assert "promotion of 1, champion none → 1" in flows.run(catalogue, system="adaptive")[1]
    add_version(catalogue, evidence(WORSE), "adaptive")
    flows.start(catalogue, system="adaptive", approval="human")
    run = paused(prefect_server_env)
    answer(prefect_server_env, run, decision="approve", name="ana", comment="a licence ends")
    assert "promotion of 2, champion 1 → 2" in flows.result()[1]
    assert history(catalogue, "adaptive")[-1].despite_gate
    assert told(catalogue) == ["promotion of 1, champion none → 1"]
