"""Real processes that promote at once, or are killed in between; SQLite and PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from registry_project import (
    ANA,
    BETTER,
    GOOD,
    MODEL,
    WORSE,
    add_version,
    evidence,
    history,
    make,
    promoted,
    runs_of,
    told,
)  # fmt: skip
from tiny_project.project import free_port, wait_for

from interloom.catalogue import Catalogue, aliases, open_catalogue
from interloom.promotion import ledger
from interloom.promotion.decisions import promote, propose, rollback
from interloom.promotion.ledger import BusyError, Ledger

HERE = Path(__file__).parent
SOURCES = HERE.parent.parent


def start(catalogue: Catalogue, *words: str) -> subprocess.Popen[str]:
    """A process that promotes, in the project's folder."""
    return subprocess.Popen(
        [sys.executable, str(HERE / "deciding.py"), *words],
        cwd=catalogue.root,
        env={**os.environ, "PYTHONPATH": f"{SOURCES / 'src'}{os.pathsep}{SOURCES}"},
        stdout=subprocess.PIPE,
        text=True,
    )


def race(catalogue: Catalogue, count: int) -> list[str]:
    """What each of ``count`` processes says that promote versions 2, 3, … at one moment."""
    go = catalogue.root / "go"
    racers = [
        start(catalogue, str(number + 2), f"racer-{number}", "-", str(go))
        for number in range(count)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    go.touch()
    return [racer.communicate(timeout=120)[0] for racer in racers]


def check_race(catalogue: Catalogue, count: int) -> None:
    promoted(catalogue, GOOD)
    for _ in range(count):
        add_version(catalogue, evidence(BETTER))
    said = race(catalogue, count)
    won = [number for number, text in enumerate(said) if text.startswith("promoted: 2")]
    assert len(won) == 1, said
    assert sum("came first" in text for text in said) == count - 1, said
    champion = str(won[0] + 2)
    assert aliases(catalogue, MODEL)["champion"] == champion
    entries = history(catalogue)
    assert [entry.number for entry in entries] == list(range(1, count + 2))
    assert [entry.kind for entry in entries[1:]] == ["promotion"] + ["refusal"] * (count - 1)
    assert {entry.version for entry in entries[1:]} == {str(n + 2) for n in range(count)}
    assert {run.info.status for run in runs_of(catalogue)} == {"FINISHED"}


def test_of_two_at_once_one_wins(catalogue: Catalogue) -> None:
    check_race(catalogue, 2)


def test_the_very_first_decision_is_made_once(catalogue: Catalogue) -> None:
    """Both must also begin the ledger."""
    for _ in range(3):
        add_version(catalogue, evidence(GOOD))
    said = race(catalogue, 2)
    assert sum(text.startswith("promoted: 1") for text in said) == 1, said
    assert sum("came first" in text for text in said) == 1, said
    assert [entry.kind for entry in history(catalogue)] == ["promotion", "refusal"]
    lines = catalogue.client.get_experiment_by_name("promotions-claims")
    assert lines is not None
    assert len(catalogue.client.search_runs([lines.experiment_id])) == 1


def test_on_postgresql(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race, a kill and a rollback on the other kind of store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    there = open_catalogue(make(tmp_path / "project", postgres))
    check_race(there, 3)
    before = aliases(there, MODEL)["champion"]
    version = add_version(there, evidence(tuple(score + 5 for score in BETTER)))
    killed = start(there, version, "ben", "kill-after-claim")
    killed.communicate(timeout=120)
    assert told(there)[-1] == f"promotion of {version}, champion {before} → {version}"
    assert rollback(there, "agents", None, ANA).after == before
    assert aliases(there, MODEL)["champion"] == before


@pytest.mark.slow
def test_through_a_tracking_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but MLflow's API is needed: no file or database is shared."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    port = free_port()
    (tmp_path / "server").mkdir()
    with (tmp_path / "server/log").open("w") as log:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "2"),
                *("--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "files"),
            ],
            cwd=tmp_path / "server", stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # fmt: skip

    def ready() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        wait_for(ready, seconds=200, every=0.5)
        there = open_catalogue(make(tmp_path / "project", f"http://127.0.0.1:{port}"))
        check_race(there, 3)
        add_version(there, evidence(WORSE))
        proposal = propose(there, "agents", None)
        assert "wise: difference" in "".join(proposal.verdict.reasons)
        assert not (there.root / "mlruns").exists()
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.parametrize("place", ["kill-after-claim", "kill-after-alias"])
def test_killed_after_the_claim_the_next_command_does_the_rest(
    catalogue: Catalogue, place: str
) -> None:
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(BETTER))
    killed = start(catalogue, "2", "ben", place)
    killed.communicate(timeout=120)
    assert killed.returncode == -9
    half_done = "1" if place == "kill-after-claim" else "2"
    assert aliases(catalogue, MODEL)["champion"] == half_done
    assert runs_of(catalogue)[-1].info.status == "RUNNING"
    assert told(catalogue)[-1] == "promotion of 2, champion 1 → 2"
    assert aliases(catalogue, MODEL)["champion"] == "2"
    assert runs_of(catalogue)[-1].info.status == "FINISHED"
    tags = catalogue.client.get_model_version(MODEL, "2").tags
    assert tags["promotion.status"] == "champion"
    assert len(history(catalogue)) == 2


def test_killed_before_the_claim_nothing_has_happened(catalogue: Catalogue) -> None:
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(BETTER))
    start(catalogue, "2", "ben", "kill-before-claim").communicate(timeout=120)
    assert len(history(catalogue)) == 1
    assert aliases(catalogue, MODEL)["champion"] == "1"
    draft = runs_of(catalogue)[-1]
    assert draft.info.status == "KILLED"
    assert "never took effect" in draft.data.tags["interloom.error"]
    promote(catalogue, propose(catalogue, "agents", "2"), ANA)
    assert aliases(catalogue, MODEL)["champion"] == "2"


def test_a_claimed_version_that_was_deleted_does_not_stop_the_ledger(
    catalogue: Catalogue,
) -> None:
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(BETTER))
    start(catalogue, "2", "ben", "kill-after-claim").communicate(timeout=120)
    catalogue.client.delete_model_version(MODEL, "2")
    assert told(catalogue)[1:] == [
        "promotion of 2, champion 1 → 2",
        "change from outside, champion 2 → 1",
    ]
    assert runs_of(catalogue)[1].info.status == "FAILED"
    add_version(catalogue, evidence(WORSE))
    assert aliases(catalogue, MODEL)["champion"] == "1"


def test_a_process_that_slept_does_not_bring_back_an_old_champion(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped between line and alias; others finish its decision and make the next."""
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(BETTER))
    add_version(catalogue, evidence(tuple(score + 5 for score in BETTER)))
    sleeper = start(catalogue, "2", "ben", "stop-after-claim")
    wait_for(lambda: psutil.Process(sleeper.pid).status() == psutil.STATUS_STOPPED, seconds=90)
    assert aliases(catalogue, MODEL)["champion"] == "1"
    with pytest.raises(BusyError, match="by ben is being carried out"):
        Ledger(catalogue, MODEL).settle()
    monkeypatch.setattr(ledger, "PATIENCE", 0.0)
    assert history(catalogue)[-1].version == "2"
    promote(catalogue, propose(catalogue, "agents", "3"), ANA)
    sleeper.send_signal(signal.SIGCONT)
    sleeper.communicate(timeout=60)
    assert aliases(catalogue, MODEL)["champion"] == "3"
