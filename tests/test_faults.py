"""What is wrong with the machine or a file ends in one line that says so, and loses nothing."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import subprocess
import sys
from typing import Any

import pytest
from tiny_project.project import Project, stage_command

from interloom.faults import machine_fault


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a user sees instead of a traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("interloom: ")]
    return line


WRITERS = {
    "text": "Path('x').write_text('x' * 1_000_000)",
    "parquet": "import pyarrow as pa, pyarrow.parquet as pq\n"
    "    pq.write_table(pa.table({'x': list(range(1_000_000))}), 'x')",
    "safetensors": "import numpy; from safetensors.numpy import save_file\n"
    "    save_file({'x': numpy.zeros(1_000_000)}, 'x')",
    "sqlite": "import sqlite3; table = sqlite3.connect('x')\n"
    "    table.execute('create table t (x)')\n"
    "    table.executemany('insert into t values (?)', [('y' * 1000,)] * 1000); table.commit()",
}


@pytest.mark.parametrize("library", WRITERS)
def test_a_full_disk_is_known_by_whatever_writes(library: str, project: Project) -> None:
    code = (
        "from pathlib import Path\nfrom interloom.faults import machine_fault\n"
        f"try:\n    {WRITERS[library]}\n"
        "except Exception as error:\n    print(machine_fault(error), '|', repr(error))\n"
    )
    (project.root / "small").mkdir()
    mount = "mount -t tmpfs -o size=256k tmpfs small && cd small"
    done = in_a_small_world(project, mount, sys.executable, "-c", code)
    assert done.stdout.startswith("the disk is full |"), done.stdout + done.stderr


def test_other_errors_are_not_the_machine() -> None:
    assert machine_fault(sqlite3.OperationalError("database or disk is full")) is not None
    assert machine_fault(sqlite3.OperationalError("database is locked")) is None
    assert machine_fault(FileNotFoundError(errno.ENOENT, "No such file or directory")) is None
    place = IsADirectoryError(errno.EISDIR, "Is a directory", "outputs")
    assert machine_fault(place) == "outputs may not be written or read (Is a directory)"
    wrapped = RuntimeError("cannot save")
    wrapped.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert machine_fault(wrapped) == "the disk is full"
    assert machine_fault(OSError(errno.EROFS, "Read-only file system", "x")) == (
        "x may not be written or read (Read-only file system)"
    )


def in_a_small_world(project: Project, mount: str, *command: str) -> Any:
    """Run a command with another file system mounted, which nobody else sees."""
    tried = ["unshare", "-rm", "true"]
    if shutil.which("unshare") is None or subprocess.run(tried, check=False).returncode:
        pytest.skip("no user namespaces here")
    script = f'{mount} && exec "$@"'
    return project.run("unshare", "-rm", "sh", "-c", script, "sh", *command, check=False)


def test_a_disk_that_fills_up_while_a_stage_writes(project: Project) -> None:
    project.stage("numbers")
    before = project.outputs()
    project.set_params(prompts={"count": 300_000})
    (project.root / ".interloom/work").mkdir(exist_ok=True, parents=True)
    mount = "mount -t tmpfs -o size=512k tmpfs .interloom/work"
    said = complaint(in_a_small_world(project, mount, *stage_command("numbers")))
    assert "stage numbers: the disk is full; " in said and " MiB are free in " in said
    assert project.outputs() == before
    project.set_params(prompts={"count": 5})
    project.stage("numbers")
    assert project.leftovers() == []


def test_a_folder_that_may_not_be_written(project: Project) -> None:
    (project.root / ".interloom").mkdir(exist_ok=True)
    mount = "mount -t tmpfs -o ro tmpfs .interloom"
    said = complaint(in_a_small_world(project, mount, *stage_command("numbers")))
    assert ".interloom/work may not be written or read (Read-only file system)" in said


def test_a_damaged_input_is_named_with_what_brings_it_back(project: Project) -> None:
    project.repro()
    part = project.root / "outputs/squares/part-00001.txt"
    part.unlink()
    part.write_text("not a number")
    said = complaint(project.stage("total", check=False))
    assert "ValueError: invalid literal for int()" in said
    assert said.endswith("put it back: outputs/squares: `dvc checkout squares`")
    project.run("dvc", "checkout", "--force", "squares")
    project.stage("total")


def test_damaged_shipped_data_is_named(project: Project) -> None:
    """Two of three shipped models are sound; the folder that a stage reads is named."""
    from interloom import dvc_state
    from interloom.digests import digest

    for name in ("generator", "vlm"):
        (project.root / "data" / name).mkdir(parents=True)
        (project.root / "data" / name / "weights").write_bytes(name.encode() * 1000)
    project.run("dvc", "add", "-q", "data")
    found = {"data/vlm": digest(project.root / "data/vlm")}
    assert dvc_state.changed(project.root, found) == {}
    weights = project.root / "data/vlm/weights"
    weights.unlink()
    weights.write_bytes(b"half")
    found = {"data/vlm": digest(project.root / "data/vlm")}
    assert dvc_state.changed(project.root, found) == {"data/vlm": "dvc checkout --force data.dvc"}


def test_other_failures_keep_their_traceback(project: Project) -> None:
    """An error of the code is not taken for one of the data."""
    project.repro()
    done = project.stage("total", check=False, TINY_READ_UNDECLARED="1")
    assert "Traceback" in done.stderr
    assert "no attribute 'prompts'" in done.stderr


def test_the_command_line_says_it_too(project: Project) -> None:
    """Outside of stages: a params file on a file system that cannot be written."""
    command = (sys.executable, "-m", "interloom.cli", "params", "set", "prompts.count=9")
    mount = "mount --bind . /mnt && mount -o remount,bind,ro /mnt && cd /mnt"
    said = complaint(in_a_small_world(project, mount, *command))
    assert "may not be written or read (Read-only file system)" in said
