from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
from study_tasks import crash, fail, note

from interloom.errors import InterloomError
from interloom.study.tasks import LOG, Task, cost, is_done, run_all


def task(folder: Path, *needs: Path) -> Task:
    return Task(folder.name, folder, partial(note, before=needs), needs)


def test_tasks_run_after_what_they_need_in_few_processes_and_once(tmp_path: Path):
    a, b, c, d = (tmp_path / name for name in "abcd")
    # Asked for in the wrong order, and one of them twice.
    tasks = [task(d, b, c), task(b, a), task(c, a), task(a), task(b, a)]
    said: list[str] = []
    run_all(tasks, 2, said.append)
    made = {path.name: (path / "made").read_text().split() for path in (a, b, c, d)}
    assert made["d"][0::2] == ["True", "True"] and made["d"][3] == "True"
    assert len({words[1] for words in made.values()} - {str(os.getpid())}) <= 2
    assert all(words[1] != str(os.getpid()) for words in made.values())
    assert "working" in (a / LOG).read_text()
    assert said[0].startswith("a: ") and "(4 of 4 done" in said[-1] and "to go" in said[-1]
    assert cost(a)["cpu_seconds"] >= 0

    (a / "made").unlink()
    run_all(tasks, 2, said.append)  # all done: nothing happens, not even a process
    assert len(said) == 4 and not (a / "made").exists()


def test_a_failed_task_names_its_log_and_what_is_done_stays_done(tmp_path: Path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    tasks = [task(good), Task("bad", bad, fail, (good,)), task(tmp_path / "after", bad)]
    with pytest.raises(InterloomError, match=r"bad failed: no luck in bad; see .*bad/log\.txt"):
        run_all(tasks, 1, lambda text: None)
    assert is_done(good) and not is_done(bad) and not is_done(tmp_path / "after")
    run_all([task(good), task(bad, good)], 1, lambda text: None)
    assert is_done(bad)
    with pytest.raises(InterloomError, match="c failed: ZeroDivisionError: by nothing"):
        run_all([Task("c", tmp_path / "c", crash)], 1, lambda text: None)


SLEEPER = """
import sys, time
from pathlib import Path
from interloom.study.tasks import Task, run_all

def sleep(folder):
    import os
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    run_all([Task("a", Path(sys.argv[1]), sleep)], 1, print)
"""


def test_workers_end_with_a_killed_study(tmp_path: Path):
    script, folder = tmp_path / "study.py", tmp_path / "a"
    script.write_text(SLEEPER)
    study = subprocess.Popen([sys.executable, str(script), str(folder)])
    end = time.monotonic() + 60
    while not (folder / "pid").exists() or not (folder / "pid").read_text():
        assert time.monotonic() < end and study.poll() is None
        time.sleep(0.1)
    worker = psutil.Process(int((folder / "pid").read_text()))
    study.send_signal(signal.SIGKILL)
    study.wait()
    worker.wait(20)
    assert not is_done(folder)
