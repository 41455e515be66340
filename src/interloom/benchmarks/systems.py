"""The systems that are compared: who plans, who criticises, and how often a step may be tried.

=============  ======================  ====================  ========
system         planner                 critic                attempts
=============  ======================  ====================  ========
generator      none (the request is    none                  1
               the prompt)
zero-shot      base model              base model            T_max
planner-sft    fine-tuned planner      base model            T_max
one-agent      fine-tuned planner      the same model        T_max
full-sft       fine-tuned planner      fine-tuned critic     T_max
full-rl        fine-tuned planner      critic after GRPO     T_max
oracle         teacher                 teacher               T_max
=============  ======================  ====================  ========
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from interloom import cast
from interloom.agents import ModelCritic, ModelPlanner
from interloom.backends.remote import Remotes
from interloom.backends.transformers import ChatModel
from interloom.cache import CachedCritic, CachedPlanner, CallCache
from interloom.loop import DirectPlanner
from interloom.roles import Critic, Planner
from interloom.settings import EvaluateSettings, ModelsSettings, SystemName, TeacherSettings

MODELS = ("vlm", "planner-sft", "critic-sft", "critic-rl")
"""The model folders that systems are made of, as the stages' files call them."""
AGENTS: dict[SystemName, tuple[str, str]] = {
    "zero-shot": ("vlm", "vlm"),
    "planner-sft": ("planner-sft", "vlm"),
    "one-agent": ("planner-sft", "planner-sft"),  # trained with sft_planner.with_critic_rows
    "full-sft": ("planner-sft", "critic-sft"),
    "full-rl": ("planner-sft", "critic-rl"),
}
"""Models that plan and criticise, by system."""


@dataclass(frozen=True)
class System:
    """Planner and critic around the generator that all systems share."""

    name: SystemName
    planner: Planner
    critic: Critic | None
    max_attempts: int


def loader(
    models: ModelsSettings,
    teacher: TeacherSettings,
    options: EvaluateSettings,
    folders: Mapping[str, Path],
    device: str,
    remotes: Remotes,
    cache: CallCache | None,
) -> Callable[[SystemName], System]:
    """A function that makes a system; models are loaded when first needed, each once.

    ``folders`` are those of ``vlm``, ``planner-sft``, ``critic-sft`` and ``critic-rl``; calls of
    models are kept in ``cache`` if there is one, or as ``remotes`` keeps them.
    """

    @functools.cache
    def load(model: str) -> ChatModel:
        return ChatModel.from_pretrained(
            folders[model],
            device=device,
            dtype=models.vlm_dtype,
            batch_size=options.batch_size,
            max_image_pixels=models.max_image_pixels,
        )

    def planner(model: str) -> Planner:
        talker = load(model).as_another(model, options.planner_max_new_tokens)
        agent = ModelPlanner(talker, models.dialogue, retries=options.answer_retries)
        return CachedPlanner(agent, cache) if cache else agent

    def critic(model: str) -> Critic:
        talker = load(model).as_another(model, options.critic_max_new_tokens)
        agent = ModelCritic(talker, models.dialogue, retries=options.answer_retries)
        return CachedCritic(agent, cache) if cache else agent

    def make(name: SystemName) -> System:
        if name == "generator":
            return System(name, DirectPlanner(), None, 1)
        if name == "oracle":
            oracle = cast.teacher(teacher, remotes, cache, perfect=True)
            return System(name, oracle, oracle, options.max_attempts)
        plans, criticises = AGENTS[name]
        return System(name, planner(plans), critic(criticises), options.max_attempts)

    return make
