"""``interloom registry …``: who is champion, who was, who shall be."""

from __future__ import annotations

import getpass
import json
import os
import socket
from typing import Annotated

import typer

from interloom.catalogue import Catalogue, aliases, open_catalogue, shown, versions
from interloom.errors import InterloomError
from interloom.project import find_project
from interloom.promotion.decisions import Proposal, promote, propose, rollback, settled
from interloom.promotion.gate import as_text
from interloom.promotion.ledger import Author, Entry, Ledger, words
from interloom.registry import CHALLENGER, CHAMPION
from interloom.settings.fields import System
from interloom.tracking import VARIABLE_TAGS

app = typer.Typer(help="Champion and challenger: judge, promote, roll back.", no_args_is_help=True)

Whose = Annotated[
    System, typer.Option(help="Which system's model: agents (the pipeline), or adaptive.")
]
Version = Annotated[
    str | None, typer.Option(help=f"Version number; @{CHALLENGER} if none is given.")
]
Comment = Annotated[str, typer.Option(help="Why; kept in the ledger.")]


def _open() -> Catalogue:
    root = find_project()
    os.chdir(root)
    return open_catalogue(root)


def _author(comment: str) -> Author:
    tags = {tag: os.environ[name] for name, tag in VARIABLE_TAGS.items() if name in os.environ}
    return Author(f"{getpass.getuser()}@{socket.gethostname()}", comment, tags)


@app.command()
def gate(version: Version = None, system: Whose = "agents") -> None:
    """Hold a version against the champion and the limits; change nothing (status 1: refused)."""
    proposal = propose(_open(), system, version)
    _tell(proposal)
    raise typer.Exit(0 if proposal.verdict.passed else 1)


@app.command("promote")
def promote_command(
    version: Version = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    comment: Comment = "",
    despite_gate: Annotated[
        bool, typer.Option("--despite-gate", help="Even if the gate refuses; needs --comment.")
    ] = False,
    system: Whose = "agents",
) -> None:
    """Make a version champion if it passes the gate; a refusal goes to the ledger (status 2)."""
    if despite_gate and not comment.strip():
        raise InterloomError("--despite-gate needs a --comment that says why")
    catalogue = _open()
    settled(Ledger(catalogue, catalogue.settings.registration.name_of(system)))
    proposal = propose(catalogue, system, version)
    _tell(proposal)
    if proposal.earlier is not None:
        typer.echo(f"Decided before: {words(proposal.earlier)} ({proposal.earlier.at})")
    wanted = proposal.verdict.passed or despite_gate
    if wanted and not yes:
        change = f"@{CHAMPION} {proposal.champion or 'none'} → {proposal.version}"
        typer.confirm(f"{change}?", abort=True)
    made = promote(catalogue, proposal, _author(comment), despite_gate=despite_gate)
    typer.echo(f"decision {made.number}: {words(made)}")


@app.command("rollback")
def rollback_command(
    to: Annotated[str | None, typer.Option(help="An earlier champion's version number.")] = None,
    comment: Comment = "",
    system: Whose = "agents",
) -> None:
    """Make the champion before this one champion again, at once and without the gate."""
    made = rollback(_open(), system, to, _author(comment))
    typer.echo(f"decision {made.number}: {words(made)}")


@app.command()
def history(
    as_json: Annotated[bool, typer.Option("--json", help="All that is known of each.")] = False,
    system: Whose = "agents",
) -> None:
    """Every decision: when, what, from, to, by whom and why, oldest first."""
    catalogue = _open()
    model = catalogue.settings.registration.name_of(system)
    entries = settled(Ledger(catalogue, model))
    if as_json:
        typer.echo(json.dumps([entry.model_dump() for entry in entries], indent=1))
        return
    if not entries:
        typer.echo(f"no decision about {model} yet (in {shown(catalogue.uri)})")
        return
    present = versions(catalogue, model)
    typer.echo(as_text([_row(entry, present) for entry in entries]))
    now = aliases(catalogue, model)
    typer.echo(
        f"@{CHAMPION} {now.get(CHAMPION, 'none')}, @{CHALLENGER} {now.get(CHALLENGER, 'none')}"
    )


def _row(entry: Entry, present: set[str]) -> dict[str, str]:
    def named(version: str | None) -> str:
        gone = "" if version is None or version in present else " (deleted)"
        return f"{version or 'none'}{gone}"

    return {
        "no": str(entry.number),
        "when": entry.at,
        "decision": entry.kind + (" despite the gate" if entry.despite_gate else ""),
        "version": named(entry.version),
        "champion": named(entry.after)
        if entry.before == entry.after
        else f"{named(entry.before)} → {named(entry.after)}",
        "by": entry.by,
        "comment": entry.comment,
    }


def _tell(proposal: Proposal) -> None:
    champion = f"champion {proposal.champion}" if proposal.champion else "no champion yet"
    typer.echo(f"{proposal.model} version {proposal.version} against {champion}\n")
    typer.echo(as_text([check.row() for check in proposal.verdict.checks]))
    typer.echo(f"\nthe gate {'lets it pass' if proposal.verdict.passed else 'REFUSES it'}")
