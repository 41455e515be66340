"""The MLflow and Prefect UIs on the project's results, side by side, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from interloom.errors import InterloomError
from interloom.settings import load_settings
from interloom.tracking import tracking_uri


def serve(root: Path, mlflow_port: int, prefect_port: int) -> None:
    """Start both servers and wait; both end with this process."""
    from flows.launch import prefect_environment

    uri = tracking_uri(load_settings(root / "params.yaml").tracking, root)
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
