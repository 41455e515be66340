"""``interloom plan`` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from manifests import ROOT


def plan(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "interloom.cli", "plan", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_a_profile_as_table_and_json() -> None:
    table = plan("--profile", "paper")
    assert table.returncode == 0, table.stderr
    assert "profile paper: 40,000 requests" in table.stdout
    told = json.loads(plan("--profile", "paper", "--rows", "published", "--json").stdout)
    assert told["volumes"]["rows"] == {"planner": 80000, "critic": 112000, "rl": 13000}
    given = json.loads(plan("--profile", "paper", "--rows", "80000,112000,13000", "--json").stdout)
    assert given == told


def test_figures_have_sources() -> None:
    lines = plan("--figures").stdout.splitlines()
    assert "gpu.peak = 989 TFLOP/s  [published: the same, bfloat16, dense]" in lines


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--profile", "papre"), "no profile 'papre'; profiles: paper, pocket"),
        (("--rows", "1,2"), "--rows 1,2: expected three numbers"),
        (("--rows", "1,2,-3"), "--rows 1,2,-3: rows cannot be fewer than none"),
        (("--calibration", "absent.yaml"), "absent.yaml"),
    ],
)
def test_mistakes_are_one_line(words: tuple[str, ...], said: str) -> None:
    done = plan(*words)
    assert done.returncode == 2
    assert said in done.stderr and done.stderr.count("\n") == 1
