"""What orchestration costs: the same stages as plain calls, under DVC, and under Prefect as well.

    python scripts/overhead.py                 fixed cost per stage, on stages that do nothing
    python scripts/overhead.py --lifecycle     the real lifecycle of this project, agents' stages
    python scripts/overhead.py --lifecycle --set prompts.count=80 …
    python scripts/overhead.py --lifecycle --ways plain dvc      only these ways

Every way starts from a fresh copy of the project with nothing computed. The plain way pays no
process starts, no hashing, no renaming and no records: one process calls the bodies in order.

Seconds are those on the clock and those of the processor. The latter are what to compare on a
machine that other work shares. They have everything that the command starts and waits for, the
Prefect server too, but not the process that writes to MLflow: it outlives its stage and works
beside the next one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from interloom.stages import wanted_stages

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
EMPTY = 6
EMPTY_MODULE = '''
"""Stages that do nothing but write one line, as a chain."""
import sys
from pathlib import Path
from interloom import stages
from interloom.stages import StageSpec

stages.STAGES = tuple(
    StageSpec(
        name=f"s{i}", summary="nothing", module="empty", sections=(),
        deps={"before": f"outputs/{i - 1}"} if i else {}, outs={"out": f"outputs/{i}"},
    )
    for i in range(COUNT)
)

def run(settings, stage):
    stage.out("out").write_text("x")

if __name__ == "__main__":
    if sys.argv[1] == "flow":
        from prefect import flow
        from flows.group import run_group
        @flow(name="empty")
        def empty():
            run_group([spec.name for spec in stages.STAGES], project=None, stages=None,
                      timeout_minutes=None, retries=None, force=False)
        empty()
    else:
        from interloom.runner import run_stage
        from interloom.settings.file import load_settings
        run_stage(stages.find_stage(sys.argv[1]), load_settings(), Path.cwd())
'''


class Took(NamedTuple):
    """Seconds on the clock, and of the processor in all processes that were waited for."""

    clock: float
    processor: float

    def each(self, count: int) -> Took:
        """Of one of so many."""
        return Took(self.clock / count, self.processor / count)


WAYS = ("plain", "dvc", "prefect")


def main() -> None:
    """Measure and print; the results also go to the file named by ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lifecycle", action="store_true", help="measure the real stages")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="params to change"
    )
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS, help="which of them")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    results: dict[str, object] = {"cpus": os.cpu_count()}
    if options.lifecycle:
        results["lifecycle"] = lifecycle(options.set, options.ways)
    else:
        results["fixed"] = fixed_costs()
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def fixed_costs() -> dict[str, Took]:
    """Seconds per stage that does nothing, each way, and what single parts take."""
    figures: dict[str, Took] = {}

    def note(name: str, took: Took, stages: int = 1) -> None:
        figures[name] = took.each(stages)
        each = " per stage" if stages > 1 else ""
        clock, processor = figures[name]
        print(f"  {clock:5.2f} s  {processor:5.2f} s  {name}{each}", flush=True)

    print(f"Fixed cost, from {EMPTY} stages that do nothing (plain calls: 0.00 s):")
    print("    clock  processor", flush=True)
    with project([]) as folder:
        (folder / "empty.py").write_text(EMPTY_MODULE.replace("COUNT", str(EMPTY)))
        (folder / "dvc.yaml").write_text(json.dumps({"stages": {
            f"s{i}": {"cmd": f"{sys.executable} empty.py s{i}", "outs": [f"outputs/{i}"],
                      "deps": [f"outputs/{i - 1}"] if i else []}
            for i in range(EMPTY)
        }}))  # fmt: skip
        change(folder, ["tracking.enabled=false"])
        python = sys.executable
        note("dvc", timed(["dvc", "repro"], folder), EMPTY)
        note("no-op dvc repro (whole)", timed(["dvc", "repro"], folder))
        for name, command in {
            "python start": [python, "-c", "pass"],
            "interloom run, nothing to do": [python, "empty.py", "s0"],
            "dvc start (dvc --version)": ["dvc", "--version"],
            "import mlflow client (once per lifecycle, beside the stage)": [
                python, "-c", "from mlflow.tracking import MlflowClient",
            ],
            "import prefect (once per lifecycle)": [
                python, "-c", "import prefect, prefect.artifacts",
            ],
        }.items():  # fmt: skip
            note(name, timed(command, folder))
        reset(folder)
        change(folder, ["tracking.enabled=true"])
        timed(["dvc", "repro", "s0"], folder)  # creates the tracking database
        reset(folder)
        note("dvc + mlflow", timed(["dvc", "repro"], folder), EMPTY)
        reset(folder)
        began = time.perf_counter()
        with prefect(folder) as env:
            note("prefect server start (once)", Took(time.perf_counter() - began, float("nan")))
            timed([python, "empty.py", "flow"], folder, env)
            reset(folder)
            flow = timed([python, "empty.py", "flow"], folder, env)
            note("prefect + dvc + mlflow", flow, EMPTY)
    return figures


def lifecycle(changes: list[str], ways: list[str]) -> dict[str, Took]:
    """What the project's real stages take each way."""
    found: dict[str, Took] = {}
    if "plain" in ways:
        found["plain"] = plain(changes)
    if "dvc" in ways:
        with project([*changes, "tracking.enabled=false"]) as folder:
            found["dvc"] = timed(["dvc", "repro", *wanted_stages(None, None)], folder)
    if "prefect" in ways:
        with project([*changes, "tracking.enabled=true"]) as folder:
            found["prefect + dvc + mlflow"] = timed(["interloom", "lifecycle"], folder)
            found["second run"] = timed(["interloom", "lifecycle"], folder)
    print("    clock  processor")
    for name, took in found.items():
        share = f"{took.processor / found['plain'].processor:5.2f}×" if "plain" in ways else ""
        print(f"  {took.clock:7.1f} s  {took.processor:7.1f} s  {share}  {name}")
    return found


def plain(changes: list[str]) -> Took:
    """The bodies, called in order in one process."""
    with project(changes) as folder:
        code = (
            "import time\n"
            "from importlib import import_module\n"
            "from pathlib import Path\n"
            "from interloom.runner import StageRun\n"
            "from interloom.seeding import seed_everything\n"
            "from interloom.settings.file import load_settings\n"
            "from interloom.stages import all_cells, find_stage, wanted_stages\n"
            "settings, here = load_settings(), Path.cwd()\n"
            "for name in all_cells(wanted_stages(None, None), settings):\n"
            "    spec = find_stage(name)\n"
            "    began, work = time.perf_counter(), here / '.interloom/plain' / name\n"
            "    work.mkdir(parents=True)\n"
            "    body = import_module(spec.module)\n"
            "    seed_everything(settings.seed)\n"
            "    body.run(settings, StageRun(spec, here, work, here, None))\n"
            "    print(f'  plain {spec.name}: {time.perf_counter() - began:.1f} s', flush=True)\n"
        )
        return timed([sys.executable, "-c", code], folder, quiet=False)


@contextmanager
def project(changes: list[str]) -> Iterator[Path]:
    """A fresh copy of this project's files with changed params; nothing is computed in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        folder.mkdir()
        kept = ("params.yaml", "dvc.yaml", "data.dvc", ".dvcignore", ".gitignore")
        for path in (*kept, ".dvc/config", ".dvc/plots", "src", "flows", "profiles", "data"):
            source = ROOT / path
            if source.is_dir():
                shutil.copytree(source, folder / path, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                (folder / path).parent.mkdir(exist_ok=True)
                shutil.copy2(source, folder / path)
        for command in (
            ["git", "init", "-q"],
            ["git", "add", "-A"],
            ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "x"],
        ):
            subprocess.run(command, cwd=folder, check=True)
        change(folder, changes)
        yield folder


def change(folder: Path, changes: list[str]) -> None:
    """Set params."""
    if changes:
        timed(["interloom", "params", "set", *changes], folder)


def reset(folder: Path) -> None:
    """Forget what was computed, but not the tracking database."""
    for name in ("outputs", ".dvc/cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "dvc.lock").unlink(missing_ok=True)


@contextmanager
def prefect(folder: Path) -> Iterator[dict[str, str]]:
    """A Prefect server; the environment to reach it."""
    from flows.launch import prefect_server

    with prefect_server(folder) as url:
        yield {"PREFECT_API_URL": f"{url}/api"}


def timed(
    command: list[str], folder: Path, env: dict[str, str] | None = None, quiet: bool = True
) -> Took:
    """What a command takes; it must succeed."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    python_path = os.pathsep.join([str(folder / "src"), str(folder)])
    full = {**os.environ, "PATH": path, "PYTHONPATH": python_path, **(env or {})}
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=folder, env=full, text=True, check=False,
        stdout=subprocess.PIPE if quiet else None, stderr=subprocess.STDOUT if quiet else None,
    )  # fmt: skip
    if done.returncode:
        print(done.stdout, file=sys.stderr)
        raise SystemExit(f"{command[:3]} gave {done.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(time.perf_counter() - began, spent)


if __name__ == "__main__":
    main()
