"""Serve a registered model until the flow run is cancelled."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State

from flows import child
from flows.group import until_cancelled
from flows.stage import project_folder
from interloom.errors import InterloomError
from interloom.settings.file import load_settings

SPARE_SECONDS = 10.0
"""That a server may take beyond its own time for draining."""


@flow(name="serving", log_prints=True)
def serving(
    project: str | None = None,
    model: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
) -> dict[str, str] | State[Any]:
    """Serve until cancelled; requests in flight are ended first.

    Args:
        project: project folder; the present one if not given.
        model: what `interloom serve --model` takes; the pipeline's champion if not given.
        host: address to listen at.
        port: port to listen at.
    """
    root = project_folder(project)
    log = get_run_logger()
    command = [sys.executable, "-m", "interloom.cli", "serve", "--host", host, "--port", str(port)]
    if model is not None:
        command += ["--model", model]

    def work() -> dict[str, str]:
        status = child.run_child(
            command,
            cwd=root,
            env=os.environ,
            timeout=threading.TIMEOUT_MAX,
            on_line=log.info,
            grace=load_settings(root / "params.yaml").serving.drain_seconds + SPARE_SECONDS,
        )
        if status:
            raise InterloomError(f"the server ended with status {status}: see its lines above")
        return {"serving": "ended"}

    return until_cancelled(work)


if __name__ == "__main__":
    from flows.launch import launch_alone

    launch_alone(serving)
