from __future__ import annotations

import json
import random
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import study_project

from interloom.benchmarks.graded import Graded
from interloom.settings.file import load_settings
from interloom.study import report
from interloom.study.claims import Claim, findings
from interloom.study.comparison import compared
from interloom.study.critic_rl import Plan, Study, variants
from interloom.study.repairs import Outcome

SCORES = {
    "generator": 10, "zero-shot": 20, "planner-sft": 40, "full-sft": 50, "full-rl": 60,
    "oracle": 95, "no-step-reward": 50, "no-accuracy-reward": 59, "t-max-1": 30, "t-max-3": 45,
    "unfiltered": 52, "one-agent": 30,
}  # fmt: skip
FIX = {"critic-sft": 0.1, "critic-rl": 0.6, "no-step-reward": 0.1, "no-accuracy-reward": 0.5,
       "unfiltered": 0.1, "one-agent": 0.05}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study whose results are made up: the items of every cell spread around its score."""
    tmp_path = tmp_path_factory.mktemp("claims")
    root = study_project.make(tmp_path / "project")
    plan = Plan((1, 2), variants(load_settings(root / "params.yaml")), ("ueval",), 16, 12)
    made, rng = Study(root, tmp_path / "study", plan), random.Random(0)
    for place, task in enumerate(made.lay_out_data()):
        path = task.folder / "outputs/critic-data/sft.parquet"
        path.parent.mkdir(parents=True)
        # Filtered and unfiltered data in turn.
        pq.write_table(pa.table({"id": list(range(40 if place % 2 == 0 else 300))}), path)
    made.lay_out()
    for seed in made.seeds.values():
        for (benchmark, label), (task, system) in seed.cells.items():
            items = {f"{i}": SCORES[label] + rng.gauss(0, 3) for i in range(16)}
            graded = Graded("p", "j", items, {i: "" for i in items}, {}, {}, 0.0)
            folder = task.folder / benchmark / system
            folder.mkdir(parents=True, exist_ok=True)
            graded.save(folder / "graded.json")
        seed.critics.folder.mkdir(parents=True)
        for name, share in FIX.items():
            judged = {f"{i}": float(i % 10 != 0) for i in range(40)}
            fixed = {f"{i}": float(rng.random() < share) for i in range(30)}
            text = json.dumps(asdict(Outcome(judged, fixed)))
            (seed.critics.folder / f"critic-{name}.json").write_text(text)
    return made


def test_every_claim_gets_its_verdict(study: Study):
    verdicts = {claim.text: claim.verdict for claim in findings(study).claims}
    assert verdicts == {
        "1. zero-shot → planner-sft rises on ueval": "shown",
        "1. planner-sft → full-sft rises on ueval": "shown",
        "1. full-sft → full-rl rises on ueval": "shown",
        "2. RL repairs more failed steps than SFT": "shown",
        "2. RL judges at most 1 point worse": "shown",
        "3. RL with step-wise rewards repairs more failed steps": "shown",
        "3. RL with the accuracy reward judges better": "not shown",
        "3. full-rl is better than no-step-reward": "shown",
        "3. full-rl is better than no-accuracy-reward": "not shown",
        "3. full-sft is better than unfiltered": "refuted",
        "3. full-sft is better than one-agent": "shown",
        "3. t-max-3 is better than t-max-1": "shown",
        "3. full-rl is better than t-max-3": "shown",
    }


def test_the_report_has_claims_tables_and_a_picture(study: Study, tmp_path: Path):
    found = findings(study)
    files = report.write("s", "How.", found, tmp_path / "docs")
    page = (tmp_path / "docs/s.md").read_text()
    assert "| 3. full-sft is better than unfiltered | -" in page and "| refuted |" in page
    assert "## ueval: more attempts at a step" in page
    assert "| ueval: full-rl / oracle | 0.6" in page and "| 0.86 | refuted |" in page
    assert "| ueval: full-rl / generator |" in page and "| 3.6 | shown |" in page
    assert json.loads((tmp_path / "docs/s.json").read_text())["claims"][0]["verdict"] == "shown"
    assert [path.suffix for path in files] == [".json", ".md", ".png"]
    assert files[2].read_bytes().startswith(b"\x89PNG")


def test_a_small_loss_is_allowed_where_the_claim_says_so():
    same = {1: {f"{i}": 90.0 for i in range(20)}}
    worse = {1: {f"{i}": 89.5 for i in range(20)}}
    gap = compared("rl", worse, "sft", same)
    assert Claim("x", gap, -1.0).verdict == "shown"
    assert Claim("x", gap).verdict == "refuted"


def test_calls_of_variants_start_from_the_right_cell(study: Study):
    cells = study.seeds[1].cells
    first, full = cells["ueval", "planner-sft"][0], cells["ueval", "full-rl"][0]
    assert full.folder in cells["ueval", "t-max-3"][0].needs
    assert first.folder in cells["ueval", "no-step-reward"][0].needs
    assert first.folder not in cells["ueval", "one-agent"][0].needs
    trained = [f for f in study.lab.tasks if f.parent.name in ("sft-planner", "sft-critic")]
    # Per seed: the planner and the one agent; the critic and that of unfiltered data.
    assert len(trained) == 2 * 4
    assert len([f for f in study.lab.tasks if f.parent.name == "grpo-critic"]) == 2 * 3


def test_other_data_is_trained_on_for_as_many_steps(study: Study):
    full = load_settings(study.lab.out / "params/full-seed-1.yaml").sft_critic.epochs
    other = load_settings(study.lab.out / "params/unfiltered-seed-1.yaml")
    assert other.sft_critic.epochs == pytest.approx(full * 40 / 300, abs=1e-3)
    assert not other.critic_data.filter and not other.critic_data.balance
