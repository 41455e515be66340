"""A process that promotes, and is killed or held back where its caller says: for tests.

``python deciding.py VERSION NAME PLACE [GO_FILE]``; the places are those of ``die_at``
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from interloom.catalogue import open_catalogue
from interloom.errors import InterloomError
from interloom.promotion.decisions import promote, propose
from interloom.promotion.ledger import Author


def die_at(place: str) -> None:
    """Kill this process at a step of the decision."""

    def die(*args: Any, **named: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def stop(self: Any, name: str, alias: str, version: str) -> None:
        MlflowClient.set_registered_model_alias = set_alias  # type: ignore[method-assign]
        os.kill(os.getpid(), signal.SIGSTOP)
        set_alias(self, name, alias, version)

    real, set_alias = MlflowClient.log_param, MlflowClient.set_registered_model_alias

    def log_param(self: Any, run_id: str, key: str, value: Any) -> Any:
        if key.startswith("interloom-pipeline/"):
            die()
        return real(self, run_id, key, value)

    match place:
        case "kill-before-claim":
            MlflowClient.log_param = log_param  # type: ignore[method-assign]
        case "kill-after-claim":
            MlflowClient.set_registered_model_alias = die  # type: ignore[method-assign]
        case "stop-after-claim":
            MlflowClient.set_registered_model_alias = stop  # type: ignore[method-assign]
        case "kill-after-alias":
            MlflowClient.set_model_version_tag = die  # type: ignore[method-assign]


def main() -> None:
    """Propose, wait for the go, promote; says what came of it."""
    version, name, place, *go = sys.argv[1:]
    catalogue = open_catalogue(Path.cwd())
    proposal = propose(catalogue, "agents", version)
    die_at(place)
    print("ready", flush=True)
    while go and not Path(go[0]).exists():
        time.sleep(0.001)
    try:
        made = promote(catalogue, proposal, Author(name))
    except InterloomError as error:
        print(f"refused: {error}", flush=True)
    else:
        print(f"promoted: {made.number}", flush=True)


if __name__ == "__main__":
    main()
