from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from sample_trajectories import odd_ones, trajectory

from interloom.construct import store
from interloom.errors import InterloomError

ABOUT = {"format": "trajectories/1", "seed": 7}


def test_trajectories_come_back_as_they_were(tmp_path: Path):
    made = [trajectory("a"), *odd_ones(), trajectory("b", ((False, False, False), (True,)), 50)]
    assert store.write_shards(made, tmp_path, shard_rows=3, about=ABOUT) == len(made)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        f"part-0000{i}.parquet" for i in range(3)
    ]
    assert list(store.read_trajectories(tmp_path)) == made


def test_shards_describe_themselves_and_are_equal_bytes(tmp_path: Path):
    made = [trajectory(str(i), first_image=10 * i) for i in range(5)]
    for name in ("one", "two"):
        store.write_shards(made, tmp_path / name, shard_rows=2, about=ABOUT)
    assert store.about(tmp_path / "one/part-00002.parquet") == ABOUT | {
        "shard": 2, "rows": 1,
    }  # fmt: skip
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_readable_with_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from datasets import load_dataset

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made = [trajectory("a"), trajectory("b", first_image=9), *odd_ones()]
    store.write_shards(made, tmp_path / "data", shard_rows=1, about=ABOUT)
    rows = load_dataset(
        "parquet", data_files=str(tmp_path / "data/*.parquet"), split="train",
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    assert [store.trajectory_from(row) for row in rows] == made


def test_missing_and_broken_files_are_named(tmp_path: Path):
    with pytest.raises(InterloomError, match="run the stage"):
        list(store.read_rows(tmp_path / "none.parquet"))
    (tmp_path / "part-00000.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(InterloomError, match=r"part-00000\.parquet: not a sound Parquet file"):
        list(store.read_rows(tmp_path))


def test_pages_that_do_not_unpack_and_other_columns_are_named(tmp_path: Path):
    """What a damaged disk or another file under the same name look like, to both readers."""
    made = [trajectory(str(i), first_image=10 * i) for i in range(3)]
    store.write_shards(made, tmp_path, shard_rows=3, about=ABOUT)
    shard = tmp_path / "part-00000.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    readers = (store.read_trajectories, lambda path: store.read_chosen(path, ["0", "1"]))
    for read in readers:
        with pytest.raises(InterloomError, match=r"part-00000\.parquet: not a sound Parquet file"):
            list(read(tmp_path))
    store.write_table(shard, [{"id": "0"}], pa.schema({"id": pa.string()}), {})
    for read in readers:
        with pytest.raises(InterloomError, match=r"part-00000\.parquet: no column 'attempts'"):
            list(read(tmp_path))


def test_a_failing_write_leaves_no_file(tmp_path: Path):
    def rows():
        yield store.trajectory_row(trajectory("a"))
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        store.write_table(tmp_path / "x.parquet", rows(), store.trajectory_schema(), {}, 1)
    assert not (tmp_path / "x.parquet").exists()
