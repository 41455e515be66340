"""What a trained pipeline costs, whatever its training made of it: an MLflow model from code.

Planner and critic are real chat models, called as the registered pipeline calls them, but every
token that they write is laid down: it is the exact teacher's answer. So speed is measured with
plans, verdicts and lengths of answers as they should be. For `scripts/serving_speed.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from interloom import cast, images
from interloom.agents import ModelCritic, ModelPlanner
from interloom.backends.ledger import LEDGER, Usage
from interloom.backends.pocket import PocketTeacher
from interloom.backends.remote import Remotes
from interloom.backends.transformers import ChatModel, encode, render_prompt
from interloom.dialogue import Conversation, format_critique, format_plan
from interloom.records import Critique, Failure, Plan, Request
from interloom.roles import CritiqueCase
from interloom.settings.file import load_settings


class LaidDown:
    """A logits processor: row ``b`` goes on with ``answers[b]``, then it ends."""

    def __init__(self, answers: Sequence[Sequence[int]], prompt: int, end: int) -> None:
        self._answers, self._prompt, self._end = answers, prompt, end

    def __call__(self, tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        place = tokens.shape[1] - self._prompt
        wanted = [a[place] if place < len(a) else self._end for a in self._answers]
        forced = torch.full_like(scores, -torch.inf)
        return forced.scatter(1, torch.tensor(wanted, device=scores.device)[:, None], 0.0)


class RehearsedChat(ChatModel):
    """Answers with what ``script`` holds, at the price of writing it."""

    script: Sequence[str] = ()

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        temperature: float = 0.0,
        seed: int = 0,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[str]:
        tokenizer: Any = self.processor.tokenizer  # type: ignore[attr-defined]
        model: Any = self.model
        texts = [render_prompt(self.processor, item) for item in conversations]
        pictures = [[images.from_bytes(b) for b in item.images] for item in conversations]
        inputs = encode(self.processor, texts, pictures)
        answers = [tokenizer(text, add_special_tokens=False).input_ids for text in self.script]
        prompt = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            written = model.generate(
                **{key: value.to(model.device) for key, value in inputs.items()},
                do_sample=False,
                max_new_tokens=self.max_new_tokens,
                logits_processor=[LaidDown(answers, prompt, tokenizer.eos_token_id)],
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        read = inputs["attention_mask"].sum(1).tolist()
        self.usage = [Usage(n, len(answer)) for n, answer in zip(read, answers, strict=True)]
        return tokenizer.batch_decode(written[:, prompt:], skip_special_tokens=True)


class RehearsedPlanner(ModelPlanner):
    def plan(self, requests: Sequence[Request]) -> list[Plan | Failure]:
        plans = PocketTeacher().plan(requests)
        self.chat.script = [format_plan(p) if isinstance(p, Plan) else "" for p in plans]  # type: ignore[attr-defined]
        return super().plan(requests)


class RehearsedCritic(ModelCritic):
    def critique(self, cases: Sequence[CritiqueCase]) -> list[Critique | Failure]:
        said = PocketTeacher().critique(cases)
        self.chat.script = [format_critique(c) if isinstance(c, Critique) else "" for c in said]  # type: ignore[attr-defined]
        return super().critique(cases)


class RehearsedPipeline(PythonModel):
    """The registered pipeline's face; ``root`` in its settings is the project's folder."""

    def load_context(self, context: Any) -> None:
        root = Path(context.model_config["root"])
        settings = load_settings(root / "params.yaml")
        models, limits = settings.models, settings.evaluate
        device = "cuda" if torch.cuda.is_available() else "cpu"

        def chat(most: int) -> RehearsedChat:
            loaded = RehearsedChat.from_pretrained(
                root / models.vlm,
                device=device,
                dtype=models.vlm_dtype,
                max_new_tokens=most,
                max_image_pixels=models.max_image_pixels,
            )
            assert isinstance(loaded, RehearsedChat)
            return loaded

        planner, critic = chat(limits.planner_max_new_tokens), chat(limits.critic_max_new_tokens)
        self.planner = RehearsedPlanner(planner, models.dialogue, retries=0)
        self.critic = RehearsedCritic(critic, models.dialogue, retries=0)
        self.generator = cast.generator(
            models.generator_named(limits.generator),
            Remotes(settings.remote, root / LEDGER, purpose="serving"),
        )

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:
        raise NotImplementedError("this pipeline is for `interloom serve`")


set_model(RehearsedPipeline())
