from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from interloom.train.ranks import spread

TWO = """
import json, sys
from pathlib import Path
from types import SimpleNamespace

from accelerate import PartialState
from transformers import TrainerControl, TrainerState

from interloom.runner import StageRun
from interloom.stages import find_stage
from interloom.train import ranks
from interloom.train.watch import COMPLETE, Watch, checkpoints, last_checkpoint

state, root = PartialState(cpu=True), Path(sys.argv[1])
asked = []

def ask(mine):
    asked.append(list(mine))
    return [item * 10 for item in mine]

answers = ranks.spread([1, 2, 3, 4, 5], ask)
stage = StageRun(find_stage("sft-critic"), root, root / "work", root / "aside", None)
saved = []

def save(folder):
    saved.append(str(folder))  # every process is called, as a sharded model needs
    if ranks.is_main():
        (folder / "weights").write_text("w")

watch = Watch(stage, evaluate=lambda step: {"score": float(sum(answers)) + step}, select="score",
              evaluations=2, save=save)
control, trainer = TrainerControl(), TrainerState()
trainer.max_steps = 2
arguments = SimpleNamespace(output_dir=str(checkpoints(stage.work)))
watch.on_train_begin(arguments, trainer, control)
for step in (1, 2):
    trainer.global_step = step
    watch.on_log(arguments, trainer, control, logs={"loss": 1.0})
    watch.on_step_end(arguments, trainer, control)
    folder = checkpoints(stage.work) / f"checkpoint-{step}"
    if ranks.is_main():
        folder.mkdir(parents=True)
    watch.on_save(arguments, trainer, control)
watch.on_train_end(arguments, trainer, control)
ranks.wait()
told = {"answers": answers, "asked": asked, "saved": len(saved), "best": watch.best,
        "logged": len(watch.training), "last": last_checkpoint(stage.work).name}
(root / f"rank-{state.process_index}.json").write_text(json.dumps(told))
"""


def test_one_process_asks_for_everything():
    assert spread([1, 2, 3], lambda mine: [item + 1 for item in mine]) == [2, 3, 4]
    assert spread([], lambda mine: mine) == []


def test_two_processes_share_the_work_decide_alike_and_one_writes(tmp_path: Path):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    (tmp_path / "work").mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank-{i}.json").read_text()) for i in (0, 1))
    assert first["answers"] == second["answers"] == [10, 20, 30, 40, 50]
    assert (first["asked"], second["asked"]) == ([[1, 2, 3]], [[4, 5, 5]])
    assert first["best"] == second["best"] == {"step": 2, "score": 152.0}
    assert first["saved"] == second["saved"] == 2
    assert (first["logged"], second["logged"]) == (2, 0)
    assert first["last"] == second["last"] == "checkpoint-2"
    assert (tmp_path / "work/best/weights").read_text() == "w"
    assert done.stdout.count("step 2, held out") == 1
