from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from interloom.backends.ledger import Ledger, Usage, as_table

WRITER = """
import sys
from pathlib import Path
from interloom.backends.ledger import Ledger, Usage
ledger = Ledger(Path(sys.argv[1]))
for _ in range(100):
    ledger.add("gemini", "m", "s", calls=1, usage=Usage(2, 3, 1), seconds=0.5, usd=0.25)
"""


def test_rows_add_up(tmp_path: Path):
    ledger = Ledger(tmp_path / "deep/ledger.sqlite")
    assert ledger.costs() == [] and ledger.spent("gemini") == (0, 0, 0)
    ledger.add("gemini", "pro", "trajectories", calls=1, usage=Usage(10, 20), usd=0.5)
    ledger.add("gemini", "pro", "trajectories", calls=1, failures=1, seconds=2.0, usd=0.125)
    ledger.add("gemini", "image", "trajectories", calls=1, usage=Usage(1, 2, 1), usd=2.0)
    ledger.add("openai", "gpt", "critic-data", calls=1, failures=1)
    image, pro, gpt = ledger.costs()
    assert (pro.calls, pro.failures, pro.input_tokens, pro.output_tokens) == (2, 1, 10, 20)
    assert (pro.usd, pro.dearest, pro.seconds) == (0.625, 0.5, 2.0)
    assert image.images == 1 and gpt.purpose == "critic-data"
    assert ledger.spent("gemini", "pro") == (2.625, 0.5, True)
    assert ledger.spent("gemini", "image") == (2.625, 2.0, True)
    assert ledger.spent("gemini", "flash") == (2.625, 0, False)
    assert ledger.spent("openai", "gpt") == (0, 0, False), "no answer, no known cost"


def test_several_processes_write_at_once(tmp_path: Path):
    path = tmp_path / "ledger.sqlite"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    (cost,) = Ledger(path).costs()
    assert (cost.calls, cost.input_tokens, cost.output_tokens, cost.images) == (300, 600, 900, 300)
    assert cost.usd == pytest.approx(75)


def test_table_ends_with_the_sums(tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.add("gemini", "pro", "trajectories", calls=3, usage=Usage(10, 20), usd=0.5, seconds=7200)
    ledger.add("openai", "gpt", "critic-data", calls=4, failures=1, usd=0.25)
    head, first, second, total = as_table(ledger.costs()).splitlines()
    assert head.split()[:2] == ["backend", "model"]
    assert " ".join(first.split()) == "gemini pro trajectories 3 0 10 20 0 2.00 0.5000"
    assert second.split()[0] == "openai"
    assert " ".join(total.split()) == "all 7 1 10 20 0 2.00 0.7500"
