"""What is kept with a version: questions by their content, images per request, a fair sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from interloom.benchmarks import pocket_rise, pocket_wise
from interloom.benchmarks.evidence import (
    PIPELINE,
    Latency,
    of_evaluation,
    question,
    sample,
    write_requests,
)
from interloom.benchmarks.graded import Graded
from interloom.records import Request

LATENCY = Latency(seconds=(1.0, 2.0, 3.0), machine="here")


def evaluated(root: Path, system: str, benchmark: str, requests: list[Request]) -> None:
    """A cell as stage ``evaluate`` leaves it."""
    folder = root / benchmark / system
    folder.mkdir(parents=True)
    write_requests(requests, root / benchmark)
    Graded(
        protocol="p", judge="j", items={"1": 1.0}, strata={"1": ""}, weights={}, parts={},
        unjudged=0.0, run={"requests": float(len(requests)), "images_per_request": 2.0},
    ).save(folder / "graded.json")  # fmt: skip


def test_items_of_one_name_are_other_questions_under_another_seed() -> None:
    """Why ids are not enough to pair two versions."""
    ours, theirs = pocket_wise.requests(12, 1), pocket_wise.requests(12, 2)
    assert [request.id for request in ours] == [request.id for request in theirs]
    asked = [question(request) for request in ours]
    assert asked == [question(request) for request in pocket_wise.requests(12, 1)]
    assert all(one != question(other) for one, other in zip(asked, theirs, strict=True))


def test_a_question_is_its_text_kind_and_pictures() -> None:
    one = Request(id="a", text="a red sun", images=(b"1",), kind="continuation")
    assert question(one) == question(one.model_copy(update={"id": "b", "category": "c"}))
    for change in ({"text": "a sun"}, {"images": (b"2",)}, {"kind": "text_response"}):
        assert question(one) != question(one.model_copy(update=change))


def test_evidence_is_that_of_the_pipeline(tmp_path: Path) -> None:
    wise, rise = pocket_wise.requests(12, 1), pocket_rise.requests(8, 1)
    evaluated(tmp_path, PIPELINE, "wise", wise)
    evaluated(tmp_path, "oracle", "wise", wise)
    evaluated(tmp_path, "oracle", "rise", rise)
    found = of_evaluation(tmp_path, LATENCY)
    assert set(found.benchmarks) == {"wise"}
    assert found.benchmarks["wise"].questions == {r.id: question(r) for r in wise}
    assert found.images_per_request == 2.0
    chosen = [request.id for request in sample(tmp_path, 4)]
    assert chosen[0] == rise[0].id
    assert chosen[-1] == wise[-1].id
    assert len(chosen) == len(set(chosen)) == 4
    assert len(sample(tmp_path, 100)) == len(wise) + len(rise)


def test_latency_is_median_and_95_percent() -> None:
    assert (LATENCY.median, LATENCY.p95) == (2.0, pytest.approx(2.9))
