"""The critic's rewards (InterleaveThinker §3.4) as plain functions over a batch of completions.

Each completion is one answer to one recorded ``(I_{i-1}, I_i^t, p_i, r_i^t)``. Two formulas go by
name:

``released`` (the default; what the authors' code computes)
    ``R = 0.5·format + 0.5·(0.2·accuracy + 0.6·semantic + 0.2·quality)`` with accuracy 0 or 1 and
    each step reward ``(Δ/10 + 1)/2`` in [0, 1], where Δ is the change of a 0–10 score.
``paper``
    ``R = 0.5·format + 0.5·(α·accuracy + (1 − α)·step)`` with accuracy −1 or 0 and step
    ``score(I^{t+1}) − score(I^t)`` on overall scores scaled to [0, 1].

Where the truth is "success", no image is made and the step counts as no change. A completion
without a readable answer has no refined prompt; it gets the worst step there is. **A generator or
judge call that failed is no number**: the completion's reward is ``None``, and the trainer leaves
it out of its group's statistics.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from interloom.dialogue import AnswerError, parse_critique, read_dict
from interloom.records import Failure, Score

Formula = Literal["paper", "released"]

TIED = 1e-6
"""Rewards closer than this are equal: float noise of equal rewards stays far below, a step of a
score far above."""


@dataclass(frozen=True, slots=True)
class Weights:
    """How the parts are mixed; the defaults are the papers'.

    ``alpha`` is the share of accuracy beside the step reward: 1 removes the step reward, 0 removes
    accuracy. ``semantic`` is the share of the semantic score inside a released step reward (0.6 of
    0.8).
    """

    format: float = 0.5
    alpha: float = 0.2
    semantic: float = 0.75


@dataclass(frozen=True, slots=True)
class Answer:
    """What a completion says, as far as it can be read."""

    success: bool
    refine_prompt: str


def read_answer(completion: str) -> Answer | None:
    """The judgment and refined prompt inside the ``<answer>`` block, if they can be read.

    More lenient than ``dialogue.parse_critique``: what stands around the block is the format
    reward's matter.

    >>> read_answer('<answer>{"previous_step_success": true, "refine_prompt": "a sun"}</answer>')
    Answer(success=True, refine_prompt='a sun')
    >>> read_answer("I think it is fine") is None
    True
    """
    block = re.search(r"<answer>(.*?)</answer>", completion, re.DOTALL)
    if block is None:
        return None
    try:
        fields = read_dict(block[1].strip())
    except AnswerError:
        return None
    success, refined = fields.get("previous_step_success"), fields.get("refine_prompt")
    if not isinstance(success, bool) or not isinstance(refined, str):
        return None
    return Answer(success, refined)


def format_reward(completions: Sequence[str]) -> list[float]:
    """1 for think and answer blocks in order, an answer that parses and both fields of the right
    type, else 0.

    An empty refined prompt is well-formed: the used prompt is then executed again.

    >>> answer = '<answer>{"previous_step_success": true, "refine_prompt": "x"}</answer>'
    >>> format_reward(["<think>it is there</think>" + answer, answer])
    [1.0, 0.0]
    """
    return [1.0 if _well_formed(completion) else 0.0 for completion in completions]


def _well_formed(completion: str) -> bool:
    try:
        parse_critique(completion)
    except AnswerError as error:
        return error.violation == "empty-prompt"
    return True


def accuracy_reward(
    completions: Sequence[str], success: Sequence[bool], formula: Formula = "released"
) -> list[float]:
    """Does the judgment equal the truth? ``paper``: ``−|judgment − J|``; ``released``: 1 if equal,
    else 0.

    An unreadable judgment counts as wrong.

    >>> yes = '<answer>{"previous_step_success": true, "refine_prompt": ""}</answer>'
    >>> accuracy_reward([yes, yes], [True, False])
    [1.0, 0.0]
    >>> accuracy_reward([yes, yes], [True, False], "paper")
    [0.0, -1.0]
    """
    right, wrong = (1.0, 0.0) if formula == "released" else (0.0, -1.0)
    rewards = []
    for completion, truth in zip(completions, success, strict=True):
        answer = read_answer(completion)
        rewards.append(right if answer is not None and answer.success == truth else wrong)
    return rewards


Axis = Literal["semantic", "quality", "overall"]
After = Score | Failure | Literal["no image", "unreadable"]
"""What became of a completion's refined prompt: a judged image, a failed call, no image because
the truth is "success", or none because the answer could not be read."""


def step_reward(
    before: Sequence[Score], after: Sequence[After], axis: Axis, formula: Formula = "released"
) -> list[float | None]:
    """How far executing the refined prompt moves a 0–10 score, or ``None`` where a call failed.

    ``released``: ``(Δ/10 + 1)/2`` in [0, 1], 0.5 where no image was due. ``paper``: ``Δ/10`` in
    [−1, 1].

    >>> old, new = Score(semantic=2, quality=8), Score(semantic=10, quality=8)
    >>> broken = Failure(role="judge", reason="timeout")
    >>> step_reward([old] * 4, [new, "no image", "unreadable", broken], "semantic")
    [0.9, 0.5, 0.0, None]
    >>> step_reward([old], [new], "semantic", "paper")
    [0.8]
    """
    rewards: list[float | None] = []
    for old, new in zip(before, after, strict=True):
        if isinstance(new, Failure):
            rewards.append(None)
            continue
        if isinstance(new, Score):
            change = (_value(new, axis) - _value(old, axis)) / 10
        else:
            change = 0.0 if new == "no image" else -1.0
        rewards.append((change + 1) / 2 if formula == "released" else change)
    return rewards


def _value(score: Score, axis: Axis) -> float:
    if axis == "overall":
        return score.overall
    return score.semantic if axis == "semantic" else score.quality


@dataclass(frozen=True, slots=True)
class Rewards:
    """The parts and the total, each as long as the batch. ``None``: a call failed, so there is no
    number."""

    format: list[float]
    accuracy: list[float]
    semantic: list[float | None]
    quality: list[float | None]
    total: list[float | None]


def critic_rewards(
    completions: Sequence[str],
    success: Sequence[bool],
    before: Sequence[Score],
    after: Sequence[After],
    *,
    formula: Formula = "released",
    weights: Weights | None = None,
) -> Rewards:
    """All parts and the composition by the named formula (equations in the module's docstring).

    >>> good = '<answer>{"previous_step_success": false, "refine_prompt": "p"}</answer>'
    >>> old, new = Score(semantic=0, quality=10), Score(semantic=10, quality=10)
    >>> critic_rewards(["<think>t</think>" + good], [False], [old], [new]).total
    [0.95]
    """
    weights = weights or Weights()
    well_formed = format_reward(completions)
    accuracy = accuracy_reward(completions, success, formula)
    semantic = step_reward(before, after, "semantic", formula)
    quality = step_reward(before, after, "quality", formula)
    overall = step_reward(before, after, "overall", formula)
    total: list[float | None] = []
    for i, form in enumerate(well_formed):
        axes = (semantic[i], quality[i], overall[i])
        if axes[0] is None or axes[1] is None or axes[2] is None:
            total.append(None)
            continue
        if formula == "released":
            step = weights.semantic * axes[0] + (1 - weights.semantic) * axes[1]
        else:
            step = axes[2]
        rest = weights.alpha * accuracy[i] + (1 - weights.alpha) * step
        # Rounded, so that equal rewards are equal bit for bit and a tied group has no spurious
        # advantages.
        total.append(round(weights.format * form + (1 - weights.format) * rest, 6))
    return Rewards(well_formed, accuracy, semantic, quality, total)


def zero_variance_share(rewards: Sequence[float | None], group_size: int) -> float:
    """Share of groups from which nothing can be learned: all their numbers are tied, or fewer than
    two are left.

    >>> zero_variance_share([1.0, 1.0, 0.0, 1.0, 0.5, None], 2)
    0.6666666666666666

    Raises:
        ValueError: the rewards do not divide into groups.
    """
    if group_size < 2 or not rewards or len(rewards) % group_size:
        raise ValueError(f"{len(rewards)} rewards do not divide into groups of {group_size} ≥ 2")
    flat = 0
    for start in range(0, len(rewards), group_size):
        group = [reward for reward in rewards[start : start + group_size] if reward is not None]
        flat += len(group) < 2 or max(group) - min(group) < TIED
    return flat / (len(rewards) // group_size)


def confusion(completions: Sequence[str], success: Sequence[bool]) -> dict[str, int]:
    """Judgments against the truth; "true" and "false" are what the critic said.

    >>> said = '<answer>{"previous_step_success": true, "refine_prompt": ""}</answer>'
    >>> confusion([said, said, "?"], [True, False, True])
    {'true_right': 1, 'true_wrong': 1, 'false_right': 0, 'false_wrong': 0, 'unreadable': 1}
    """
    names = ("true_right", "true_wrong", "false_right", "false_wrong", "unreadable")
    counts: dict[str, int] = {name: 0 for name in names}
    for completion, truth in zip(completions, success, strict=True):
        answer = read_answer(completion)
        if answer is None:
            counts["unreadable"] += 1
        else:
            side = "true" if answer.success else "false"
            counts[f"{side}_{'right' if answer.success == truth else 'wrong'}"] += 1
    return counts
