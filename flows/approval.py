"""After a registration: the challenger is promoted, refused, or a person is asked."""

from __future__ import annotations

import contextvars
import getpass
import socket
import threading
from pathlib import Path
from typing import Any, Literal

from prefect import get_run_logger, pause_flow_run
from prefect.artifacts import create_table_artifact
from prefect.input import RunInput
from prefect.runtime import flow_run
from pydantic import Field

from flows import child
from flows.stage import display
from interloom.catalogue import Catalogue, open_catalogue
from interloom.errors import InterloomError
from interloom.promotion.decisions import (
    REGISTERING,
    Proposal,
    promote,
    propose,
    refuse,
    settled,
)
from interloom.promotion.gate import as_text
from interloom.promotion.ledger import Author, Entry, Ledger, words
from interloom.settings.fields import System

Approval = Literal["gate", "human", "none"]
POLL_SECONDS = 2
GRACE_SECONDS = 3600
"""Prefect fails a run that leaves its pause too late, so its time limit is later than ours."""


class Answer(RunInput):
    """The form that Prefect shows behind *Resume*."""

    decision: Literal["approve", "reject"]
    name: str = Field(description="who decides", min_length=1)
    comment: str = Field(default="", description="why; needed to approve what the gate refuses")


def decide(root: Path, system: System, approval: Approval | None) -> str:
    """Decide about the challenger of a system, in the way that ``approval`` or else the params file
    of the project says; what came of it in a few words."""
    try:
        catalogue = open_catalogue(root)
    except InterloomError as error:
        return f"nothing to decide: {error}"
    way: Approval = approval or catalogue.settings.promotion.approval
    ledger = Ledger(catalogue, catalogue.settings.registration.name_of(system))
    settled(ledger)
    try:
        proposal = propose(catalogue, system, None)
    except InterloomError as error:
        return f"nothing to decide: {error}"
    if proposal.earlier is not None:
        # What was refused or taken back does not come again by itself every night.
        return f"nothing to decide: {words(proposal.earlier)} ({proposal.earlier.at})"
    _publish(proposal)
    if way == "none":
        option = "" if system == "agents" else f" --system {system}"
        return f"version {proposal.version} waits for `interloom registry promote{option}`"
    if way == "human":
        return _by_person(catalogue, REGISTERING[system], proposal)
    return _by_gate(catalogue, proposal)


def _publish(proposal: Proposal) -> None:
    """The gate's table, in the log and as an artifact of the flow run."""
    verdict = proposal.verdict
    rows = [check.row() for check in verdict.checks]
    said = "passes" if verdict.passed else "is refused by"
    champion = proposal.champion or "none"
    title = f"{proposal.model} version {proposal.version} {said} the gate (champion: {champion})"
    get_run_logger().info(f"{title}\n{as_text(rows)}")
    create_table_artifact(rows, key="promotion-gate", description=title)


def _by_gate(catalogue: Catalogue, proposal: Proposal) -> str:
    author = _author(f"{getpass.getuser()}@{socket.gethostname()}", "decided by the gate")
    if proposal.verdict.passed:
        return _promoted(catalogue, proposal, author, despite_gate=False)
    return _told(refuse(catalogue, proposal, author))


def _by_person(catalogue: Catalogue, stage: str, proposal: Proposal) -> str:
    """Pause until someone approves or rejects, or the time is over: then nothing is decided."""
    hours = catalogue.settings.promotion.approval_hours
    log = get_run_logger()
    while True:
        answer = _ask(proposal, stage, hours)
        if answer is None:
            return f"nobody decided about version {proposal.version} within {hours:g} hours"
        author = _author(answer.name, answer.comment)
        if answer.decision == "reject":
            return _told(refuse(catalogue, proposal, author))
        if proposal.verdict.passed or answer.comment.strip():
            return _promoted(catalogue, proposal, author, despite_gate=True)
        log.warning("the gate refuses this version: approving it needs a comment; asking again")


def _promoted(catalogue: Catalogue, proposal: Proposal, author: Author, despite_gate: bool) -> str:
    try:
        return _told(promote(catalogue, proposal, author, despite_gate=despite_gate))
    except InterloomError as error:
        get_run_logger().warning(str(error))
        return str(error)


def _ask(proposal: Proposal, stage: str, hours: float) -> Answer | None:
    """The answer of a person; none if there is none in time.

    Prefect's own waiting does not notice that the run is cancelled, so it waits in a thread that
    can be left behind.
    """
    reasons = "".join(f"\n- {reason}" for reason in proposal.verdict.reasons)
    says = "The gate lets it pass." if not reasons else f"**The gate refuses it:**{reasons}"
    form = Answer.with_initial_data(
        description=f"Shall {proposal.model} version {proposal.version} replace champion "
        f"{proposal.champion or 'none'}? {says}\n\nAll figures: artifact `promotion-gate`."
    )
    given: list[Answer | BaseException] = []

    def wait() -> None:
        try:
            limit = int(hours * 3600) + GRACE_SECONDS
            given.append(pause_flow_run(form, timeout=limit, poll_interval=POLL_SECONDS))
        except BaseException as error:  # handed to the flow's own thread
            given.append(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(wait,), name="approval", daemon=True)
    display.line(stage, f"waiting for approval: {flow_run.ui_url}")
    thread.start()
    left = hours * 3600
    while thread.is_alive() and left > 0:
        if child.stopping.wait(0.2):
            raise InterruptedError("the flow is being cancelled")
        left -= 0.2
    if not given:
        return None
    if isinstance(given[0], BaseException):
        raise given[0]
    return given[0]


def _author(name: str, comment: str) -> Author:
    tags: dict[str, Any] = {
        "prefect.flow_run_id": flow_run.id,
        "prefect.flow_run_name": flow_run.name,
        "prefect.flow_run_url": flow_run.ui_url,
    }
    return Author(name, comment, {tag: str(value) for tag, value in tags.items() if value})


def _told(entry: Entry) -> str:
    get_run_logger().info(f"decision {entry.number}: {words(entry)}")
    return words(entry)
