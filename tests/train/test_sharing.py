from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from interloom.runner import StageRun
from interloom.settings import Settings
from interloom.train import sft_critic
from interloom.train.sharing import spread

TWO = """
import json, sys
from pathlib import Path
from types import SimpleNamespace

from accelerate import PartialState
from transformers import TrainerControl, TrainerState

from interloom.runner import StageRun
from interloom.stages import find_stage
from interloom.train import sharing
from interloom.train.watch import COMPLETE, Watch, checkpoints, last_checkpoint

state, root = PartialState(cpu=True), Path(sys.argv[1])
asked = []

def ask(mine):
    asked.append(list(mine))
    return [item * 10 for item in mine]

answers = sharing.spread([1, 2, 3, 4, 5], ask)
stage = StageRun(find_stage("sft-critic"), root, root / "work", root / "aside", None)
saved = []

def save(folder):
    saved.append(str(folder))  # every process is called, as a sharded model needs
    if sharing.is_main():
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
    if sharing.is_main():
        folder.mkdir(parents=True)
    watch.on_save(arguments, trainer, control)
watch.on_train_end(arguments, trainer, control)
sharing.wait()
told = {"answers": answers, "asked": asked, "saved": len(saved), "best": watch.best,
        "logged": len(watch.training), "last": last_checkpoint(stage.work).name}
(root / f"rank-{state.process_index}.json").write_text(json.dumps(told))
"""


def test_one_process_asks_for_everything():
    assert spread([1, 2, 3], lambda mine: [item + 1 for item in mine]) == [2, 3, 4]
    assert spread([], lambda mine: mine) == []


def test_two_processes_share_the_work_decide_alike_and_one_writes(tmp_path: Path):
    (tmp_path / "work").mkdir()
    said = twice(tmp_path / "two.py", TWO, tmp_path)
    first, second = (json.loads((tmp_path / f"rank-{i}.json").read_text()) for i in (0, 1))
    assert first["answers"] == second["answers"] == [10, 20, 30, 40, 50]
    assert (first["asked"], second["asked"]) == ([[1, 2, 3]], [[4, 5, 5]])
    assert first["best"] == second["best"] == {"step": 2, "score": 152.0}
    assert first["saved"] == second["saved"] == 2
    assert (first["logged"], second["logged"]) == (2, 0)
    assert first["last"] == second["last"] == "checkpoint-2"
    assert (tmp_path / "work/best/weights").read_text() == "w"
    assert said.count("step 2, held out") == 1


CRITIC = """
import json, os, sys
from pathlib import Path

from interloom.runner import StageRun
from interloom.settings import settings_from
from interloom.stages import find_stage
from interloom.train import sft_critic

root, settings = Path(sys.argv[1]), Path(sys.argv[2])
aside = root / f"aside-{os.environ['RANK']}"
stage = StageRun(find_stage("sft-critic"), root, root / "shared", aside, None)
sft_critic.run(settings_from(json.loads(settings.read_text()), "test"), stage)
"""


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_processes_train_what_one_does(
    sharding: str,
    open_stage: Callable[[str], StageRun],
    settings: Callable[..., Settings],
    project: Path,
):
    """The same batches, whole or sharded model; the main process writes whole weights."""
    chosen = settings("sft_critic", batch_size=8, epochs=1, micro_batch_size=2, sharding=sharding)
    alone = open_stage("sft-critic")
    sft_critic.run(chosen, alone)
    (project / "shared").mkdir()
    params = project / "params.json"
    params.write_text(chosen.model_dump_json())
    said = twice(project / "two.py", CRITIC, project, params)
    assert said.count("held out: format_validity") == 2  # evaluations, each told once
    ours = load_file(project / "aside-0/outputs/models/critic-sft/model.safetensors")
    theirs = load_file(alone.out("critic-sft") / "model.safetensors")
    assert not (project / "aside-1/outputs/models/critic-sft").exists()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=2e-4, rtol=1e-2)


def twice(script: Path, text: str, *arguments: Path) -> str:
    """Run a script in two processes as torchrun does; what both said."""
    script.write_text(text)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
