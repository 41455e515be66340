"""May RL begin? What a policy can gain from GRPO, measured before the first step.

RL can only make likelier what the policy samples already. So its greedy judgments have to be mostly
right and its sampled answers well-formed, a better refined prompt has to be sampled now and then
though it is not the greedy one, and the rollouts of a prompt have to differ in reward. A run that
starts without one of these ends where it began, or collapses to one judgment.
"""

from __future__ import annotations

from collections.abc import Sequence

from interloom.backends.transformers import ChatModel
from interloom.dialogue import Conversation
from interloom.settings.training import GrpoSettings, ReadinessSettings
from interloom.train import sft, together
from interloom.train.critic_reward import Case, CriticReward, fix_hits
from interloom.train.measure import critic_figures, mean
from interloom.train.rewards import zero_variance_share
from interloom.train.watch import Metrics


def measure(
    chat: ChatModel,
    conversations: Sequence[Conversation],
    cases: Sequence[Case],
    reward: CriticReward,
    settings: GrpoSettings,
    seed: int,
) -> Metrics:
    """Greedy answers against ``group_size`` sampled ones for each case, executed and judged.

    ``accuracy``: of the greedy judgments. ``format``: share of sampled answers that are
    well-formed. ``greedy_fix``, ``sampled_fix``: shares of faulty cases judged false and repaired.
    ``best_fix``: shares of faulty cases that any of their samples repairs. ``zero_variance``: share
    of groups from which nothing can be learned.
    """
    size = settings.group_size
    truths = [case.success for case in cases]
    greedy = sft.in_evaluation_mode(chat, list(conversations))
    rollouts = sft.in_evaluation_mode(
        chat,
        [conversation for conversation in conversations for _ in range(size)],
        temperature=settings.temperature,
        seed=seed,
    )
    repeated = [case for case in cases for _ in range(size)]
    after = together.on_first(lambda: reward.execute(rollouts, repeated))
    totals = reward.compose(rollouts, repeated, after).total
    executed = together.on_first(lambda: reward.execute(greedy, cases))
    hits = fix_hits(greedy, cases, executed)
    sampled, best = [], []
    for start in range(0, len(rollouts), size):
        part = slice(start, start + size)
        group = fix_hits(rollouts[part], repeated[part], after[part])
        sampled += group
        best += [max(group)] if group else []
    return {
        "accuracy": critic_figures(greedy, truths)["judgment_accuracy"],
        "format": critic_figures(rollouts, [case.success for case in repeated])["format_validity"],
        "greedy_fix": mean(hits),
        "sampled_fix": mean(sampled),
        "best_fix": mean(best),
        "zero_variance": zero_variance_share(totals, size),
    }


def problems(figures: Metrics, limits: ReadinessSettings) -> list[str]:
    """Which conditions fail, each with its figure and its limit; none for a run worth starting.

    >>> figures = {"accuracy": 0.5, "format": 1.0, "greedy_fix": 0.1, "best_fix": 0.4,
    ...            "zero_variance": 0.9}
    >>> limits = ReadinessSettings(act="refuse", cases=32, min_accuracy=0.8, min_format=0.9,
    ...                            min_headroom=0.1, max_zero_variance=0.75)
    >>> problems(figures, limits)  # doctest: +NORMALIZE_WHITESPACE
    ['greedy judgments are right in 0.50 of the cases, under min_accuracy 0.8: train SFT further',
     '0.90 of the groups have no variance, over max_zero_variance 0.75: a higher temperature or
      harder cases']
    """
    headroom = figures["best_fix"] - figures["greedy_fix"]
    found = []
    if figures["accuracy"] < limits.min_accuracy:
        found.append(
            f"greedy judgments are right in {figures['accuracy']:.2f} of the cases, under "
            f"min_accuracy {limits.min_accuracy:g}: train SFT further"
        )
    if figures["format"] < limits.min_format:
        found.append(
            f"sampled answers are well-formed in {figures['format']:.2f} of the rollouts, under "
            f"min_format {limits.min_format:g}: a lower temperature, or SFT further"
        )
    if headroom < limits.min_headroom:
        found.append(
            f"sampling repairs only {headroom:.2f} more of the faulty cases than greedy answers, "
            f"under min_headroom {limits.min_headroom:g}: there is nothing to make likelier"
        )
    if figures["zero_variance"] > limits.max_zero_variance:
        found.append(
            f"{figures['zero_variance']:.2f} of the groups have no variance, over "
            f"max_zero_variance {limits.max_zero_variance:g}: a higher temperature or harder cases"
        )
    return found
