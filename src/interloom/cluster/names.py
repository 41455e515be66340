"""Names and labels of what a stage has on the cluster: the same inputs have the same names."""

from __future__ import annotations

import re
from dataclasses import dataclass

JOB_LENGTH = 52
"""Of a Job's name, so that the names of its pods (and of what it needs) fit into 63 characters."""
APP = "app.kubernetes.io/name"
PART = "app.kubernetes.io/component"
STAGE = "interloom/stage"
LIFECYCLE = "interloom/lifecycle"
COMMIT = "interloom/git-commit"
RUN = "interloom/mlflow-run"
BEGAN, CRASHES, DISRUPTIONS = "interloom/began", "interloom/crashes", "interloom/disruptions"
"""Annotations: seconds since the epoch, and what the Job was made anew for."""
HELD = "interloom/held"
"""Annotation of a Job that does not start yet: what it needs is being made."""
JOB_NAME = "batch.kubernetes.io/job-name"
INDEX = "batch.kubernetes.io/job-completion-index"
QUEUE = "kueue.x-k8s.io/queue-name"


@dataclass(frozen=True)
class Origin:
    """Who wants a stage to be run, for the labels."""

    lifecycle: str
    """Empty for a stage that stands alone."""
    commit: str
    """Empty outside git."""


def job_name(stage: str, key: str) -> str:
    """The name of the Job that runs ``stage`` on the inputs and params of ``key``.

    >>> job_name("sft-critic", "0123456789abcdef")
    'sft-critic-0123456789ab'
    >>> job_name("generate@wise", "0123456789abcdef")
    'generate-wise-0123456789ab'
    """
    tail = f"-{key[:12]}"
    return stage.replace("@", "-")[: JOB_LENGTH - len(tail)].rstrip("-") + tail


def labels(stage: str, origin: Origin) -> dict[str, str]:
    """Labels of everything that belongs to a run of ``stage``."""
    said = {
        APP: "interloom",
        PART: "stage",
        STAGE: stage.replace("@", "-"),  # a matrix's cell
        LIFECYCLE: label_value(origin.lifecycle),
        COMMIT: label_value(origin.commit),
    }
    return {name: value for name, value in said.items() if value}


def label_value(text: str) -> str:
    """``text`` as a label may have it: 63 letters, digits, dots and dashes.

    >>> label_value("dvc-host.example/1 2")
    'dvc-host.example-1-2'
    """
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63].strip("-_.")
