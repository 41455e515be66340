"""The gate: Great Expectations suites over every dataset; nothing is trained on data that fails.

A violated expectation stops the lifecycle with the suite, the expectation, the count and sample
rows. The whole list of bad rows goes to a quarantine file beside the Data Docs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom import cast
from interloom.construct import frames
from interloom.errors import InterloomError

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

    from interloom.runner import StageRun
    from interloom.settings.file import Settings

SAMPLES = 5
"""Bad rows shown in the message."""
MAX_STEPS = 40
"""A plan above this is a planner that does not stop."""


@dataclass(frozen=True)
class Violation:
    """One expectation that does not hold; ``rows`` are ids, none where no row is to blame."""

    suite: str
    expectation: str
    observed: str
    count: int
    rows: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(self.rows[:SAMPLES])
        more = f" and {len(self.rows) - SAMPLES} more" if len(self.rows) > SAMPLES else ""
        rows = f"; rows {shown}{more}" if shown else ""
        return f"{self.suite}: {self.expectation}: {self.count} × {self.observed}{rows}"


def library() -> Any:
    """Great Expectations' own expectations; six seconds to import, and it must not phone home."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    from great_expectations.expectations import core

    return core


# --- suites ---------------------------------------------------------------------------------------


def filled(*columns: str) -> list[Expectation]:
    """No nulls and no empty texts."""
    gxe = library()
    return [
        expectation
        for column in columns
        for expectation in (
            gxe.ExpectColumnValuesToNotBeNull(column=column),
            gxe.ExpectColumnValuesToMatchRegex(column=column, regex=r"\S"),
        )
    ]


def only(column: str, *values: object) -> Expectation:
    gxe = library()
    return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=list(values))


def unique(*columns: str) -> list[Expectation]:
    gxe = library()
    return [gxe.ExpectColumnValuesToBeUnique(column=column) for column in columns]


def between(column: str, low: float | None, high: float | None) -> list[Expectation]:
    gxe = library()
    return [
        gxe.ExpectColumnValuesToNotBeNull(column=column),
        gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high),
    ]


def file_suite() -> list[Expectation]:
    return [only("faults", ""), *between("rows", 1, None), *unique("id")]


def prompt_suite() -> list[Expectation]:
    return [
        *filled("id", "text", "category", "subcategory", "template"),
        *unique("id", "content"),
        only("malformed", ""),
        only("kind", "create", "continuation", "text_response"),
        sizes("pictures", several=True),
        only("captions_fit", True),
        only("pictures_fit", True),
        only("held_out", False),
    ]


def sizes(column: str, *, several: bool = False, absent: bool = True) -> Expectation:
    """Sound pictures of any size; ``absent`` allows none at all."""
    gxe = library()
    size = r"\d+x\d+"
    pattern = rf"{size}(?:, {size})*" if several else size
    return gxe.ExpectColumnValuesToMatchRegex(
        column=column, regex=rf"^(?:{pattern}{'|none' if absent else ''})$"
    )


def trajectory_suite(image_sizes: Sequence[str], max_attempts: int) -> list[Expectation]:
    gxe = library()
    several = [", ".join(sorted(image_sizes))] if len(set(image_sizes)) > 1 else []
    return [
        *filled("id"),
        *unique("id"),
        only("malformed", ""),
        only("known", True),
        gxe.ExpectColumnValuesToBeBetween(column="plan_length", min_value=1, max_value=MAX_STEPS),
        only("plan_faults", ""),
        *between("most_attempts", 0, max_attempts),
        only("pictures", *image_sizes, *several, frames.NO_PICTURE),
        only("links", ""),
        # Failures are kept and counted; when most requests fail, something else is wrong.
        gxe.ExpectColumnProportionOfNonNullValuesToBeBetween(
            column="failure", min_value=0, max_value=0.25
        ),
    ]


def critic_suite(
    split: str, image_sizes: Sequence[str], positive: tuple[float, float] | None
) -> list[Expectation]:
    gxe = library()
    balance = [
        gxe.ExpectColumnMeanToBeBetween(
            column="positive", min_value=positive[0], max_value=positive[1]
        )
    ] if positive else []  # fmt: skip
    return [
        *filled("id", "prompt", "used_prompt", "refine_prompt", "reasoning"),
        *unique("id", "content"),
        only("known", True),
        sizes("before"),
        only("after", *image_sizes),
        gxe.ExpectColumnValuesToNotBeNull(column="success"),
        only("repeats", True),
        *between("semantic", 0, 10),
        *between("quality", 0, 10),
        only("split", split),
        only("held_out", False),
        *balance,
    ]


def planner_suite() -> list[Expectation]:
    return [
        *filled("id", "text", "source"),
        *unique("id", "content"),
        only("known", True),
        only("malformed", ""),
        only("kind", "create", "continuation", "text_response"),
        sizes("pictures", several=True),
        only("captions_fit", True),
        only("pictures_fit", True),
        *between("plan_length", 1, MAX_STEPS),
        only("plan_faults", ""),
    ]


def general_suite() -> list[Expectation]:
    return [
        *filled("question", "answer"),
        *unique("id"),
        sizes("pictures", several=True),
        only("pictures_fit", True),
    ]


def corpus_suite(ratio: float, tolerance: float) -> list[Expectation]:
    return [
        *between("sft_rl_ratio", ratio * (1 - tolerance), ratio * (1 + tolerance)),
        *between("shared_rows", 0, 0),
    ]


# --- running --------------------------------------------------------------------------------------

Tables = Mapping[str, tuple["pd.DataFrame", list["Expectation"]]]


def check(tables: Tables, docs: Path | None = None) -> list[Violation]:
    """Run all suites in one checkpoint; ``docs`` receives the Data Docs site.

    Every table needs a column ``id``, by which bad rows are named.
    """
    library()
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.data_context.types.resource_identifiers import (
        ValidationResultIdentifier,
    )

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("datasets")
    violations: list[Violation] = []
    if docs is not None:
        _add_site(context, docs)
    for name, (table, expectations) in tables.items():
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=name, data=batch, suite=suite)
        )
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(
                name=name,
                validation_definitions=[definition],
                result_format={
                    "result_format": "COMPLETE",
                    "unexpected_index_column_names": ["id"],
                    "return_unexpected_index_query": False,
                },
            )
        )
        outcome = checkpoint.run(batch_parameters={"dataframe": table})
        for key, result in outcome.run_results.items():
            assert isinstance(key, ValidationResultIdentifier)
            violations += [_violation(name, one) for one in result.results if not one.success]
    if docs is not None:
        context.build_data_docs()
    return violations


def _add_site(context: Any, docs: Path) -> None:
    docs.mkdir(parents=True, exist_ok=True)
    for name in list(context.variables.data_docs_sites or {}):
        context.delete_data_docs_site(site_name=name)
    context.add_data_docs_site(
        site_name="interloom",
        site_config={
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(docs.resolve()),
            },
        },
    )


def _violation(suite: str, result: Any) -> Violation:
    """Great Expectations' result of one failed expectation as a violation."""
    config, facts = result.expectation_config, result.result or {}
    column = config.kwargs.get("column", "table")
    bounds = {
        key: value for key, value in config.kwargs.items() if key not in ("column", "batch_id")
    }
    limits = f" {bounds}" if bounds else ""
    problem = (result.exception_info or {}).get("exception_message")
    if problem is None and result.exception_info:
        problem = next(
            (v["exception_message"] for v in result.exception_info.values() if isinstance(v, dict)),
            None,
        )
    rows = tuple(str(entry["id"]) for entry in facts.get("unexpected_index_list") or ())
    values = list(dict.fromkeys(map(str, facts.get("unexpected_list") or ())))
    observed = ", ".join(value[:80] for value in values[:3]) or str(facts.get("observed_value"))
    return Violation(
        suite=suite,
        expectation=f"{config.type} of {column!r}{limits}",
        observed=problem or observed,
        count=int(facts.get("unexpected_count") or 1),
        rows=rows,
    )


def quarantine(violations: Sequence[Violation], path: Path) -> int:
    """Every bad row with everything that is wrong with it, as JSON lines; returns their number."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for violation in violations:
        for row in violation.rows:
            reasons.setdefault((violation.suite, row), []).append(violation.expectation)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for (suite, row), why in reasons.items():
            file.write(json.dumps({"dataset": suite, "id": row, "violates": why}) + "\n")
    return len(reasons)


def tables(settings: Settings, paths: Sequence[Path], held_out: frames.HeldOut) -> Tables:
    """The suites that the settings ask for, each with its table.

    ``paths`` are those of prompts, trajectories, critic data and planner data.
    """
    prompts, trajectories, critic, planner = paths
    limits, models = settings.validation, settings.models
    drawn = [f"{m.image_size}x{m.image_size}" for m in (models.generator, models.generator_weak)]
    options = settings.critic_data
    positive = (
        (limits.min_positive_judgments, limits.max_positive_judgments) if options.balance else None
    )
    asked = frames.prompts_table(prompts, held_out)
    known = set(asked["id"])
    critics = {
        name: frames.critic_table(critic / f"{name}.parquet", known, held_out)
        for name in ("sft", "rl")
    }
    for table in critics.values():
        table["positive"] = table["success"].eq(True).astype(float)
    found = {
        "prompts": (asked, prompt_suite()),
        "trajectories": (
            frames.trajectories_table(trajectories, known),
            trajectory_suite(drawn, settings.trajectories.max_attempts),
        ),
        "critic-sft": (critics["sft"], critic_suite("sft", drawn, positive)),
        "critic-rl": (critics["rl"], critic_suite("rl", drawn, positive)),
        "critic-corpus": (
            frames.corpus_table(critics["sft"], critics["rl"]),
            corpus_suite(options.sft_rl_ratio, limits.ratio_tolerance),
        ),
        "planner-sft": (frames.planner_table(planner / "sft.parquet", known), planner_suite()),
    }
    if (path := planner / "general.parquet").exists():
        found["planner-general"] = frames.general_table(path), general_suite()
    return found


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage ``validate``."""
    paths = [stage.dep(n) for n in ("prompts", "trajectories", "critic-data", "planner-data")]
    out = stage.out("validation")
    files = frames.files_table(*paths)
    whole: Tables = {"files": (files, file_suite())}
    # Columns that are not there cannot be looked at: other suites need sound files.
    if not any(files["faults"]) and min(files["rows"]) > 0:
        whole = {**whole, **tables(settings, paths, cast.held_out(settings.prompts))}
    gate(whole, out, stage)


def gate(whole: Tables, out: Path, stage: StageRun) -> None:
    """Check everything; write the verdict and the metrics, or refuse.

    Raises:
        InterloomError: an expectation does not hold.
    """
    violations = check(whole, out / "data-docs")
    stage.artifact(out / "data-docs")
    if violations:
        refuse(violations, out / "data-docs", stage)
    summary = {
        name: {"rows": len(table), "expectations": len(suite)}
        for name, (table, suite) in whole.items()
    }
    (out / "result.json").write_text(json.dumps({"success": True, "suites": summary}, indent=2))
    numbers = {
        "suites": len(whole),
        "expectations": sum(entry["expectations"] for entry in summary.values()),
        "rows": sum(entry["rows"] for entry in summary.values()),
        "violations": 0,
    }
    stage.out("metrics").write_text(json.dumps(numbers, indent=2) + "\n")


def refuse(violations: Sequence[Violation], docs: Path, stage: StageRun) -> None:
    """Keep what helps to find the fault, where a failed stage's files survive; then stop."""
    import shutil

    kept = stage.work / "refused"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(docs, kept / "data-docs")
    bad = quarantine(violations, kept / "quarantine.jsonl")
    stage.artifact(kept / "quarantine.jsonl")
    for violation in violations:
        stage.log(str(violation))
    raise InterloomError(
        f"validation: {len(violations)} expectations do not hold, {bad} bad rows are listed in "
        f"{kept / 'quarantine.jsonl'} (Data Docs beside it). First: {violations[0]}"
    )
