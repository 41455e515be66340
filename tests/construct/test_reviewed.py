"""Files of feedback are looked through before anything is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_trajectories import trajectory

from interloom.construct import critic_data, reviewed, store
from interloom.errors import InterloomError


def written(path: Path, source: str = "feedback", count: int = 3) -> Path:
    rows = [
        {**row, "semantic": 9.0, "quality": 9.0, "split": "sft"}
        for n in range(count)
        for row in critic_data.decompose(trajectory(f"feedback/resp_{n}", ((n > 0,),)))
    ]
    about = {"format": reviewed.FORMAT, "source": source}
    store.write_table(path, rows, critic_data.critic_schema(), about)
    return path


def test_rows_and_reasons(tmp_path: Path):
    path = written(tmp_path / "f.parquet")
    found = reviewed.read(path, lambda row: "held-out" if "_1/" in row["id"] else None)
    assert found.judgments == {"feedback/resp_0/1/0": False, "feedback/resp_2/1/0": True}
    assert found.lost == {"held-out": 1}
    (row,) = reviewed.rows_of(path, {"feedback/resp_2/1/0"})
    assert row["success"] and row["id"] == "feedback/resp_2/1/0"


def test_other_files_are_refused(tmp_path: Path):
    with pytest.raises(InterloomError, match=r"dvc pull .*none\.parquet\.dvc"):
        reviewed.read(tmp_path / "none.parquet", lambda row: None)
    for name, made in (("other", {"source": "x"}), ("empty", {"count": 0})):
        path = written(tmp_path / f"{name}.parquet", **made)
        with pytest.raises(InterloomError, match="not a file of `interloom feedback export`"):
            reviewed.read(path, lambda row: None)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    with pytest.raises(InterloomError, match="not a sound Parquet file"):
        reviewed.read(broken, lambda row: None)
