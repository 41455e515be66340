"""TRL's trainers for unified models: they really continue from a checkpoint.

``save_pretrained`` writes an Emu3 under the names of its first release, and the trainer's own
restore looks for the names of today: it would find none of the weights, and say nothing.
"""

from __future__ import annotations

from typing import Any

from transformers import Emu3ForConditionalGeneration
from trl.trainer.grpo_trainer import GRPOTrainer

from interloom.train.batches import LikeLengthsSFTTrainer


def restore(model: Any, folder: str) -> None:
    """Put a checkpoint's weights into a model.

    Raises:
        RuntimeError: they are not the model's.
    """
    found = Emu3ForConditionalGeneration.from_pretrained(folder, dtype=model.dtype)
    model.load_state_dict(found.state_dict())


class UnifiedSFTTrainer(LikeLengthsSFTTrainer):
    """Supervised fine-tuning of a unified model."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:  # sharded checkpoints have the names of today
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            restore(self.model if model is None else model, resume_from_checkpoint)


class UnifiedGRPOTrainer(GRPOTrainer):
    """RL of a unified model."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            restore(self.model if model is None else model, resume_from_checkpoint)
