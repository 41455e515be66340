"""The MLflow and Prefect UIs on the project's results, side by side, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from interloom.errors import InterloomError
from interloom.settings.file import load_settings
from interloom.tracking import tracking_uri


def serve(root: Path, mlflow_port: int, prefect_port: int) -> None:
    """Start both servers and wait; both end with this process.

    Raises:
        InterloomError: a port is taken, or a server ended.
    """
    from flows.launch import prefect_environment

    uri = tracking_uri(load_settings(root / "params.yaml").tracking, root)
    _check_free(prefect_port, "--prefect-port")
    if not uri.startswith("http"):
        _check_free(mlflow_port, "--mlflow-port")
    env = {**os.environ, **prefect_environment(root), "MLFLOW_DISABLE_TELEMETRY": "true"}
    # MLflow would start seven processes for evaluation jobs that nothing here submits.
    env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    env["PREFECT_SERVER_UI_API_URL"] = f"http://127.0.0.1:{prefect_port}/api"
    address = ("--host", "127.0.0.1", "--port")
    commands = [
        [sys.executable, "-m", "prefect", "server", "start", *address, str(prefect_port)],
    ]
    if uri.startswith("http"):
        print(f"MLflow:  {uri}")
    else:
        store = ("--backend-store-uri", uri, *address, str(mlflow_port), "--workers", "1")
        commands.append([sys.executable, "-m", "mlflow", "server", *store])
        print(f"MLflow:  http://127.0.0.1:{mlflow_port}")
    print(f"Prefect: http://127.0.0.1:{prefect_port}\nCtrl-C ends both.", flush=True)
    servers = [subprocess.Popen(command, cwd=root, env=env) for command in commands]
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        while all(server.poll() is None for server in servers):
            time.sleep(0.5)
        raise InterloomError("one of the two servers ended: see its lines above")
    except KeyboardInterrupt:
        print("ending")
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()


def _check_free(port: int, option: str) -> None:
    with socket.socket() as server:
        # As servers do: a connection that has just ended does not hold the port.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            raise InterloomError(
                f"port {port} is taken, perhaps by another `interloom ui`: end that, or choose "
                f"another port by {option}"
            ) from None
