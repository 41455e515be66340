"""Commands about the Kubernetes cluster: `interloom cluster …`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

app = typer.Typer(help="Kubernetes: what would fail there.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep the group a group while it has a single command."""


@app.command()
def preflight(
    overlay: Annotated[str, typer.Argument(help="A folder in k8s/overlays, such as gpu.")],
    profile: Annotated[
        str | None, typer.Option(help="A file in profiles/; the active params if not given.")
    ] = None,
) -> None:
    """Check manifests, stages, quota, images, secrets, volumes and remote; change nothing."""
    from interloom.cluster.preflight import examine
    from interloom.cluster.rendered import OVERLAYS
    from interloom.project import find_project
    from interloom.settings.file import load_profile

    root = find_project()
    os.chdir(root)
    problems = 0
    for finding in examine(root, load_profile(root, profile), OVERLAYS / overlay):
        typer.echo(finding.line())
        problems += finding.level == "missing"
    raise typer.Exit(1 if problems else 0)
