"""Supervised fine-tuning of one agent with TRL (InterleaveThinker §3.4: Planner and Critic alike).

Completion-only loss on multi-image conversations, full or LoRA, checkpoints that a killed stage
resumes from, held-out figures during the training and the best checkpoint kept. ``sft_planner``
and ``sft_critic`` say what is trained on; everything else is here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset
from transformers import PrinterCallback
from transformers.utils import logging as transformers_logging
from trl.trainer.sft_config import SFTConfig

from interloom import ranks
from interloom.backends.transformers import (
    ChatModel,
    ImageOnlyQwen3VLProcessor,
    load_model,
    load_processor,
    number_type,
)
from interloom.dialogue import Conversation
from interloom.errors import InterloomError
from interloom.runner import StageRun
from interloom.seeding import derive_seed, seed_everything
from interloom.settings.models import ModelsSettings
from interloom.settings.training import SftSettings, TrainerSettings
from interloom.train import preflight, together
from interloom.train.batches import LikeLengthsSFTTrainer
from interloom.train.watch import (
    Metrics,
    Watch,
    checkpoints,
    last_checkpoint,
    replace_folder,
    write_curve,
)

SHIPPED = Path("data/vlm")


@dataclass(frozen=True)
class Task:
    """What one agent is trained on.

    ``lengths`` says about how long each sample is, in any unit; batches are made of samples alike.
    ``figures`` measures the answers to ``held_out`` and is given them in that order. ``select``
    names the figure that chooses the checkpoint (larger is better).
    """

    name: str
    samples: Dataset
    lengths: list[int]
    held_out: list[Conversation]
    figures: Callable[[list[str]], Metrics]
    select: str
    images_needed: bool


def fit(
    task: Task,
    settings: SftSettings,
    models: ModelsSettings,
    stage: StageRun,
    *,
    base: Path,
    out: str,
    seed: int,
) -> None:
    """Train, keep the best checkpoint as the output ``out``, write the metrics and the curve.

    Raises:
        InterloomError: whatever the preflight finds, before the first step.
    """
    prepare(settings.threads, seed)
    config = sft_config(settings, models, stage.work, seed)
    processor = load_processor(base, max_image_pixels=models.max_image_pixels)
    model = load_model(base, dtype=settings.weights_dtype)
    if not task.held_out:
        raise InterloomError(f"{task.name}: too few samples to keep any from training")
    longest = preflight.check_samples(
        model,
        processor,
        task.samples,  # type: ignore[arg-type]
        task.lengths,
        what=f"the {task.name}'s training data",
        images_needed=task.images_needed,
    )
    count = len(task.samples)
    stage.log(f"{task.name}: {count} samples, the longest has {longest.tokens} tokens")
    trainer = LikeLengthsSFTTrainer(
        lengths=task.lengths,
        batch_size=settings.batch_size,
        model=model,
        args=config,
        train_dataset=task.samples,
        processing_class=processor,
        peft_config=lora(settings),
    )
    trainer.add_callback(preflight.TryLongest(longest, settings.micro_batch_size))
    chat = ChatModel(
        trainer.model,  # type: ignore[arg-type]
        processor,
        batch_size=settings.micro_batch_size * 4,
        max_new_tokens=settings.max_new_tokens,
    )

    def evaluate(_: int) -> Metrics:
        return task.figures(in_evaluation_mode(chat, task.held_out))

    watch = Watch(
        stage,
        evaluate=evaluate,
        select=task.select,
        evaluations=settings.evaluations,
        save=lambda folder: save(trainer, processor, folder),
        patience=settings.patience,
    )
    train(trainer, watch, stage)
    finish(watch, stage, base, out, models, settings)


def base_model(models: ModelsSettings, shipped: Path) -> Path:
    """The model to start from: the shipped folder, or whatever else the profile names."""
    return shipped if Path(models.vlm) == SHIPPED else Path(models.vlm)


def sft_config(settings: SftSettings, models: ModelsSettings, work: Path, seed: int) -> SFTConfig:
    """TRL's settings from ours. ``max_length`` stays off: cutting a sample would cut image
    tokens."""
    return SFTConfig(
        **trainer_arguments(settings, models, work, seed),
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=accumulation(
            "batch_size", settings.batch_size, settings.micro_batch_size
        ),
        num_train_epochs=settings.epochs,
        max_length=None,
        completion_only_loss=True,
        remove_unused_columns=False,  # rows become samples in a transform, after this would act
        logging_steps=5,
        logging_first_step=True,
    )


def trainer_arguments(
    settings: TrainerSettings, models: ModelsSettings, work: Path, seed: int
) -> dict[str, Any]:
    """What SFT and GRPO set alike. ``report_to`` is none: the stage's own run is the only
    record."""
    gpu = torch.cuda.is_available()
    return {
        "output_dir": str(checkpoints(work)),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "optim": "adamw_torch",
        "activation_checkpointing": settings.gradient_checkpointing,
        # Computed in the number type of inference; what is stored is `weights_dtype`.
        "bf16": models.vlm_dtype == "bfloat16",
        "fp16": models.vlm_dtype == "float16",
        "use_cpu": not gpu,
        "dataloader_pin_memory": gpu,
        "save_strategy": "no",  # the watch asks for a checkpoint after each evaluation
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": seed,
        "data_seed": seed,
    }


def accumulation(name: str, batch: int, micro: int) -> int:
    """Forward passes per optimiser step on each device.

    Raises:
        InterloomError: the batch does not divide.
    """
    devices = ranks.world()
    if batch % (micro * devices):
        raise InterloomError(
            f"{name} = {batch} does not divide into micro_batch_size {micro} × {devices} device(s)"
        )
    return batch // (micro * devices)


def lora(settings: TrainerSettings) -> Any:
    """The adapter's settings, or ``None`` for full fine-tuning."""
    if not settings.lora_rank:
        return None
    from peft import LoraConfig

    rank = settings.lora_rank
    return LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def prepare(threads: int, seed: int) -> None:
    """Seeds, CPU threads (0 leaves them to torch), and silence of the libraries' own bars.

    Raises:
        InterloomError: several GPUs for one process.
    """
    preflight.check_devices()
    if threads:
        torch.set_num_threads(threads)
    together.join()
    seed_everything(seed)
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()


def in_evaluation_mode(
    chat: ChatModel, conversations: list[Conversation], temperature: float = 0.0, seed: int = 0
) -> list[str]:
    """Answers of a model that is in training, which is left in the mode it was in.

    Several processes share the work.
    """
    training = chat.model.training
    chat.model.eval()
    if ranks.rank():
        seed = derive_seed(seed, "process", ranks.rank())
    try:
        return together.spread(
            conversations,
            lambda part: chat.generate(list(part), temperature=temperature, seed=seed),
        )
    finally:
        chat.model.train(training)


def train(trainer: Any, watch: Watch, stage: StageRun) -> None:
    """Train to the end, from the last whole checkpoint if there is one."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watch)
    resumed = last_checkpoint(stage.work)
    if resumed is not None:
        stage.log(f"continuing from {resumed.name}")
    try:
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    except torch.OutOfMemoryError as error:
        raise InterloomError(
            "out of memory while training: lower micro_batch_size or max_new_tokens, or set "
            "gradient_checkpointing"
        ) from error


def save(trainer: Any, processor: ImageOnlyQwen3VLProcessor, folder: Path | None) -> None:
    """The current model (an adapter alone, if there is one) and its processor.

    Of a model that is sharded over processes all give their part; the first has the ``folder``.
    """
    weights = None
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if folder is not None:
        model = trainer.accelerator.unwrap_model(trainer.model)
        model.save_pretrained(folder, state_dict=weights)
        processor.save_pretrained(folder)


def export(
    best: Path, base: Path, out: Path, models: ModelsSettings, *, merge: bool, weights_dtype: str
) -> None:
    """Write the best checkpoint as a whole model folder in the number type of inference; an
    adapter is merged into its base as it was trained on it."""
    processor = load_processor_files(best)
    if merge:
        from peft import PeftModel

        merged: Any = PeftModel.from_pretrained(load_model(base, dtype=weights_dtype), str(best))
        model: Any = merged.merge_and_unload()
    else:
        model = load_model(best, dtype=weights_dtype)
    model.to(number_type(models.vlm_dtype))

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)

    replace_folder(out, write)


def load_processor_files(folder: Path) -> ImageOnlyQwen3VLProcessor:
    """The processor of a checkpoint (which, with an adapter, is no model folder of its own)."""
    processor = ImageOnlyQwen3VLProcessor.from_pretrained(folder)
    assert isinstance(processor, ImageOnlyQwen3VLProcessor)
    return processor


def finish(
    watch: Watch,
    stage: StageRun,
    base: Path,
    out: str,
    models: ModelsSettings,
    settings: TrainerSettings,
    further: Metrics | None = None,
) -> None:
    """Write the stage's products, in the first process: the best model, its evaluation as metrics
    (and what else is given), and the curve of all evaluations. All processes end together."""
    if ranks.rank() == 0:
        export(
            stage.work / "best",
            base,
            stage.out(out),
            models,
            merge=settings.lora_rank > 0,
            weights_dtype=settings.weights_dtype,
        )
    write_figures(watch, stage, further)


def write_figures(watch: Watch, stage: StageRun, further: Metrics | None = None) -> None:
    """The best evaluation (and what else is given) as the stage's metrics, and the curve of all."""
    if ranks.rank() == 0:
        stage.out("metrics").parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**watch.best, **(further or {})}, indent=2, sort_keys=True)
        stage.out("metrics").write_text(text + "\n")
        write_curve(stage.out("curve"), watch)
    together.wait_for_all()
