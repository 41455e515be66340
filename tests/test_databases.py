from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from interloom.backends.ledger import Ledger
from interloom.cache import CACHE, CallCache, kept_answers
from interloom.databases import told_if_damaged
from interloom.digests import digest
from interloom.errors import InterloomError


def test_a_damaged_file_is_named_with_what_is_lost_without_it(tmp_path: Path):
    answers = tmp_path / CACHE / "trajectories/answers.sqlite"
    answers.parent.mkdir(parents=True)
    for path, opened, lost in (
        (tmp_path / "ledger.sqlite", Ledger, "lower the budgets"),
        (answers, CallCache, "asked for, and paid, again"),
        (answers, lambda path: kept_answers(tmp_path), "asked for, and paid, again"),
    ):
        path.write_bytes(b"half of a file " * 100)
        with pytest.raises(InterloomError, match=rf"{path.name}: not a sound SQLite file .*{lost}"):
            opened(path)
        assert path.read_bytes().startswith(b"half"), "nothing is thrown away"


def test_locks_and_full_disks_are_no_damage(tmp_path: Path):
    with (
        pytest.raises(sqlite3.OperationalError, match="locked"),
        told_if_damaged(tmp_path / "x", "nothing"),
    ):
        raise sqlite3.OperationalError("database is locked")


def test_a_damaged_memory_of_digests_is_begun_anew(tmp_path: Path):
    large, memory = tmp_path / "large", tmp_path / "memory.sqlite"
    large.write_bytes(bytes(1 << 20))
    whole = digest(large, memory)
    memory.write_bytes(b"half of a file " * 100)
    assert digest(large, memory) == digest(large, memory) == whole
    with sqlite3.connect(memory) as table:
        assert table.execute("SELECT md5 FROM digests").fetchall() == [(whole,)]
