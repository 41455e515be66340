"""The gate as a function: every check passes and fails where it should."""

from __future__ import annotations

import pytest
from registry_project import BETTER, GOOD, LIMITS, WORSE, benchmark, evidence

from interloom.benchmarks.evidence import Evidence, Latency
from interloom.promotion.gate import Verdict, judge
from interloom.settings.operation import GateSettings

LIMIT = GateSettings.model_validate(LIMITS)


def failed(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if not check.passed]


def test_a_better_challenger_passes_and_every_check_has_its_figure_and_limit() -> None:
    verdict = judge(evidence(BETTER), evidence(GOOD), LIMIT)
    assert verdict.passed, verdict.reasons
    assert [check.name for check in verdict.checks] == [
        *(f"wise: {what}" for what in ("score", "unjudged", "comparable", "difference")),
        *(f"rise: {what}" for what in ("score", "unjudged", "comparable", "difference")),
        *("mean difference", "images per request", "median seconds", "p95 seconds"),
    ]
    assert all(check.shown and check.limit for check in verdict.checks)
    figures = verdict.figures()
    assert figures["wise.difference"] == pytest.approx(6.75)
    assert figures["wise.difference.low"] <= 6.75 <= figures["wise.difference.high"]
    assert figures["images_per_request"] == 2.0
    assert figures["p95_seconds"] == pytest.approx(1.475)


def test_the_same_again_passes_without_a_wanted_gain_and_not_with_one() -> None:
    same = evidence(GOOD)
    assert judge(same, same, LIMIT).passed
    wanted = LIMIT.model_copy(update={"min_gain": 1.0})
    assert failed(judge(same, same, wanted)) == ["mean difference"]


def test_a_worse_one_is_refused_by_the_lower_end_of_each_interval() -> None:
    verdict = judge(evidence(WORSE), evidence(GOOD), LIMIT)
    assert failed(verdict) == ["wise: difference", "rise: difference", "mean difference"]
    assert verdict.reasons[0].startswith("wise: difference: -30.0 [-30.0, -30.0] over 4 items")


def test_noise_is_not_mistaken_for_safety() -> None:
    """The same mean, but the items differ widely: what the data cannot rule out counts."""
    noisy = evidence((90.0, 20.0, 30.0, 80.0))
    assert failed(judge(noisy, evidence(GOOD), LIMIT)) == [
        "wise: difference", "rise: difference", "mean difference",
    ]  # fmt: skip


def test_one_bad_benchmark_is_not_made_good_by_another() -> None:
    mixed = Evidence(
        benchmarks={"wise": benchmark("wise", (95.0,) * 4), "rise": benchmark("rise", WORSE)},
        latency=Latency(seconds=(1.0,), machine="here"),
    )
    assert failed(judge(mixed, evidence(GOOD), LIMIT)) == ["rise: difference"]


def test_the_first_version_is_held_against_floors_and_budgets_only() -> None:
    assert judge(evidence(GOOD), None, LIMIT).passed
    verdict = judge(evidence((1.0, 2.0, 3.0, 4.0), seconds=(1.0, 9.0)), None, LIMIT)
    assert failed(verdict) == ["wise: score", "median seconds", "p95 seconds"]
    assert not any("difference" in check.name for check in verdict.checks)


def test_budgets_and_unjudged_shares() -> None:
    dear = evidence(BETTER, images=9.0, unjudged=0.03)
    assert failed(judge(dear, evidence(GOOD), LIMIT)) == [
        "wise: unjudged", "rise: unjudged", "images per request",
    ]  # fmt: skip
    assert judge(evidence(BETTER, unjudged=0.02), evidence(GOOD), LIMIT).passed


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (evidence(GOOD, asked="seed 8"), "0 of 4 questions are the same"),
        (evidence(GOOD[:3]), "3 of 4 questions are the same"),
        (evidence(GOOD, protocol="two"), "another protocol: wise/one, the champion's wise/two"),
    ],
)
def test_other_items_and_protocols_are_never_compared(other: Evidence, words: str) -> None:
    verdict = judge(evidence(BETTER), other, LIMIT)
    assert failed(verdict) == ["wise: comparable", "rise: comparable"]
    assert words in verdict.reasons[0]
    assert "wise.difference" not in verdict.figures()
    assert "mean_difference" not in verdict.figures()


def test_what_was_not_measured_does_not_pass() -> None:
    nothing = Evidence(benchmarks={}, latency=Latency(seconds=(1.0,), machine="here"))
    assert failed(judge(nothing, None, LIMIT)) == ["wise: score", "rise: score"]
    assert failed(judge(evidence(GOOD), nothing, LIMIT)) == ["wise: comparable", "rise: comparable"]
    silent = Evidence(
        benchmarks={
            name: benchmark(name, ()).model_copy(update={"questions": {f"{name}/0": "q"}})
            for name in ("wise", "rise")
        },
        latency=Latency(seconds=(1.0,), machine="here"),
    )
    assert failed(judge(silent, evidence(GOOD), LIMIT))[:2] == ["wise: score", "rise: score"]


def test_evidence_survives_its_file() -> None:
    told = evidence(GOOD)
    assert Evidence.model_validate_json(told.model_dump_json()) == told
