from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from interloom import dvc_state
from interloom.errors import InterloomError

LOCK = textwrap.dedent("""\
    schema: '2.0'
    stages:
      first:
        cmd: interloom run first
        deps:
        - path: src
          hash: md5
          md5: 0123456789abcdef.dir
          size: 10
        outs:
        - path: outputs/a
          hash: md5
          md5: fedcba9876543210
          size: 3
      second:
        cmd: interloom run second
        outs:
        - path: outputs/b
          hash: md5
          md5: fedcba9876543211
          size: 4
    """)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / "dvc.lock").write_text(LOCK)
    dvc_state.keep(tmp_path)
    return tmp_path


def test_nothing_to_repair(root: Path):
    (root / ".dvc/tmp/rwlock").write_text("{}")
    assert dvc_state.repair(root) == []


def test_a_lock_cut_off_anywhere_is_put_back(root: Path):
    for length in range(len(LOCK)):
        (root / "dvc.lock").write_text(LOCK[:length])
        said = dvc_state.repair(root)
        now = (root / "dvc.lock").read_text()
        # Cut between two outputs it is a whole lock file of less, which DVC can read.
        assert now == LOCK if said else dvc_state._whole(root / "dvc.lock"), length
    (root / "dvc.lock").write_text("")
    dvc_state.keep(root)
    assert (root / dvc_state.COPY).read_text() == LOCK, "a cut off lock is never kept"


def test_without_a_copy_the_lock_goes(root: Path):
    (root / dvc_state.COPY).unlink()
    (root / "dvc.lock").write_text(LOCK[:200])
    assert "no stage had kept a copy" in dvc_state.repair(root)[0]
    assert not (root / "dvc.lock").exists()


def test_a_cut_off_table_of_commands_goes(root: Path):
    (root / ".dvc/tmp/rwlock").write_text('{"a')
    assert dvc_state.repair(root) == ["removed .dvc/tmp/rwlock: it was cut off"]
    assert dvc_state.repair(root) == []


def test_not_while_dvc_runs(root: Path):
    (root / ".dvc/tmp/rwlock").write_text("")
    code = (
        "import sys, zc.lockfile as z; lock = z.LockFile(sys.argv[1]); print('held', flush=True);"
        "sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(root / ".dvc/tmp/lock")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        with pytest.raises(InterloomError, match="dvc is running here"):
            dvc_state.repair(root)
        holder.communicate()
    assert dvc_state.repair(root)
