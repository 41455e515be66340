"""Promotions, refusals and rollbacks in a real registry on SQLite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from registry_project import (
    ANA,
    BETTER,
    GOOD,
    LIMITS,
    MODEL,
    MODELS,
    WORSE,
    add_version,
    evidence,
    from_template,
    history,
    promoted,
    runs_of,
    tags_of,
    told,
)  # fmt: skip

from interloom.catalogue import Catalogue, aliases
from interloom.errors import InterloomError
from interloom.promotion.decisions import (
    evidence_of,
    promote,
    propose,
    refuse,
    rollback,
)
from interloom.promotion.ledger import Author, Ledger, TakenError


def test_the_first_version_becomes_champion_through_the_gate(catalogue: Catalogue) -> None:
    add_version(catalogue, evidence(GOOD))
    assert aliases(catalogue, MODEL) == {"challenger": "1"}
    proposal = propose(catalogue, "agents", None)
    assert proposal.champion is None
    assert proposal.verdict.passed
    assert history(catalogue) == []
    made = promote(catalogue, proposal, ANA)
    assert aliases(catalogue, MODEL) == {"challenger": "1", "champion": "1"}
    assert history(catalogue) == [made]
    assert (made.before, made.after, made.by, made.comment) == (None, "1", "ana", "looks good")
    with pytest.raises(InterloomError, match="version 1 is the champion already"):
        propose(catalogue, "agents", None)


def test_a_decision_is_a_run_that_people_can_read(catalogue: Catalogue) -> None:
    promoted(catalogue, GOOD, BETTER)
    first, second = runs_of(catalogue)
    assert {first.info.status, second.info.status} == {"FINISHED"}
    assert second.info.run_name == f"{MODEL} 2: promotion of 2, champion 1 → 2"
    params = second.data.params
    assert (params["from"], params["to"], params["by"]) == ("1", "2", "ana")
    assert second.data.tags["prefect.flow_run_id"] == "f-1"
    assert second.data.tags["promotion.comment"] == "looks good"
    assert second.data.metrics["wise.difference"] == pytest.approx(6.75)
    place = Path(second.info.artifact_uri.removeprefix("file://"))
    gate = json.loads((place / "gate.json").read_text())
    assert gate["columns"] == ["check", "figure", "limit", "passed"]
    assert ["wise: unjudged", "0.0%", "≤ 0.02", "yes"] in gate["data"]
    assert place.is_relative_to(catalogue.root / "mlruns")
    assert tags_of(catalogue, "2")["promotion.status"] == "champion"
    assert tags_of(catalogue, "1")["promotion.status"] == "replaced"
    assert tags_of(catalogue, "2")["promotion.run"] == second.info.run_id


def test_a_refusal_is_remembered_with_its_numbers_and_changes_nothing(
    catalogue: Catalogue,
) -> None:
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(WORSE))
    with pytest.raises(InterloomError, match=r"version 2 is refused: rise: difference: -30\.0"):
        promote(catalogue, propose(catalogue, "agents", None), ANA)
    assert aliases(catalogue, MODEL) == {"challenger": "2", "champion": "1"}
    assert told(catalogue)[-1] == "refusal of 2, champion stays 1"
    assert runs_of(catalogue)[-1].data.metrics["wise.difference"] == -30
    assert tags_of(catalogue, "2")["promotion.status"] == "refused"
    earlier = propose(catalogue, "agents", None).earlier
    assert earlier is not None
    assert earlier.kind == "refusal"


def test_the_gate_can_be_overruled_and_that_is_remembered(catalogue: Catalogue) -> None:
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(WORSE))
    made = promote(catalogue, propose(catalogue, "agents", None), ANA, despite_gate=True)
    assert made.despite_gate
    assert aliases(catalogue, MODEL)["champion"] == "2"
    add_version(catalogue, evidence(GOOD))
    passing = propose(catalogue, "agents", None)
    assert not promote(catalogue, passing, ANA, despite_gate=True).despite_gate


def test_a_version_without_evidence_is_refused_with_the_reason(catalogue: Catalogue) -> None:
    add_version(catalogue, None)
    verdict = propose(catalogue, "agents", None).verdict
    assert not verdict.passed
    assert "interloom-pipeline version 1 has no evidence.json" in verdict.reasons[0]
    assert "register it again" in verdict.reasons[0]
    with pytest.raises(InterloomError, match="has no evidence"):
        evidence_of(catalogue, MODEL, "1")


def test_rollbacks_go_back_one_champion_each(catalogue: Catalogue) -> None:
    promoted(catalogue, GOOD, BETTER, tuple(score + 10 for score in BETTER))
    assert rollback(catalogue, "agents", None, ANA).after == "2"
    assert tags_of(catalogue, "3")["promotion.status"] == "rolled back"
    assert rollback(catalogue, "agents", None, ANA).after == "1"
    with pytest.raises(InterloomError, match="no earlier champion"):
        rollback(catalogue, "agents", None, ANA)
    assert rollback(catalogue, "agents", "3", Author("ben", "was right after all")).after == "3"
    assert aliases(catalogue, MODEL)["champion"] == "3"
    assert told(catalogue)[3:] == [
        "rollback to 2, champion 3 → 2",
        "rollback to 1, champion 2 → 1",
        "rollback to 3, champion 1 → 3",
    ]


def test_rollback_refuses_what_never_was_champion(catalogue: Catalogue) -> None:
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(WORSE))
    with pytest.raises(InterloomError, match="version 2 never was champion"):
        rollback(catalogue, "agents", "2", ANA)
    with pytest.raises(InterloomError, match="version 1 is the champion already"):
        rollback(catalogue, "agents", "1", ANA)


def test_history_survives_the_deletion_of_versions(catalogue: Catalogue) -> None:
    promoted(catalogue, GOOD, BETTER, tuple(score + 10 for score in BETTER))
    catalogue.client.delete_model_version(MODEL, "2")
    assert [entry.after for entry in history(catalogue)] == ["1", "2", "3"]
    assert rollback(catalogue, "agents", None, ANA).after == "1"
    with pytest.raises(InterloomError, match="models:/interloom-pipeline/2"):
        rollback(catalogue, "agents", "2", ANA)
    catalogue.client.delete_registered_model(MODEL)
    assert told(catalogue)[-1] == "change from outside, champion 1 → none"
    assert len(history(catalogue)) == 5
    assert len(runs_of(catalogue)) == 5


def test_a_change_of_the_alias_by_other_means_is_found(catalogue: Catalogue) -> None:
    add_version(catalogue, evidence(GOOD))
    add_version(catalogue, evidence(BETTER))
    catalogue.client.set_registered_model_alias(MODEL, "champion", "1")
    assert told(catalogue) == ["change from outside, champion none → 1"]
    judged = propose(catalogue, "agents", "2")
    catalogue.client.delete_registered_model_alias(MODEL, "champion")
    with pytest.raises(InterloomError, match="judged against champion 1, but decision 2 by unkn"):
        promote(catalogue, judged, ANA)
    assert told(catalogue)[1:] == [
        "change from outside, champion 1 → none",
        "refusal of 2, champion stays none",
    ]


def test_a_decision_about_the_same_version_comes_first(catalogue: Catalogue) -> None:
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(BETTER))
    mine, theirs = propose(catalogue, "agents", None), propose(catalogue, "agents", None)
    refuse(catalogue, theirs, Author("ben"))
    with pytest.raises(InterloomError, match="decision 2 by ben came first"):
        promote(catalogue, mine, ANA)
    assert aliases(catalogue, MODEL)["champion"] == "1"


def test_a_place_in_the_ledger_is_given_once(catalogue: Catalogue) -> None:
    promoted(catalogue, GOOD)
    add_version(catalogue, evidence(BETTER))
    ledger = Ledger(catalogue, MODEL)
    with pytest.raises(TakenError):
        ledger.append(1, "promotion", ANA, version="2", before=None, after="2")
    assert aliases(catalogue, MODEL)["champion"] == "1"
    assert len(runs_of(catalogue)) == 1


def test_a_late_writer_sets_what_the_newest_line_says(catalogue: Catalogue) -> None:
    """It slept after its claim; others finished its decision and made the next one."""
    promoted(catalogue, GOOD, BETTER)
    first = history(catalogue)[0]
    Ledger(catalogue, MODEL).carry_out(first)
    assert aliases(catalogue, MODEL)["champion"] == "2"
    assert len(history(catalogue)) == 2


def test_a_foreign_or_deleted_experiment_is_named(catalogue: Catalogue) -> None:
    found = catalogue.client.create_experiment("promotions")
    with pytest.raises(InterloomError, match="'promotions' is no ledger of promotions"):
        history(catalogue)
    catalogue.client.delete_experiment(found)
    with pytest.raises(InterloomError, match="was deleted, and with it the ledger"):
        history(catalogue)


def test_each_system_has_its_own_champion_and_history(catalogue: Catalogue) -> None:
    promoted(catalogue, GOOD, BETTER)
    promoted(catalogue, WORSE, GOOD, system="adaptive")
    assert aliases(catalogue, MODELS["adaptive"]) == {"challenger": "2", "champion": "2"}
    assert told(catalogue, "adaptive") == [
        "promotion of 1, champion none → 1",
        "promotion of 2, champion 1 → 2",
    ]
    add_version(catalogue, evidence(WORSE), "adaptive")
    proposal = propose(catalogue, "adaptive", None)
    assert (proposal.model, proposal.champion) == (MODELS["adaptive"], "2")
    with pytest.raises(InterloomError, match="version 3 is refused: rise: difference"):
        promote(catalogue, proposal, ANA)
    assert rollback(catalogue, "adaptive", None, ANA).after == "1"
    assert [entry.kind for entry in history(catalogue, "adaptive")] == [
        "promotion", "promotion", "refusal", "rollback",
    ]  # fmt: skip
    assert aliases(catalogue, MODELS["adaptive"])["champion"] == "1"
    # The other system's ledger and aliases are what they were.
    assert aliases(catalogue, MODEL) == {"challenger": "2", "champion": "2"}
    assert [entry.number for entry in history(catalogue)] == [1, 2]
    names = {run.info.run_name.split()[0] for run in runs_of(catalogue)}
    assert names == set(MODELS.values())


def test_each_system_has_its_own_limits(empty_mlflow: Path, tmp_path: Path) -> None:
    strict = LIMITS | {"max_images_per_request": 1.5}
    there = from_template(empty_mlflow, tmp_path / "strict", adaptive=strict)
    add_version(there, evidence(GOOD))
    add_version(there, evidence(GOOD), "adaptive")
    assert propose(there, "agents", None).verdict.passed
    assert propose(there, "adaptive", None).verdict.reasons == [
        "images per request: 2.00 (limit: ≤ 1.5)"
    ]
    with pytest.raises(InterloomError, match=r"no @challenger.*dvc repro register-adaptive"):
        there.client.delete_registered_model_alias(MODELS["adaptive"], "challenger")
        propose(there, "adaptive", None)
