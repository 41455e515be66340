"""What ``study adaptive`` can say: SAIR's claims with a verdict each, and all comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from interloom.adaptive.story import MODES
from interloom.study.adaptive import BENCHMARKS, BUDGETS, Study
from interloom.study.beside import ATTEMPTS
from interloom.study.claims import Claim, Findings
from interloom.study.comparison import Comparison, Scores, compared
from interloom.study.reasoning import FREE, MOST, Row

LOSS = 2.0
"""Points of score that fewer pictures may cost."""
SAVED = 0.65
"""Pictures after RL over those before, at most (the paper: 1.56 of 2.45)."""
WASTED = 1.5
"""Pictures without the bonus over those with it, at least (the paper: 2.73 of 1.56)."""
AGREEMENT = 90.0


def findings(study: Study) -> Findings:
    """Everything that a study whose tasks are done can say."""
    names = [variant.name for variant in study.plan.variants]
    claims: list[Claim] = []
    questions: dict[str, list[Comparison]] = {}
    for benchmark in BENCHMARKS:
        rows = [
            _on(study, benchmark, "sft", name)
            for name in ("direct-only", "no-reflection", "no-multi-step", "full-loss")
            if name in names
        ]
        questions[f"{benchmark}: without a part of the data"] = rows
        claims += [
            Claim(f"1. all modes beat {row.theirs} on {benchmark}", row)
            for row in rows
            if row.theirs != "full-loss"
        ]
    if "rl" in names:
        claims += _savings(study, names, questions)
    agreement = _verdicts(study, "sft")
    if all(agreement.values()):  # a model that knows no form has no verdicts
        verdicts = compared("right verdicts", agreement, f"{AGREEMENT:g}", _constant(agreement))
        text = f"4. the model's own verdicts are right in {AGREEMENT:g} of 100 at least"
        claims.append(Claim(text, verdicts))
    if "full-loss" in names:
        masked = _of_rows(study, "sft", "full-loss", _success, "success")
        questions["requests of growing complexity: what masking buys"] = [
            masked,
            _of_rows(study, "sft", "full-loss", _first, "first pictures right"),
        ]
    return Findings(claims, {name: rows for name, rows in questions.items() if rows})


def _savings(
    study: Study, names: Sequence[str], questions: dict[str, list[Comparison]]
) -> list[Claim]:
    main = BENCHMARKS[0]
    score = _on(study, main, "rl", "sft")
    success = _of_rows(study, "rl", "sft", _success, "success")
    fewer = compared(
        f"{SAVED:g} × pictures after SFT",
        _scores(study, "sft", lambda row: SAVED * row.images),
        "pictures after RL",
        _scores(study, "rl", _images),
    )
    claims = [
        Claim(f"2. RL takes at most {SAVED:g} × the pictures", fewer),
        Claim(f"2. RL loses at most {LOSS:g} points on {main}", score, -LOSS),
        Claim(f"2. RL loses at most {LOSS:g} points of success", success, -LOSS),
    ]
    questions["pictures of a request"] = [_of_rows(study, "rl", "sft", _images, "pictures")]
    without = [name for name in names if name.endswith("bonus") or name == "no-step-reward"]
    for name in without:
        questions["pictures of a request"].append(_of_rows(study, name, "rl", _images, "pictures"))
    if "no-bonus" in names:
        more = compared(
            "pictures without the bonus",
            _scores(study, "no-bonus", _images),
            f"{WASTED:g} × those with it",
            _scores(study, "rl", lambda row: WASTED * row.images),
        )
        claims.append(Claim(f"3. without the bonus {WASTED:g} × the pictures", more))
    if "no-step-reward" in names:
        worse = _on(study, main, "rl", "no-step-reward")
        claims.append(Claim(f"3. without the step-wise reward {main} is lower", worse))
    for benchmark in BENCHMARKS:
        rows = [_on(study, benchmark, "rl", name) for name in ("sft", *without)]
        questions[f"{benchmark}: RL and its parts"] = rows
    questions["requests of growing complexity: success"] = [
        success,
        *(_of_rows(study, "rl", name, _success, "success") for name in without),
    ]
    return claims


def _on(study: Study, benchmark: str, ours: str, theirs: str) -> Comparison:
    return compared(ours, study.scores(benchmark, ours), theirs, study.scores(benchmark, theirs))


def _of_rows(
    study: Study, ours: str, theirs: str, measure: Callable[[Row], float], what: str
) -> Comparison:
    a, b = (_scores(study, name, measure) for name in (ours, theirs))
    return compared(f"{ours}: {what}", a, f"{theirs}: {what}", b)


def _scores(study: Study, variant: str, measure: Callable[[Row], float]) -> Scores:
    return {
        seed: {row.id: measure(row) for row in rows} for seed, rows in study.rows(variant).items()
    }


def _verdicts(study: Study, variant: str) -> Scores:
    """Right verdicts of 100 by request that has any."""
    return {
        seed: {row.id: 100 * row.agreed / row.judged for row in rows if row.judged}
        for seed, rows in study.rows(variant).items()
    }


def _constant(scores: Scores) -> Scores:
    return {seed: dict.fromkeys(items, AGREEMENT) for seed, items in scores.items()}


def _success(row: Row) -> float:
    return 100.0 * row.success


def _first(row: Row) -> float:
    return 100.0 * row.first


def _images(row: Row) -> float:
    return float(row.images)


# --- tables ---------------------------------------------------------------------------------------


def tables(study: Study) -> str:
    """Modes by complexity, and success by budget, as Markdown."""
    names = [name for name in ("sft", "rl") if name in {v.name for v in study.plan.variants}]
    lines = ["", "## Modes by complexity", ""]
    lines += [
        "| model | things or orders | n | " + " | ".join(MODES) + " | pictures | success | first |",
        "|" + "---|" * (len(MODES) + 6),
    ]
    for name in names:
        everything = [row for rows in study.rows(name).values() for row in rows]
        for complexity in range(1, MOST + 1):
            rows = [row for row in everything if row.complexity == complexity]
            shares = [_mean([row.mode == mode for row in rows]) for mode in MODES]
            figures = (
                *shares,
                _mean([row.images for row in rows]),
                _mean([row.success for row in rows]),
                _mean([row.first for row in rows]),
            )
            said = " | ".join(f"{value:.2f}" for value in figures)
            lines.append(f"| {name} | {complexity} | {len(rows)} | {said} |")
    if "rl" in names:
        lines += ["", "## Success by budget, after RL", "", "| at most | pictures | success |"]
        lines.append("|---|---|---|")
        for budget in BUDGETS:
            rows = [row for some in study.rows("rl", budget).values() for row in some]
            most = "any" if budget == FREE else str(budget)
            taken, right = _mean([r.images for r in rows]), _mean([r.success for r in rows])
            lines.append(f"| {most} | {taken:.2f} | {right:.3f} |")
    if study.beside:
        lines += ["", "## The same requests, by the agents after RL", ""]
        lines += ["| attempts a step at most | pictures | success |", "|---|---|---|"]
        for attempts in ATTEMPTS:
            rows = study.agents_rows(attempts)
            taken, right = _mean([r.images for r in rows]), _mean([r.success for r in rows])
            lines.append(f"| {attempts} | {taken:.2f} | {right:.3f} |")
    return "\n".join(lines) + "\n"


def plot_modes(study: Study, path: Path) -> None:
    """Shares of the modes by number of things or orders, one panel a model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in ("sft", "rl") if name in {v.name for v in study.plan.variants}]
    figure, axes = pyplot.subplots(1, len(names), figsize=(4.5 * len(names), 3.2), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        rows = [row for some in study.rows(name).values() for row in some]
        across = range(1, MOST + 1)
        low = [0.0] * MOST
        for mode, colour in zip(MODES, ("#1a7f4e", "#d9a021", "#3b6fb6"), strict=True):
            shares = [_mean([r.mode == mode for r in rows if r.complexity == n]) for n in across]
            axis.bar(across, shares, bottom=low, label=mode.replace("_", "-"), color=colour)
            low = [a + b for a, b in zip(low, shares, strict=True)]
        axis.set_title(name)
        axis.set_xlabel("things or orders in the request")
        axis.set_ylabel("share of requests")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def plot_budgets(study: Study, path: Path) -> None:
    """Success against the pictures that were taken: the unified model under its budgets, and the
    agents by their attempts."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5.5, 3.6))
    lines = {
        "unified model, 1 to 6 pictures at most": [
            [row for some in study.rows("rl", budget).values() for row in some]
            for budget in BUDGETS
            if budget != FREE
        ]
    }
    if study.beside:
        name = f"agents, 1 to {max(ATTEMPTS)} attempts a step"
        lines[name] = [study.agents_rows(attempts) for attempts in ATTEMPTS]
    for (name, points), colour in zip(lines.items(), ("#1a7f4e", "#3b6fb6"), strict=False):
        taken = [_mean([row.images for row in rows]) for rows in points]
        right = [_mean([row.success for row in rows]) for rows in points]
        axis.plot(taken, right, "o-", label=name, color=colour)
    axis.set_xlabel("pictures a request")
    axis.set_ylabel("requests that end right")
    axis.set_ylim(0, 1)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
