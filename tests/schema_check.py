"""Runs schemathesis against a server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CONFIG = """
[checks.positive_data_acceptance]
# 400: no schema can say that a base64 text is a sound picture, or that a picture has to come with a
# text. 413 and 415 come from outside of the schema.
expected-statuses = ["2xx", 400, 401, 403, 404, 409, 413, 415, 429, 503]
"""


def examine(url: str, folder: Path, *more: str) -> None:
    (folder / "schemathesis.toml").write_text(CONFIG)
    command = [
        *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
        *("run", f"{url}/openapi.json", "--url", url, *more),
        *("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "25"),
        *("--seed", "7", "--no-color", "--request-timeout", "60"),
    ]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
