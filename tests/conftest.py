from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from tiny_project.project import free_port, wait_for

# Busy machines are slow, not wrong.
settings.register_profile("interloom", deadline=None)
settings.load_profile("interloom")

POSTGRES = [shutil.which(name, path="/usr/local/bin:/usr/bin:" + os.environ["PATH"])
            for name in ("initdb", "postgres")]  # fmt: skip

if TYPE_CHECKING:
    from kube_server.server import KubeServer
    from tiny_project.project import Project


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Qwen3-VL with random weights (see ``tiny_vlm.py``)."""
    import tiny_vlm as builder
    import torch

    torch.set_num_threads(1)
    return builder.build(tmp_path_factory.mktemp("models") / "tiny-vlm")


@pytest.fixture(scope="session")
def tiny_umm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an Emu3 with random weights (see ``tiny_umm.py``)."""
    import tiny_umm as builder

    return builder.build(tmp_path_factory.mktemp("models") / "tiny-umm")


@pytest.fixture(scope="session")
def taught_umm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the shipped unified model, taught stories of every mode (see ``taught_umm.py``)."""
    import taught_umm as builder

    return builder.build(tmp_path_factory.mktemp("models") / "taught-umm")


@pytest.fixture(scope="session")
def project_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh project folder with git, DVC and the tiny stages, to be copied."""
    from tiny_project.project import make_project

    return make_project(tmp_path_factory.mktemp("template") / "project").root


@pytest.fixture(scope="session")
def prefect_server_env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Prefect server of the tests' own; the environment to reach it."""
    from flows.launch import prefect_server

    before = dict(os.environ)
    root = tmp_path_factory.mktemp("prefect")
    os.environ.pop("PREFECT_API_URL", None)
    os.environ["PREFECT_HOME"] = str(root / "home")
    with prefect_server(root, free_port()) as url:
        yield {"PREFECT_API_URL": f"{url}/api", "PREFECT_HOME": str(root / "home")}
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def project(project_template: Path, tmp_path: Path) -> Project:
    """A project of the test's own, without tracking."""
    from tiny_project.project import copy_project

    return copy_project(project_template, tmp_path / "project")


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an untrained ``Flux2KleinPipeline`` of pocket size; it draws noise."""
    import torch

    from interloom.backends.diffusers import PairedFlux2KleinPipeline
    from interloom.pocket.foundation import generator
    from interloom.pocket.foundation.autoencoder import new_autoencoder
    from interloom.pocket.foundation.tokenizer import train_tokenizer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = train_tokenizer()
    pipeline = PairedFlux2KleinPipeline(
        scheduler=generator.new_scheduler(),
        vae=new_autoencoder(),
        text_encoder=generator.new_text_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=generator.new_transformer(),
        is_distilled=True,
    )
    out = tmp_path_factory.mktemp("models") / "tiny-generator"
    generator.save_pipeline(pipeline, out)
    return out


@pytest.fixture
def models_project(
    tmp_path: Path, tiny_vlm: Path, tiny_generator: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project folder with tiny models in every place; also the working directory."""
    from models_project import make

    monkeypatch.chdir(tmp_path)
    return make(tmp_path, tiny_vlm, tiny_generator)


@pytest.fixture
def postgres() -> Iterator[str]:
    """A real PostgreSQL server of this test's own; the URI of an empty database."""
    if None in POSTGRES:
        pytest.skip("PostgreSQL is not installed")
    import tempfile

    initdb, server = (str(path) for path in POSTGRES)
    # As root the server refuses to start: give it to another account.
    account: dict[str, Any] = {"user": 65534, "group": 65534} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        data = str(folder / "data")
        made = [initdb, "-D", data, "-U", "interloom", "--auth=trust", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True, cwd=folder, **account)
        port = free_port()
        options = ["-D", data, "-p", str(port), "-k", name, "-c", "fsync=off"]
        process = subprocess.Popen(
            [server, *options], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            **account,
        )  # fmt: skip
        try:
            wait_for(lambda: _accepts(port))
            time.sleep(0.5)
            yield f"postgresql+psycopg2://interloom@127.0.0.1:{port}/postgres"
        finally:
            process.send_signal(signal.SIGINT)  # do not wait for clients
            process.wait(30)


def _accepts(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an MLflow database with nothing in it."""
    from mlflow.tracking import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    uri = f"sqlite:///{file}"
    MlflowClient(uri, uri).search_registered_models()
    return file


@pytest.fixture
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    """A Kubernetes API server that runs the containers of pods, with the namespace interloom."""
    from kube_server.server import KubeServer

    with KubeServer(tmp_path_factory.mktemp("kube")) as cluster:
        cluster.namespace("interloom")
        yield cluster
