"""What ``study critic-rl`` can say: the paper's claims with a verdict each, and all comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from interloom.benchmarks.statistics import Estimate
from interloom.study.comparison import Comparison, Scores, compared, times
from interloom.study.critic_rl import ARROWS, CRITICS, Study
from interloom.study.repairs import Outcome

ACCURACY_LOSS = 1.0
"""Points of judgment accuracy that RL may cost."""


@dataclass(frozen=True)
class Claim:
    """A comparison whose difference should be above ``limit``."""

    text: str
    comparison: Comparison
    limit: float = 0.0

    @property
    def verdict(self) -> str:
        """``shown`` or ``refuted`` if the whole interval is on one side of the limit."""
        gap = self.comparison.difference
        if gap.low > self.limit:
            return "shown"
        return "refuted" if gap.high < self.limit else "not shown"


@dataclass(frozen=True)
class Effect:
    """How many times as high one mean should be as another: at least ``least``."""

    text: str
    times: Estimate
    least: float

    @property
    def verdict(self) -> str:
        """As a claim's."""
        if self.times.low >= self.least:
            return "shown"
        return "refuted" if self.times.high < self.least else "not shown"


EFFECTS = (
    ("wise", "full-rl", "generator", 1.55),  # 0.73 of 0.47
    ("rise", "full-rl", "generator", 2.2),  # 28.9 of 13.3
    ("ueval", "full-rl", "oracle", 0.86),  # 66.3 of 77.4, what agents of Gemini get
    ("ueval", "full-rl", "generator", 3.6),
)
"""Benchmark, system, compared with, and the paper's effect (InterleaveThinker's tables)."""


@dataclass(frozen=True)
class Findings:
    """The claims in the issue's order, all comparisons by the question that they answer, and the
    paper's effects."""

    claims: list[Claim]
    comparisons: dict[str, list[Comparison]]
    effects: list[Effect] = field(default_factory=list)


def findings(study: Study) -> Findings:
    """Everything that a study whose tasks are done can say."""
    main, variants = study.plan.benchmarks[0], study.plan.variants
    names = {variant.name for variant in variants}
    arrows = {name: [_on(study, name, b, a) for a, b in ARROWS] for name in study.plan.benchmarks}
    fix, judgment = (_tried(study, "critic-rl", "critic-sft", m) for m in ("fix", "judgment"))
    without = [_on(study, main, v.against, v.name) for v in variants if not v.fewer_attempts]
    attempts = [
        _on(study, main, more, fewer)
        for more, fewer in (("t-max-3", "t-max-1"), ("full-rl", "t-max-3"))
        if {more, fewer} - {"full-rl"} <= names
    ]
    claims = [
        *(Claim(f"1. {c.theirs} → {c.ours} rises on {main}", c) for c in arrows[main]),
        Claim("2. RL repairs more failed steps than SFT", fix),
        Claim(f"2. RL judges at most {ACCURACY_LOSS:g} point worse", judgment, -ACCURACY_LOSS),
        *(Claim(f"3. {text}", c) for text, c in _bought(study)),
        *(Claim(f"3. {c.ours} is better than {c.theirs}", c) for c in (*without, *attempts)),
    ]
    comparisons = {
        f"{name}: every step of the training": [
            _on(study, name, "full-rl", "generator"),
            *rows,
            _on(study, name, "oracle", "full-rl"),
        ]
        for name, rows in arrows.items()
    }
    trained = [variant for variant in variants if variant.critic]
    for question, measure, whole in (
        ("failed steps repaired by one refinement", "fix", fix),
        ("judgment accuracy", "judgment", judgment),
    ):
        parts = [_tried(study, CRITICS[v.against], v.name, measure) for v in trained]
        comparisons[question] = [whole, *parts]
    if without:
        comparisons[f"{main}: without a part"] = without
    if attempts:
        comparisons[f"{main}: more attempts at a step"] = attempts
    effects = [
        Effect(
            f"{name}: {ours} / {theirs}",
            times(ours, study.scores(name, ours), theirs, study.scores(name, theirs)),
            least,
        )
        for name, ours, theirs, least in EFFECTS
        if name in study.plan.benchmarks
    ]
    return Findings(claims, comparisons, effects)


BOUGHT = (
    ("no-step-reward", "fix", "RL with step-wise rewards repairs more failed steps"),
    ("no-accuracy-reward", "judgment", "RL with the accuracy reward judges better"),
)
"""Variant without a part of the reward, what that part is there for, and the claim."""


def _bought(study: Study) -> list[tuple[str, Comparison]]:
    """What each part of the reward buys of what it is there for."""
    names = {variant.name for variant in study.plan.variants}
    return [
        (text, _tried(study, "critic-rl", name, measure))
        for name, measure, text in BOUGHT
        if name in names
    ]


def _on(study: Study, benchmark: str, ours: str, theirs: str) -> Comparison:
    return compared(ours, study.scores(benchmark, ours), theirs, study.scores(benchmark, theirs))


def _tried(study: Study, ours: str, theirs: str, measure: str) -> Comparison:
    a, b = (_measured(study.outcomes(name), measure) for name in (ours, theirs))
    return compared(ours, a, theirs, b)


def _measured(outcomes: Mapping[int, Outcome], measure: str) -> Scores:
    """Shares as scores."""
    return {
        seed: {item: 100 * value for item, value in vars(outcome)[measure].items()}
        for seed, outcome in outcomes.items()
    }
