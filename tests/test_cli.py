"""The command line, as a user meets it: each command is a real process."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from interloom.backends.ledger import LEDGER, Ledger, Usage
from interloom.cache import CACHE, CallCache

ROOT = Path(__file__).parent.parent
HELP_SECONDS = 1.0
"""Of the processor: on the clock it is what other work on the machine leaves."""


def interloom(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "interloom.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_help_is_quick_and_lists_everything() -> None:
    interloom("--help")  # compiles what is not compiled yet
    times = []
    for _ in range(3):
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = interloom("--help")
        clock, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        print(f"interloom --help: {clock:.2f} s, {times[-1]:.2f} s of the processor")
    assert min(times) < HELP_SECONDS
    for command in "run stages params doctor lifecycle ui track cost pocket".split():  # noqa: SIM905
        assert command in done.stdout


def test_help_of_groups_is_about_them() -> None:
    done = interloom("show", "--help")
    assert "trajectories" in done.stdout and "completion" not in done.stdout


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys, interloom.cli\n"
        "heavy = {'torch', 'mlflow', 'prefect', 'dvc', 'pandas', 'numpy', 'pydantic', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['pydantic']")


def test_stages_params_version() -> None:
    listed = interloom("stages").stdout
    assert "grpo-critic" in listed
    assert "critic-data, validation, critic-sft" in listed
    assert "seed = " in interloom("params", "show").stdout
    checked = interloom("params", "check").stdout
    assert "params.yaml: profile pocket, good" in checked
    assert "paper.yaml: profile paper, good" in checked
    assert interloom("version").stdout.startswith("interloom ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "promts"), "no stage 'promts'; stages: prompts, "),
        (("lifecycle", "--only", "x"), "no stage 'x'"),
        (("lifecycle", "--from", "prompts", "--only", "prompts"), "not both"),
        (("lifecycle", "--profile", "huge"), "no profile 'huge'; profiles: paper, pocket"),
        (("params", "use", "huge"), "no profile 'huge'; profiles: paper, pocket"),
        (("params", "show", "--params", "absent.yaml"), "absent.yaml: no such file"),
        (("params", "set", "prompts.count=0"), "prompts.count = 0: expected a whole number ≥ 1"),
    ],
)
def test_mistakes_are_one_line_and_status_2(words: tuple[str, ...], said: str) -> None:
    done = interloom(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("interloom: ")


def test_outside_of_a_project(tmp_path: Path) -> None:
    done = interloom("stages", cwd=tmp_path)
    assert done.returncode == 2
    assert "is in no interloom project" in done.stderr


def test_works_from_a_folder_inside_the_project() -> None:
    assert "prompts" in interloom("stages", cwd=ROOT / "src").stdout


def test_cost(tmp_path: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    done = interloom("cost", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "no remote call has been made here\n")
    ledger = Ledger(tmp_path / LEDGER)
    ledger.add("gemini", "gemini-2.5-pro", "trajectories", calls=3, usage=Usage(10, 20), usd=1.5)
    said = interloom("cost", cwd=tmp_path).stdout
    assert "gemini-2.5-pro" in said and "trajectories" in said
    assert "gemini: 1.50 of 5.00 US$ (remote.gemini.budget_usd)" in said
    CallCache(tmp_path / CACHE / "trajectories/answers.sqlite").put(b"key", b"answer")
    assert "1 answers are kept in .interloom/cache" in interloom("cost", cwd=tmp_path).stdout
    (row,) = json.loads(interloom("cost", "--json", cwd=tmp_path).stdout)
    assert row["calls"] == 3 and row["output_tokens"] == 20 and row["usd"] == 1.5


def test_doctor_says_what_is_there_and_what_is_disabled() -> None:
    done = interloom("doctor")
    for word in (
        "packages",
        "params",
        "disk",
        "data",
        "remote",
        "mlflow",
        "prefect",
        "gemini",
        "gpu",
    ):
        assert word in done.stdout
    assert "not used by this profile" in done.stdout or "is set" in done.stdout
