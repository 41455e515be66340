"""TRL's GRPO trainer, writing a step's rollouts in parts, so that rewards begin before the last.

With a generator and a judge elsewhere (a pool of servers, an API), they work on the first part's
refined prompts while the policy writes the second. What is trained on stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trl.trainer.grpo_trainer import GRPOTrainer


class PartwiseGRPOTrainer(GRPOTrainer):
    """``parts`` per step, whole groups each; ``on_rollouts`` gets the ids and texts of each part
    but the last as soon as they are written, ``on_advantages`` this process's advantages of a
    step."""

    def __init__(
        self,
        *,
        parts: int,
        on_rollouts: Callable[[Sequence[str], Sequence[str]], None],
        on_advantages: Callable[[list[float]], None],
        **settings: Any,
    ) -> None:
        self.parts, self.on_rollouts, self.on_advantages = parts, on_rollouts, on_advantages
        self._ids: list[str] = []
        super().__init__(**settings)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self._ids = [row["id"] for row in inputs]
        scored = super()._generate_and_score_completions(inputs)
        self.on_advantages(scored["advantages"].tolist())
        everyones: Any = self.accelerator.gather(scored["advantages"])
        for name, value in advantage_figures(everyones.tolist()).items():
            self._metrics["train"][name].append(value)
        return scored

    def _generate(self, prompts: list[Any]) -> Any:
        assert self.num_generations is not None
        made = []
        for place, (start, end) in enumerate(cuts(len(prompts), self.num_generations, self.parts)):
            made.append(super()._generate(prompts[start:end]))
            if end < len(prompts):
                texts = [turns[0]["content"] for turns in made[place][3]]
                self.on_rollouts(self._ids[start:end], texts)
        return tuple(_joined(column) for column in zip(*made, strict=True))


def advantage_figures(advantages: Sequence[float]) -> dict[str, float]:
    """How far a step pulls, and how much of it pulls at all.

    >>> advantage_figures([1.0, -1.0, 0.0, 0.0])
    {'advantage/mean_size': 0.5, 'advantage/max': 1.0, 'advantage/min': -1.0, 'advantage/zero': 0.5}
    """
    count = len(advantages)
    return {
        "advantage/mean_size": sum(map(abs, advantages)) / count,
        "advantage/max": max(advantages),
        "advantage/min": min(advantages),
        "advantage/zero": sum(value == 0 for value in advantages) / count,
    }


def cuts(rollouts: int, group_size: int, parts: int) -> list[tuple[int, int]]:
    """Where a step is cut: into ``parts`` of nearly equal size at most, never through a group.

    >>> cuts(24, 8, 2)
    [(0, 16), (16, 24)]
    """
    groups = rollouts // group_size
    size = -(-groups // min(parts, groups)) * group_size
    return [(start, min(start + size, rollouts)) for start in range(0, rollouts, size)]


def _joined(column: Sequence[Any]) -> Any:
    """One of the values that TRL's ``_generate`` returns, over all parts: lists are put together;
    what is there for no rollout (``None``, an empty dictionary) stays so."""
    if not isinstance(column[0], list):
        assert not any(isinstance(part, list) for part in column), "some parts lack a list"
        return column[0]
    return [item for part in column for item in part]
