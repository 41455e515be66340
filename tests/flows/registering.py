"""Runs the flow ``registration`` as told on standard input, a line of JSON each; says the result.

One process for many flow runs, as Prefect and MLflow take long to import.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from prefect import flow

from flows.group import until_cancelled
from flows.registration import registration


@flow(name="outer")
def outer(**wanted: Any) -> object:
    """As a part of the lifecycle."""
    return until_cancelled(lambda: registration(**wanted))


print("READY", flush=True)
for line in sys.stdin:
    told = json.loads(line)
    run = outer if told.pop("nested", False) else registration
    try:
        result = run(**told, stages=[], return_state=True)
        value = result.result(raise_on_failure=False)
        print("RESULT", json.dumps([result.name, str(value)]), flush=True)
    except BaseException as error:
        print("RESULT", json.dumps(["raised", repr(error)]), flush=True)
