from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from interloom.backends.transformers import ChatModel, load_model
from interloom.construct import critic_data, general, planner_data, store
from interloom.errors import InterloomError
from interloom.runner import StageRun
from interloom.settings.file import Settings
from interloom.train import sft, sft_critic, sft_planner

Open = Callable[[str], StageRun]
Make = Callable[..., Settings]


def metrics_of(stage: StageRun) -> dict[str, float]:
    return json.loads(stage.out("metrics").read_text())


def test_critic_stage_writes_a_model_metrics_and_a_curve(open_stage: Open, settings: Make):
    stage = open_stage("sft-critic")
    sft_critic.run(settings("sft_critic", batch_size=8, epochs=1), stage)
    metrics = metrics_of(stage)
    assert {"format_validity", "judgment_accuracy", "said_true", "step"} <= metrics.keys()
    chat = ChatModel.from_pretrained(stage.out("critic-sft"), max_new_tokens=4)
    assert sum(p.numel() for p in chat.model.parameters()) > 0
    lines = stage.out("curve").read_text().splitlines()
    assert lines[0] == "step,split,metric,value"
    assert any(line.split(",")[1:3] == ["train", "loss"] for line in lines)
    assert not list(stage.out("critic-sft").parent.glob("*.new"))


def test_planner_stage_trains_with_and_without_images(open_stage: Open, settings: Make):
    stage = open_stage("sft-planner")
    sft_planner.run(settings("sft_planner", batch_size=4, epochs=1), stage)
    assert {"plan_validity", "prompt_match"} <= metrics_of(stage).keys()
    assert (stage.out("planner-sft") / "model.safetensors").is_file()


def test_planner_rehearses_general_questions(
    open_stage: Open, settings: Make, capsys: pytest.CaptureFixture[str]
):
    def samples() -> int:
        sft_planner.run(settings("sft_planner", batch_size=4, epochs=0.2), stage)
        return int(re.findall(r"planner: (\d+) samples", capsys.readouterr().out)[-1])

    stage = open_stage("sft-planner")
    alone = samples()
    path = stage.dep("planner-data") / "general.parquet"
    store.write_table(path, general.rows("pocket", 9, 0), general.general_schema(), {})
    stage = open_stage("sft-planner")
    assert samples() == alone + 9


def test_one_agent_can_be_trained_for_both_jobs(
    open_stage: Open, settings: Make, capsys: pytest.CaptureFixture[str]
):
    def samples(times: int) -> int:
        stage = open_stage("sft-planner")
        chosen = settings("sft_planner", batch_size=4, epochs=0.2, with_critic_rows=times)
        sft_planner.run(chosen, stage)
        said = capsys.readouterr().out
        return int(re.findall(r"planner: (\d+) samples", said)[-1])

    alone = samples(0)
    assert samples(2) == alone + 2 * 28


class Killed(BaseException):
    pass


class KillAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step:
            raise Killed


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_a_killed_training_resumes_and_ends_with_the_same_model(
    lora_rank: int, open_stage: Open, settings: Make, monkeypatch: pytest.MonkeyPatch
):
    chosen = settings("sft_critic", batch_size=4, epochs=1, evaluations=3, lora_rank=lora_rank)
    whole = open_stage("sft-critic")
    sft_critic.run(chosen, whole)
    expected = metrics_of(whole)
    weights = (whole.out("critic-sft") / "model.safetensors").read_bytes()

    again = StageRun(whole._spec, whole._root, whole.work / "b", whole.work / "aside", None)
    again.work.mkdir()
    train = sft.train
    with monkeypatch.context() as patch:
        patch.setattr(sft, "train", lambda t, w, s: (t.add_callback(KillAt(4)), train(t, w, s)))
        with pytest.raises(Killed):
            sft_critic.run(chosen, again)
    half = again.work / "checkpoints" / "checkpoint-9999"
    half.mkdir()  # as a kill in the middle of a save leaves it
    sft_critic.run(chosen, again)
    assert metrics_of(again) == expected
    assert (again.out("critic-sft") / "model.safetensors").read_bytes() == weights
    assert not half.exists()


def test_an_adapter_is_merged_into_whole_weights_that_answer_alike(
    open_stage: Open, settings: Make
):
    from peft import PeftModel

    stage = open_stage("sft-critic")
    chosen = settings("sft_critic", batch_size=8, epochs=1, lora_rank=2, learning_rate=0.02)
    sft_critic.run(chosen, stage)
    assert not (stage.out("critic-sft") / "adapter_config.json").exists()
    base = load_model(stage.dep("vlm"))
    tuned = load_model(stage.out("critic-sft"))
    assert base.state_dict().keys() == tuned.state_dict().keys()
    tokens = torch.arange(20, 60)[None]
    with torch.no_grad():
        before, merged = base(tokens).logits, tuned(tokens).logits
        adapted = PeftModel.from_pretrained(base, str(stage.work / "best"))(tokens).logits
    assert not torch.allclose(before, merged, atol=1e-3)
    torch.testing.assert_close(merged, adapted, atol=1e-4, rtol=1e-3)


def test_recomputed_activations_change_nothing(open_stage: Open, settings: Make):
    def trained(checkpointing: bool) -> bytes:
        stage = open_stage("sft-critic")
        root = stage.work / str(checkpointing)
        root.mkdir()
        apart = StageRun(stage._spec, stage._root, root, root / "aside", None)
        options = {"batch_size": 8, "epochs": 0.5, "gradient_checkpointing": checkpointing}
        sft_critic.run(settings("sft_critic", **options), apart)
        return (apart.out("critic-sft") / "model.safetensors").read_bytes()

    assert trained(True) == trained(False)


def test_bfloat16_is_computed_in_while_the_weights_keep_small_steps(
    open_stage: Open, settings: Make
):
    chosen = settings("sft_critic", batch_size=8, epochs=1, learning_rate=1e-5)
    models = chosen.models.model_copy(update={"vlm_dtype": "bfloat16"})
    stage = open_stage("sft-critic")
    sft_critic.run(chosen.model_copy(update={"models": models}), stage)
    kept = load_file(stage.work / "best" / "model.safetensors")
    shipped = load_file(stage.out("critic-sft") / "model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    assert {tensor.dtype for tensor in shipped.values()} == {torch.bfloat16}
    base = load_file(stage.dep("vlm") / "model.safetensors")
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    moved = (kept[name] - base[name]).abs()
    # Steps that a bfloat16 weight would not have seen.
    assert 0 < moved.max() < 0.06 / 256


def test_a_broken_base_is_refused_before_the_first_step(
    open_stage: Open, settings: Make, project: Path
):
    path = project / "data/vlm/model.safetensors"
    save_file({name: t * float("nan") for name, t in load_file(path).items()}, path)
    stage = open_stage("sft-critic")
    with pytest.raises(InterloomError, match="critic's training data: the loss of the longest"):
        sft_critic.run(settings("sft_critic", batch_size=8, epochs=1), stage)
    assert not (stage.work / "history.json").exists()


def test_one_process_does_not_take_several_gpus(
    open_stage: Open, settings: Make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(
        InterloomError, match=r"2 GPUs and one process.*torchrun.*accelerate launch"
    ):
        sft_critic.run(settings("sft_critic", batch_size=8), open_stage("sft-critic"))


def test_loss_is_on_the_completion_alone(open_stage: Open, settings: Make, project: Path):
    from datasets import Dataset
    from trl import SFTTrainer

    from interloom.backends.transformers import load_processor
    from interloom.train.data import with_conversations

    chosen = settings("sft_critic", batch_size=4)
    stage = open_stage("sft-critic")
    rows = Dataset.from_parquet(
        str(project / "outputs/critic-data/sft.parquet"), cache_dir=str(project / "cache")
    )
    assert isinstance(rows, Dataset)
    samples = with_conversations(rows, lambda row: critic_data.to_conversation(row, "short"))
    processor = load_processor(project / "data/vlm")
    trainer = SFTTrainer(
        model=load_model(project / "data/vlm"),
        args=sft.sft_config(chosen.sft_critic, chosen.models, stage.work, 0),
        train_dataset=samples,
        processing_class=processor,
    )
    batch = trainer.data_collator([samples[0], samples[1]])
    label = batch["labels"][0]
    text = processor.tokenizer.decode(label[label != -100])  # type: ignore[attr-defined]
    wanted = critic_data.to_conversation(rows[0], "short")["completion"][0]["content"][0]["text"]
    assert text.startswith("<think>") and wanted in text
    assert batch["image_grid_thw"].shape[0] == 4


def test_mistakes_are_refused_before_training(open_stage: Open, settings: Make, project: Path):
    with pytest.raises(InterloomError, match="does not divide"):
        sft_critic.run(settings("sft_critic", batch_size=6), open_stage("sft-critic"))
    path = project / "outputs/planner-data/sft.parquet"
    store.write_table(path, [], planner_data.planner_schema(), {})
    with pytest.raises(InterloomError, match="no rows"):
        sft_planner.run(settings("sft_planner"), open_stage("sft-planner"))
    path.unlink()
    with pytest.raises(InterloomError, match="no such dataset"):
        sft_planner.run(settings("sft_planner"), open_stage("sft-planner"))
