"""How well a reasoner does on requests, by the analyzer: what SAIR's tables are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interloom.adaptive.reasoner import Told
from interloom.adaptive.story import MODES
from interloom.records import Evaluation, Failure, Thresholds
from interloom.roles import Analyzer, DraftCase


@dataclass(frozen=True)
class Outcome:
    """One request as it went.

    ``success`` and ``first`` are ``None`` where the analyzer gave no answer.
    """

    told: Told
    success: bool | None
    """Whether the final picture passes."""
    first: bool | None
    """Whether the first one does."""
    agreed: int
    """Pictures that the model itself judged as the analyzer does, passed or not."""
    judged: int


def outcomes(told: Sequence[Told], analyzer: Analyzer, accepted: Thresholds) -> list[Outcome]:
    """Evaluate every picture of every story against the whole instruction.

    Pictures of sub-steps are only parts of it: of a plan, the first and the last one count.
    """
    cases: list[DraftCase] = []
    places: list[list[int]] = []
    for one in told:
        mine = list(range(len(one.images)))
        if one.mode == "multi_step":
            mine = sorted({0, mine[-1]}) if mine else []
        places.append(list(range(len(cases), len(cases) + len(mine))))
        cases += [
            DraftCase(
                instruction=one.prompt.instruction,
                references=one.prompt.references,
                image=one.images[number],
            )
            for number in mine
        ]
    answers = analyzer.evaluate(cases)
    found = []
    for one, mine in zip(told, places, strict=True):
        passed = [_passes(answers[i], accepted) for i in mine]
        agreed = judged = 0
        if one.story is not None:
            own = [draft.evaluation.passes(accepted) for draft in one.story.drafts]
            pairs = list(zip(own, passed, strict=False))
            # The last picture of a plan is evaluated as a sub-step, not as the whole.
            pairs = pairs[:1] if one.mode == "multi_step" else pairs
            known = [(a, b) for a, b in pairs if b is not None]
            agreed, judged = sum(a == b for a, b in known), len(known)
        found.append(
            Outcome(
                told=one,
                success=passed[-1] if passed else False,
                first=passed[0] if passed else False,
                agreed=agreed,
                judged=judged,
            )
        )
    return found


def _passes(answer: Evaluation | Failure, accepted: Thresholds) -> bool | None:
    return None if isinstance(answer, Failure) else answer.passes(accepted)


def figures(found: Sequence[Outcome]) -> dict[str, float]:
    """Shares over all requests; those that nobody could judge are counted, and in no share of
    success.

    ``success``, ``first_success``, ``valid`` (stories), ``images`` (per request), ``self_accuracy``
    (of the model's own verdicts), ``mode.*`` and ``unjudged``.
    """
    judged = [one for one in found if one.success is not None and one.first is not None]
    told = [one.told for one in found]
    verdicts = sum(one.judged for one in found)
    count, some = max(1, len(found)), max(1, len(judged))
    return {
        "success": sum(bool(one.success) for one in judged) / some,
        "first_success": sum(bool(one.first) for one in judged) / some,
        "valid": sum(one.story is not None for one in told) / count,
        "images": sum(len(one.images) for one in told) / count,
        "self_accuracy": sum(one.agreed for one in found) / max(1, verdicts),
        "unjudged": (len(found) - len(judged)) / count,
        **{f"mode.{mode}": sum(one.mode == mode for one in told) / count for mode in MODES},
    }
