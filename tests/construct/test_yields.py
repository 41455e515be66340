from __future__ import annotations

import json
from pathlib import Path

import pytest

from interloom.construct.yields import Yield, account, write_csv, write_metrics

YIELDS = [Yield("filter", 10, 7, {"low": 2, "falling": 1}), Yield("balance", 7, 7)]


def test_account_lists_where_rows_went():
    assert account("critic-data", YIELDS) == [
        {"stage": "critic-data", "step": "filter", "outcome": "kept", "rows": 7},
        {"stage": "critic-data", "step": "filter", "outcome": "falling", "rows": 1},
        {"stage": "critic-data", "step": "filter", "outcome": "low", "rows": 2},
        {"stage": "critic-data", "step": "balance", "outcome": "kept", "rows": 7},
    ]


def test_accounts_must_add_up():
    with pytest.raises(AssertionError):
        Yield("filter", 10, 7, {"low": 2})


def test_files(tmp_path: Path):
    write_csv(tmp_path / "plots/x.csv", "s", YIELDS)
    lines = (tmp_path / "plots/x.csv").read_text().splitlines()
    assert lines[:2] == ["stage,step,outcome,rows", "s,filter,kept,7"] and len(lines) == 5
    write_metrics(tmp_path / "metrics/x.json", YIELDS, {"rows": 7})
    assert json.loads((tmp_path / "metrics/x.json").read_text()) == {
        "filter.came": 10, "filter.kept": 7, "filter.lost.falling": 1, "filter.lost.low": 2,
        "balance.came": 7, "balance.kept": 7, "rows": 7,
    }  # fmt: skip


def test_share():
    assert YIELDS[0].share == 0.7 and Yield("none", 0, 0).share == 1.0
