from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from tiny_project.project import free_port

# Busy machines are slow, not wrong.
settings.register_profile("interloom", deadline=None)
settings.load_profile("interloom")

if TYPE_CHECKING:
    from tiny_project.project import Project


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Qwen3-VL with random weights (see ``tiny_vlm.py``)."""
    import tiny_vlm as builder
    import torch

    torch.set_num_threads(1)
    return builder.build(tmp_path_factory.mktemp("models") / "tiny-vlm")


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
