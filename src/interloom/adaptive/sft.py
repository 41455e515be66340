"""Stage ``sft-adaptive``: the unified model learns stories, with selective loss masking (§3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from datasets import Dataset
from trl.trainer.sft_config import SFTConfig

from interloom import cast, ranks
from interloom.adaptive import cast as adaptive_cast
from interloom.adaptive import files, measure, reviews
from interloom.adaptive.data import base_model, thresholds
from interloom.adaptive.masking import IGNORED, mask_tokens
from interloom.adaptive.reasoner import AdaptiveReasoner, add_story_tags
from interloom.adaptive.story import Story
from interloom.adaptive.trainers import UnifiedSFTTrainer
from interloom.backends.unified import UnifiedModel
from interloom.errors import InterloomError
from interloom.train import together
from interloom.train.data import split_held_out
from interloom.train.sft import accumulation, prepare, train, trainer_arguments, write_figures
from interloom.train.watch import Metrics, Watch, replace_folder

if TYPE_CHECKING:
    from interloom.runner import StageRun
    from interloom.settings.file import Settings
    from interloom.settings.training import AdaptiveSftSettings

Made = TypeVar("Made")


def samples(
    stories: Sequence[Story], unified: UnifiedModel, options: AdaptiveSftSettings
) -> list[dict[str, list[int]]]:
    """Stories as ``input_ids`` and ``labels``, which TRL takes as they are.

    Raises:
        InterloomError: a story is longer than the model's context.
    """
    stream = unified.stream
    longest = unified.context
    rows = []
    for story in stories:
        masked = mask_tokens(
            story, unified.tokens, begin=[stream.bos], end=[stream.eos], masking=options.masking
        )
        if len(masked.input_ids) > longest:
            raise InterloomError(
                f"story {story.prompt.id} has {len(masked.input_ids)} tokens, the model reads "
                f"{longest}: leave such stories out of the data"
            )
        rows.append({"input_ids": masked.input_ids, "labels": masked.labels})
    return rows


def sft_config(settings: Settings, work: Path) -> SFTConfig:
    """TRL's settings from ours; nothing is cut."""
    options = settings.sft_adaptive
    shared = trainer_arguments(options, settings.models, work, settings.seed)
    return SFTConfig(
        # The number type is the unified model's own.
        **{**shared, "bf16": settings.unified.dtype == "bfloat16"},
        per_device_train_batch_size=options.micro_batch_size,
        gradient_accumulation_steps=accumulation(
            "sft_adaptive.batch_size", options.batch_size, options.micro_batch_size
        ),
        num_train_epochs=options.epochs,
        max_length=None,
        logging_steps=5,
        logging_first_step=True,
    )


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage."""
    options = settings.sft_adaptive
    if options.lora_rank:
        raise InterloomError(
            "sft_adaptive.lora_rank: a unified model is trained whole; set it to 0"
        )
    prepare(options.threads, settings.seed)
    unified = adaptive_cast.unified(settings.unified, base_model(settings, stage.dep("umm")))
    add_story_tags(unified)
    freeze_pictures(unified)
    stories = list(files.read_stories(stage.dep("adaptive-data") / "stories.parquet"))
    if options.reviews:
        everything = len(stories)
        stories = reviews.accepted(stories, reviews.read(Path(options.reviews)))
        stage.log(f"{options.reviews}: {len(stories)} of {everything} stories were accepted")
    learned, kept = split_held_out([story.prompt.id for story in stories], options.held_out)
    if not kept:
        raise InterloomError("sft-adaptive: too few stories to keep any from training")
    chosen = [story for i in learned if (story := stories[i]).mode in options.modes]
    if options.feedback:
        more = files.read_feedback(Path(options.feedback))
        stage.log(f"{options.feedback}: {len(more)} stories that people accepted are learned too")
        chosen += [story for story in more if story.mode in options.modes]
    if not chosen:
        raise InterloomError(f"sft-adaptive: no story of {', '.join(options.modes)}")
    rows = samples(chosen, unified, options)
    loss_share = _learned_share(rows)
    stage.log(
        f"{len(rows)} stories, the longest has {max(len(r['input_ids']) for r in rows)} tokens; "
        f"{loss_share:.0%} of the tokens are learned ({options.masking})"
    )
    trainer = UnifiedSFTTrainer(
        lengths=[len(row["input_ids"]) for row in rows],
        batch_size=options.batch_size,
        model=unified.model,
        args=sft_config(settings, stage.work),
        train_dataset=Dataset.from_list(rows),
        processing_class=unified.tokenizer,
    )
    reasoner = AdaptiveReasoner(unified, max_tokens=options.max_new_tokens)
    source = settings.adaptive_data
    analyzer = adaptive_cast.analyzer(
        source.analyzer_backend,
        source.analyzer_model,
        settings.teacher,
        cast.remotes(settings.remote, stage),
    )
    accepted = thresholds(source.accepted)
    held_out = [stories[i].prompt for i in kept]

    def evaluate(_: int) -> Metrics:
        told = in_evaluation_mode(reasoner, lambda: together.spread(held_out, reasoner.reason))
        # One process asks, for all: its answers choose the checkpoint in every process.
        found = together.on_first(lambda: measure.outcomes(told, analyzer, accepted))
        return measure.figures(found)

    watch = Watch(
        stage,
        evaluate=evaluate,
        select="success",
        evaluations=options.evaluations,
        save=lambda folder: save(trainer, unified, folder),
        patience=options.patience,
    )
    train(trainer, watch, stage)
    export(stage.work / "best", stage.out("adaptive-sft"), unified)
    write_figures(watch, stage)


def freeze_pictures(unified: UnifiedModel) -> None:
    """Train the words and not how pictures are made of them."""
    unified.model.model.vqmodel.requires_grad_(False)
    if ranks.world() > 1:
        unified.keep_pictures_whole()


def save(trainer: Any, unified: UnifiedModel, folder: Path | None) -> None:
    """The current model as a whole folder.

    Of a model that is sharded over processes all give their part; the first has the ``folder``.
    """
    weights = None
    if trainer.is_fsdp_enabled:
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if folder is not None:
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(folder, state_dict=weights)
        unified.save_processors(folder)


def export(best: Path, out: Path, unified: UnifiedModel) -> None:
    """The best checkpoint as the stage's output, in its own number type; the first process does
    it."""
    if ranks.rank() == 0:
        found = UnifiedModel.from_pretrained(best, dtype=unified.model.dtype)
        replace_folder(out, found.save)


def in_evaluation_mode(reasoner: AdaptiveReasoner, work: Callable[[], Made]) -> Made:
    """What a model in training makes; it is left in the mode it was in."""
    model = reasoner.unified.model
    training = model.training
    model.eval()
    try:
        return work()
    finally:
        model.train(training)


def _learned_share(rows: Sequence[dict[str, list[int]]]) -> float:
    learned = sum(label != IGNORED for row in rows for label in row["labels"])
    return learned / max(1, sum(len(row["labels"]) for row in rows))
