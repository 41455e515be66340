"""What a stage leaves in the Prefect UI: progress, tables, pictures, a link to its MLflow run."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from interloom.progress import Report
from interloom.stages import StageSpec

PROGRESS_SECONDS = 2.0
"""Least time between two updates of a progress artifact."""
PICTURE_BYTES = 300_000
MLFLOW_VARIABLE = "INTERLOOM_MLFLOW_URL"
"""Where people see MLflow, if that is not where ``interloom ui`` shows it."""


class ProgressArtifacts:
    """One progress artifact for each counted piece of work of a stage."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._shown: dict[str, tuple[Any, float]] = {}

    def show(self, report: Report) -> None:
        """Bring the artifact up to date, not too often."""
        if not report.total:
            return
        percent = min(100.0, 100 * report.done / report.total)
        known = self._shown.get(report.what)
        now = time.monotonic()
        if known is None:
            key = _key(self._stage, report.what)
            artifact = create_progress_artifact(percent, key=key, description=report.line())
            self._shown[report.what] = (artifact, now)
        elif report.done >= report.total or now - known[1] >= PROGRESS_SECONDS:
            update_progress_artifact(known[0], percent, description=report.line())
            self._shown[report.what] = (known[0], now)


def publish(spec: StageSpec, root: Path, seconds: float, run_id: str) -> None:
    """Result artifacts of a stage: figures, files, drawings, and a link to its MLflow run."""
    import yaml

    rows: list[dict[str, Any]] = [{"what": "seconds", "value": f"{seconds:.1f}"}]
    for path in spec.metrics.values():
        numbers = json.loads((root / path).read_text(encoding="utf-8"))
        rows += [{"what": key, "value": _shown(value)} for key, value in _leaves(numbers)]
    create_table_artifact(rows, key=_key(spec.name, "result"), description=spec.summary)
    lock = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))
    outs = lock["stages"].get(spec.name, {}).get("outs", [])
    files = [
        {"path": out["path"], "md5": out["md5"], "bytes": f"{out['size']:,}",
         "files": str(out.get("nfiles", 1))}
        for out in outs
    ]  # fmt: skip
    create_table_artifact(
        files, key=_key(spec.name, "files"), description="outputs as DVC has them"
    )
    mlflow = os.environ.get(MLFLOW_VARIABLE, "http://127.0.0.1:5000")
    create_link_artifact(
        f"{mlflow}/#/runs/{run_id}" if run_id else mlflow,
        link_text=f"{spec.name} in MLflow (`interloom ui`)",
        key=_key(spec.name, "mlflow"),
        description="parameters, curves, artifacts and lineage of this run",
    )
    for name, path in spec.plots.items():
        drawing = root / path
        if drawing.suffix == ".svg" and drawing.stat().st_size <= PICTURE_BYTES:
            encoded = base64.b64encode(drawing.read_bytes()).decode()
            publish_picture(spec.name, name, f"data:image/svg+xml;base64,{encoded}")


def publish_picture(stage: str, name: str, url: str) -> None:
    """A picture that a stage has made, as a ``data:`` URL."""
    create_image_artifact(url, key=_key(stage, name), description=f"{stage}: {name}")


def _shown(value: Any) -> str:
    """A figure for people."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _leaves(values: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(values, dict):
        return [leaf for key, value in values.items() for leaf in _leaves(value, f"{prefix}{key}.")]
    return [(prefix.rstrip("."), values)]


def _key(*words: str) -> str:
    """An artifact key: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")
