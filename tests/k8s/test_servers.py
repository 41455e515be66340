"""MLflow's and Prefect's servers, as their Deployments start them, on a real PostgreSQL."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from manifests import ROOT, rendered
from tiny_project.project import BIN, free_port, wait_for

from interloom.cluster.rendered import named, pod_spec

PASSWORDS = {"mlflow": 'it\'s "m" $1', "prefect": "p@ss:/word"}
"""Which no address could have."""


@pytest.fixture
def databases(postgres: str) -> int:
    """The port of a PostgreSQL server where our script has made roles and databases."""
    port = urlsplit(postgres).port
    assert port is not None
    script = (ROOT / "k8s/base/files/databases.sh").read_text(encoding="utf-8")
    # In the pod the superuser is `postgres`, and the server listens at a socket.
    script = script.replace("--username=postgres", f"--username=interloom -h 127.0.0.1 -p {port}")
    env = {f"{name.upper()}_PASSWORD": word for name, word in PASSWORDS.items()}
    subprocess.run(["sh", "-s"], input=script, text=True, check=True, env={**os.environ, **env})
    # From now on the two have to give their passwords.
    rules = Path(ask(port, "postgres", "SHOW hba_file").strip())
    asked = [f"host {name} {name} 127.0.0.1/32 scram-sha-256\n" for name in PASSWORDS]
    rules.write_text("".join(asked) + rules.read_text())
    ask(port, "postgres", "SELECT pg_reload_conf()")
    return port


@contextmanager
def server(name: str, port: int, folder: Path) -> Iterator[str]:
    """A server by its Deployment, at another address and with its own folder for ``/tmp``."""
    workload = named(rendered("local"), "Deployment", name)
    assert workload is not None
    (container,) = pod_spec(workload)["containers"]
    own = str(free_port())
    given = str(container["ports"][0]["containerPort"])

    def here(word: str) -> str:
        word = word.replace("0.0.0.0", "127.0.0.1").replace("@postgres:5432", f"@127.0.0.1:{port}")
        word = word.replace(f"--port={given}", f"--port={own}").replace(
            "/mlartifacts", f"{folder}/a"
        )
        return word.replace("/tmp", str(folder))

    env: dict[str, Any] = {
        entry["name"]: here(entry["value"]) for entry in container["env"] if "value" in entry
    }
    env |= {"PGPASSWORD": PASSWORDS[name.partition("-")[0]]}
    env |= {"PREFECT_SERVER_API_AUTH_STRING": "me:secret"} if name == "prefect-server" else {}
    words = [here(word) for word in [*container["command"], *container["args"]]]
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    log = (folder / f"{name}.log").open("wb")
    process = subprocess.Popen(
        words, cwd=folder, env={"PATH": path, **env}, stdout=log, stderr=log, start_new_session=True
    )
    url = f"http://127.0.0.1:{own}"
    probe = container["readinessProbe"]["httpGet"]["path"]
    try:
        wait_for(lambda: answers(f"{url}{probe}"), seconds=240, every=1)
        yield url
    finally:
        process.terminate()
        process.wait(30)
        log.close()
        print((folder / f"{name}.log").read_text()[-3000:])  # shown if the test fails


def answers(url: str) -> bool:
    """Whether a probe of the kubelet would be content; its Host is the pod's address."""
    try:
        return httpx.get(url, headers={"Host": "10.1.2.3:80"}, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mlflow_keeps_its_runs_in_postgresql(databases: int, tmp_path: Path) -> None:
    with server("mlflow", databases, tmp_path) as url:
        body = {"name": "from a pod"}
        create = f"{url}/api/2.0/mlflow/experiments/create"
        assert httpx.post(create, json=body, headers={"Host": "evil.example"}).status_code == 403
        assert httpx.post(create, json=body, headers={"Host": "mlflow:5000"}).status_code == 200
    assert "from a pod" in ask(databases, "mlflow", "SELECT name FROM experiments")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_prefect_keeps_its_runs_in_postgresql_behind_its_auth(
    databases: int, tmp_path: Path
) -> None:
    with server("prefect-server", databases, tmp_path) as url:
        pool = {"name": "interloom-cluster", "type": "kubernetes"}
        refused = httpx.post(f"{url}/api/work_pools/", json=pool)
        assert refused.status_code == 401
        made = httpx.post(f"{url}/api/work_pools/", json=pool, auth=("me", "secret"))
        assert made.status_code == 201, made.text
    assert "interloom-cluster" in ask(databases, "prefect", "SELECT name FROM work_pool")


def test_each_server_has_a_database_of_its_own(databases: int) -> None:
    owners = ask(databases, "postgres", "SELECT datname, pg_get_userbyid(datdba) FROM pg_database")
    assert "mlflow|mlflow" in owners and "prefect|prefect" in owners
    connect = "SELECT has_database_privilege('mlflow', 'prefect', 'CONNECT')"
    assert ask(databases, "postgres", connect).strip() == "f"
    with pytest.raises(subprocess.CalledProcessError):
        ask(databases, "mlflow", "SELECT 1", user="mlflow", password="wrong")
    right = ask(databases, "mlflow", "SELECT 1", user="mlflow", password=PASSWORDS["mlflow"])
    assert right.strip() == "1"


def ask(
    port: int, database: str, question: str, user: str = "interloom", password: str = ""
) -> str:
    """What psql answers, to the superuser unless someone else is named."""
    command = ["psql", "-h", "127.0.0.1", "-p", str(port), "-U", user, "-d", database, "-Atc"]
    done = subprocess.run(
        [*command, question], capture_output=True, text=True, check=True,
        env={**os.environ, "PGPASSWORD": password},
    )  # fmt: skip
    return done.stdout
