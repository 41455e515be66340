"""``interloom benchmarks …`` as people type it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from benchmark_params import small_params
from typer.testing import CliRunner

from interloom import cli
from interloom.benchmarks.commands import app
from interloom.errors import InterloomError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    params = small_params(benchmarks=["wise"], systems=["generator", "oracle"], items=12)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(*words: str) -> str:
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_systems_are_told(project: Path):
    assert said("systems").splitlines() == [
        "generator        diffusers data/generator-weak alone",
        "oracle           planner teacher, critic teacher, diffusers data/generator-weak, T_max 2",
    ]


def test_costs_are_told_by_both_commands(project: Path, capsys: pytest.CaptureFixture[str]):
    params = yaml.safe_load((project / "params.yaml").read_text())
    params["grading"] |= {"backend": "openai", "model": "gpt-4.1", "allow_training_judge": False}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    told = said("estimate")
    # 24 calls of 2500 tokens at 2 US$ and 400 at 8 US$ per million.
    assert "wise         × 2 systems:      24 judge calls,      0.20 US$" in told
    cli.run("evaluate", estimate=True)
    assert capsys.readouterr().out.strip() == told.strip()
    assert not (project / "outputs").exists(), "nothing ran"
    with pytest.raises(
        InterloomError, match="--estimate is for the stage evaluate, not for report"
    ):
        cli.run("report", estimate=True)


def test_an_edition_is_validated(project: Path):
    assert said("validate", "wise", "--items", "12").split() == ["wise", "12", "items:", "sound"]
    with pytest.raises(InterloomError, match="no benchmark 'wisdom'; benchmarks: ueval, comm"):
        said("validate", "wisdom")
