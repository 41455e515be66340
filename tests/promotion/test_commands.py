"""``interloom registry …`` as people use it."""

from __future__ import annotations

import json

import pytest
from registry_project import (
    BETTER,
    GOOD,
    MODEL,
    WORSE,
    add_version,
    evidence,
    history,
    promoted,
    told,
)
from typer.testing import CliRunner, Result

from interloom.catalogue import Catalogue, aliases, shown
from interloom.errors import InterloomError
from interloom.promotion.commands import app


def registry(*words: str, answer: str = "") -> Result:
    return CliRunner().invoke(app, list(words), input=answer, env={"COLUMNS": "200"})


def refused(*words: str) -> str:
    """The error that the command line would show in one line, with status 2."""
    done = registry(*words)
    assert isinstance(done.exception, InterloomError), done.output
    assert "\n" not in str(done.exception)
    return str(done.exception)


def test_gate_shows_every_check_and_changes_nothing(catalogue: Catalogue) -> None:
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(BETTER))
    done = registry("gate")
    assert done.exit_code == 0
    assert "version 2 against champion 1" in done.stdout
    assert "check               figure" in done.stdout
    assert "lower end ≥ -5" in done.stdout
    assert "the gate lets it pass" in done.stdout
    add_version(catalogue, evidence(WORSE))
    done = registry("gate")
    assert done.exit_code == 1
    assert "NO" in done.stdout
    assert "the gate REFUSES it" in done.stdout
    assert registry("gate", "--version", "2").exit_code == 0
    assert len(history(catalogue)) == 1
    assert aliases(catalogue, MODEL)["champion"] == "1"


def test_promote_asks_first(catalogue: Catalogue) -> None:
    add_version(catalogue, evidence(GOOD))
    assert "@champion none → 1?" in registry("promote", answer="n\n").stdout
    assert history(catalogue) == []
    done = registry("promote", "--comment", "the first", answer="y\n")
    assert "decision 1: promotion of 1, champion none → 1" in done.stdout
    assert history(catalogue)[0].comment == "the first"
    assert "is the champion already" in refused("promote", "--yes")


def test_a_refusal_is_an_error_and_can_be_overruled(catalogue: Catalogue) -> None:
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(WORSE))
    assert "version 2 is refused: rise: difference" in refused("promote", "--yes")
    assert told(catalogue)[-1] == "refusal of 2, champion stays 1"
    assert "--despite-gate needs a --comment" in refused("promote", "--yes", "--despite-gate")
    done = registry("promote", "--yes", "--despite-gate", "--comment", "a licence ends")
    assert "Decided before: refusal of 2" in done.stdout
    assert "decision 3: promotion of 2, champion 1 → 2" in done.stdout


def test_history_and_rollback(catalogue: Catalogue) -> None:
    assert "no decision about interloom-pipeline yet" in registry("history").stdout
    promoted(catalogue, GOOD, BETTER)
    done = registry("rollback", "--comment", "faces look odd")
    assert "decision 3: rollback to 1, champion 2 → 1" in done.stdout
    catalogue.client.delete_model_version(MODEL, "2")
    text = registry("history").stdout
    assert "1 → 2 (deleted)" in text
    assert "2 (deleted) → 1" in text
    assert "faces look odd" in text
    assert "@champion 1" in text
    told_in_full = json.loads(registry("history", "--json").stdout)
    assert [entry["kind"] for entry in told_in_full] == ["promotion", "promotion", "rollback"]
    assert told_in_full[-1]["before"] == "2"
    assert "never was champion" in refused("rollback", "--to", "9")


def test_the_adaptive_system_is_judged_promoted_and_rolled_back_alike(
    catalogue: Catalogue,
) -> None:
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(GOOD), "adaptive")
    adaptive = ("--system", "adaptive")
    assert (
        "interloom-adaptive version 1 against no champion yet" in registry("gate", *adaptive).stdout
    )
    done = registry("promote", "--yes", *adaptive)
    assert "decision 1: promotion of 1, champion none → 1" in done.stdout
    add_version(catalogue, evidence(WORSE), "adaptive")
    assert "version 2 is refused" in refused("promote", "--yes", *adaptive)
    assert registry("gate", *adaptive).exit_code == 1
    forced = ("--despite-gate", "--comment", "a licence ends")
    assert "champion 1 → 2" in registry("promote", "--yes", *forced, *adaptive).stdout
    assert "champion 2 → 1" in registry("rollback", *adaptive).stdout
    text = registry("history", *adaptive).stdout
    assert "@champion 1, @challenger 2" in text and text.count("promotion") == 2
    assert told(catalogue) == ["promotion of 1, champion none → 1"], "the pipeline's is its own"
    assert registry("history", "--system", "both").exit_code == 2


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("postgresql+psycopg2://ana:secret@db:5432/x", "postgresql+psycopg2://ana:…@db:5432/x"),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_passwords_are_not_shown(uri: str, words: str) -> None:
    assert shown(uri) == words
