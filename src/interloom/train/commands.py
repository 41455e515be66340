"""``interloom train …``: what one wants to know before a long training."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import typer

from interloom.project import find_project

app = typer.Typer(help="What one wants to know before a long training.", no_args_is_help=True)


@app.callback()
def train() -> None:
    """What one wants to know before a long training."""


@app.command("preflight-rl")
def preflight_rl() -> None:
    """Can RL gain anything from the SFT critic? Ends with status 2 and the reasons if it cannot."""
    from interloom.errors import InterloomError
    from interloom.runner import StageRun
    from interloom.settings.file import load_settings
    from interloom.stages import find_stage
    from interloom.train import grpo
    from interloom.train.readiness import problems

    os.chdir(find_project())
    settings = load_settings()
    with tempfile.TemporaryDirectory() as work:
        stage = StageRun(find_stage("grpo-critic"), Path.cwd(), Path(work), Path(work), None)
        figures = grpo.check(settings, stage)
    for name, value in figures.items():
        typer.echo(f"{name:14} {value:.3f}")
    found = problems(figures, settings.grpo_critic.readiness)
    if found:
        raise InterloomError(f"RL cannot gain from this critic: {'; '.join(found)}")
    typer.echo("RL can begin")
