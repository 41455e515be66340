"""Starting a flow from a terminal: Prefect's environment, one server per lifecycle, a live view."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom import dvc_state
from interloom.errors import InterloomError
from interloom.progress import clock
from interloom.project import find_project
from interloom.settings.fields import System
from interloom.settings.file import load_profile, load_settings
from interloom.stages import all_cells, find_stage, wanted_stages

if TYPE_CHECKING:
    from prefect import Flow

PR_SET_PDEATHSIG = 1
SERVER_PATIENCE = 180.0
"""Seconds for a Prefect server to start; a busy machine needs more than half a minute."""


def prefect_environment(root: Path) -> dict[str, str]:
    """Settings for Prefect unless the user set them: quiet, and its files in the project."""
    home = root / ".interloom" / "prefect"
    home.mkdir(parents=True, exist_ok=True)  # Prefect makes only the last folder of the path
    wanted = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    }
    return {name: value for name, value in wanted.items() if name not in os.environ}


@contextmanager
def prefect_server(root: Path, port: int | None = None) -> Iterator[str]:
    """The URL of a Prefect server's UI: the user's if ``PREFECT_API_URL`` is set, else one of ours.

    Ours keeps its runs in the project and ends with this context; `interloom ui` shows them again.
    """
    os.environ.update(prefect_environment(root))
    given = os.environ.get("PREFECT_API_URL")
    if given:
        yield given.removesuffix("/api")
        return
    port = port or _free_port(4200)
    url = f"http://127.0.0.1:{port}"
    logs = root / ".interloom" / "prefect-server.log"
    logs.parent.mkdir(exist_ok=True)
    with logs.open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port",
             str(port)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "PREFECT_SERVER_UI_API_URL": f"{url}/api"},
            preexec_fn=_end_with_parent,  # noqa: PLW1509  no threads run yet
        )  # fmt: skip
    try:
        _await(f"{url}/api/health", server, logs)
        os.environ["PREFECT_API_URL"] = f"{url}/api"
        yield url
    finally:
        _drain()
        os.environ.pop("PREFECT_API_URL", None)
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _drain() -> None:
    """Send what Prefect still has to say; else it tries for a minute after the server is gone."""
    if "prefect.logging.handlers" in sys.modules:
        from prefect.events.worker import EventsWorker
        from prefect.logging.handlers import APILogWorker

        APILogWorker.drain_all(timeout=5)
        EventsWorker.drain_all(timeout=5)


def _end_with_parent() -> None:
    """In a child: be sent SIGTERM when the parent is gone, even if that was killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _await(url: str, server: subprocess.Popen[bytes], logs: Path) -> None:
    end = time.monotonic() + SERVER_PATIENCE
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if server.poll() is not None:
                raise InterloomError(
                    f"the Prefect server ended while starting: see {logs}"
                ) from None
            if time.monotonic() > end:
                text = f"no Prefect server within {SERVER_PATIENCE:.0f} s: see {logs}"
                raise InterloomError(text) from None
            time.sleep(0.1)


def _free_port(wanted: int) -> int:
    """``wanted`` if nothing listens there, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as server:
            try:
                server.bind(("127.0.0.1", port))
            except OSError:
                continue
            return server.getsockname()[1]
    raise InterloomError("no free port on 127.0.0.1")


def launch(
    root: Path,
    *,
    profile: str | None,
    from_stage: str | None,
    only: str | None,
    force: bool,
    timeout_minutes: float | None,
    retries: int | None,
    system: System | None = None,
) -> int:
    """Run the lifecycle flow here and show it; the exit status (1 after a failure).

    Raises:
        InterloomError: wrong params, profile or stages; no server has been started then.
    """
    live = sys.stderr.isatty() and sys.stdout.isatty()
    os.environ.update(prefect_environment(root))
    if live:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "ERROR")
    # Prefect sends a SIGTERM on to us when its flow has ended by it: then our server ends too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    names = wanted_stages(from_stage, only, system)
    load_profile(root, profile)
    began = time.monotonic()
    for line in dvc_state.repair(root):
        print(line)
    if not force and profile is None and _up_to_date(root, names):
        print("Everything is up to date: DVC found no stage to run.")
        return 0
    if not live:
        print("starting Prefect …", flush=True)
    with prefect_server(root) as url:
        from flows.lifecycle import lifecycle
        from flows.stage import display

        if live:
            print(f"Prefect shows this lifecycle at {url} while it runs")
            display.open(all_cells(names, load_settings(root / "params.yaml")))
        error: BaseException | None = None
        result: Any = None
        try:
            result = lifecycle(
                project=str(root),
                profile=profile,
                from_stage=from_stage,
                only=only,
                force=force,
                timeout_minutes=timeout_minutes,
                retries=retries,
                system=system,
            )
        except Exception as caught:
            error = caught  # the flow's own failure, whatever a stage raised; told below
        finally:
            display.close()
    took = clock(time.monotonic() - began)
    if error is not None:
        print(f"interloom: lifecycle failed after {took}: {error}", file=sys.stderr)
        return 1
    if isinstance(result, dict) and "promotion" in result:
        print(f"Registry: {result['promotion']}")
    for line in _where_to_look(root, took, names):
        print(line)
    return 0


def _up_to_date(root: Path, names: list[str]) -> bool:
    """Whether DVC finds nothing to do, so that no server need be started to learn it."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json", *names],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode == 0 and json.loads(done.stdout) == {}


def _where_to_look(root: Path, took: str, names: Sequence[str]) -> list[str]:
    lines = [f"Lifecycle finished in {took}."]
    for spec in map(find_stage, names):
        page = root / spec.outs.get("report", "") / "index.html"
        if page.exists():
            lines.append(f"Open the report: {page.as_uri()}")
    lines.append("See every run and flow: `interloom ui` (MLflow on 5000, Prefect on 4200)")
    return lines


def launch_alone(flow: Flow[..., Any]) -> None:
    """Run one sub-flow on the project here, as ``python -m flows.NAME`` does.

    Exits with 1 after a failure, whose reason is the last line, and with 2 outside of a project.
    """
    try:
        root = find_project()
        for line in dvc_state.repair(root):
            print(line)
    except InterloomError as error:
        print(f"interloom: {error}", file=sys.stderr)
        sys.exit(2)
    with prefect_server(root) as url:
        print(f"Prefect: {url}", flush=True)
        try:
            flow(project=str(root))
        except Exception as error:  # the flow's own failure, whatever a stage raised
            print(f"interloom: {flow.name} failed: {error}", file=sys.stderr)
            sys.exit(1)
