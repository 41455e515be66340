"""Promote, refuse, roll back: what the command line and the flow do with gate and ledger."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from interloom.benchmarks import evidence
from interloom.benchmarks.evidence import Evidence
from interloom.catalogue import Catalogue, aliases, fetch, resolve, versions
from interloom.errors import InterloomError
from interloom.promotion.gate import Check, Verdict, judge
from interloom.promotion.ledger import (
    PATIENCE,
    Author,
    BusyError,
    Entry,
    Kind,
    Ledger,
    TakenError,
    words,
)
from interloom.registry import CHALLENGER, CHAMPION
from interloom.settings.fields import System
from interloom.settings.operation import GateSettings

REGISTERING: Mapping[System, str] = {"agents": "register", "adaptive": "register-adaptive"}
"""The stage that makes a system's versions."""


@dataclass(frozen=True)
class Proposal:
    """A version beside the champion that it would replace, and what the gate says of it."""

    model: str
    version: str
    champion: str | None
    verdict: Verdict
    known: int
    """Decisions that had been made when it was judged."""
    earlier: Entry | None
    """The last decision about this very version, if there was one."""


def propose(catalogue: Catalogue, system: System, version: str | None) -> Proposal:
    """Judge a version of a system's model, the challenger if none is named. Changes nothing.

    Raises:
        InterloomError: there is no such version, or it is the champion already.
    """
    model = catalogue.settings.registration.name_of(system)
    known = aliases(catalogue, model)
    chosen = version or known.get(CHALLENGER)
    if chosen is None:
        raise InterloomError(
            f"{model} has no @{CHALLENGER}: register a version first "
            f"(`dvc repro {REGISTERING[system]}`)"
        )
    resolve(catalogue, f"models:/{model}/{chosen}")
    champion = known.get(CHAMPION)
    if chosen == champion:
        raise InterloomError(f"{model} version {chosen} is the champion already")
    entries = Ledger(catalogue, model).entries()
    about = [entry for entry in entries if chosen in (entry.version, entry.before)]
    limits = catalogue.settings.promotion.limits_of(system)
    return Proposal(
        model=model,
        version=chosen,
        champion=champion,
        verdict=_judge(catalogue, limits, model, chosen, champion),
        known=len(entries),
        earlier=about[-1] if about else None,
    )


def _judge(
    catalogue: Catalogue, limits: GateSettings, model: str, version: str, champion: str | None
) -> Verdict:
    """The gate's verdict; what keeps it from judging is a reason to refuse."""
    try:
        ours = evidence_of(catalogue, model, version)
        theirs = evidence_of(catalogue, model, champion) if champion else None
    except InterloomError as error:
        return Verdict((Check("evidence", None, str(error), "both versions have it", False),))
    return judge(ours, theirs, limits)


def evidence_of(catalogue: Catalogue, model: str, version: str) -> Evidence:
    """What was measured of a version when it was registered.

    Raises:
        InterloomError: the version has no evidence.
    """
    found = resolve(catalogue, f"models:/{model}/{version}")
    with tempfile.TemporaryDirectory() as folder:
        path = fetch(catalogue, found, evidence.FILE, Path(folder))
        return Evidence.model_validate_json(path.read_text(encoding="utf-8"))


def promote(
    catalogue: Catalogue, proposal: Proposal, author: Author, *, despite_gate: bool = False
) -> Entry:
    """Make the proposed version champion.

    Raises:
        InterloomError: the gate refuses it and ``despite_gate`` is false, or another decision came
            first; either way the refusal is in the ledger.
    """
    passed = proposal.verdict.passed
    if not passed and not despite_gate:
        refuse(catalogue, proposal, author)
        raise InterloomError(
            f"version {proposal.version} is refused: {'; '.join(proposal.verdict.reasons)}"
        )
    overridden = despite_gate and not passed
    made = _decide(catalogue, proposal, author, "promotion", despite_gate=overridden)
    if made.kind != "promotion":
        raise InterloomError(f"version {proposal.version} is refused: {made.comment}")
    return made


def refuse(catalogue: Catalogue, proposal: Proposal, author: Author) -> Entry:
    """Write down that the proposed version does not become champion."""
    return _decide(catalogue, proposal, author, "refusal")


def _decide(
    catalogue: Catalogue,
    proposal: Proposal,
    author: Author,
    kind: Kind,
    *,
    despite_gate: bool = False,
) -> Entry:
    """Append the decision. A promotion becomes a refusal if what it was decided upon is no more:
    there is another champion, or the version was decided about meanwhile."""
    ledger = Ledger(catalogue, proposal.model)
    while True:
        entries = settled(ledger)
        champion = entries[-1].after if entries else None
        if kind == "promotion":
            reason = _overtaken(proposal, champion, entries)
            if reason:
                comment = f"{reason}; {author.comment}".rstrip("; ")
                author = Author(author.name, comment, author.tags)
                kind, despite_gate = "refusal", False
        try:
            return ledger.append(
                len(entries) + 1,
                kind,
                author,
                version=proposal.version,
                before=champion,
                after=proposal.version if kind == "promotion" else champion,
                verdict=proposal.verdict,
                despite_gate=despite_gate,
            )
        except TakenError:
            time.sleep(0.2)


def _overtaken(proposal: Proposal, champion: str | None, entries: Sequence[Entry]) -> str:
    """Why a proposal is void by now; empty if it is not."""
    if champion != proposal.champion:
        last = entries[-1]
        return (
            f"it was judged against champion {proposal.champion or 'none'}, but decision "
            f"{last.number} by {last.by} came first ({words(last)}): look at it and judge again"
        )
    since = [entry for entry in entries[proposal.known :] if entry.version == proposal.version]
    if since:
        return f"decision {since[-1].number} by {since[-1].by} came first ({words(since[-1])})"
    return ""


def settled(ledger: Ledger) -> list[Entry]:
    """All decisions, none of them half done: waits for one that is being carried out."""
    patient = Retrying(
        retry=retry_if_exception_type(BusyError),
        stop=stop_after_delay(PATIENCE + 10),
        wait=wait_fixed(0.5),
        reraise=True,
    )
    try:
        return patient(ledger.settle)
    except BusyError as error:
        raise InterloomError(f"{error}: wait and try again") from None


# --- back -----------------------------------------------------------------------------------------


def rollback(catalogue: Catalogue, system: System, to: str | None, author: Author) -> Entry:
    """Make an earlier champion of a system the champion again; the one before by default.

    Two people who take back one champion at once take back one champion: the second is refused.

    Raises:
        InterloomError: there is none, it never was champion, its version is deleted, or another
            decision came first.
    """
    model = catalogue.settings.registration.name_of(system)
    ledger = Ledger(catalogue, model)
    meant = ledger.champion()
    while True:
        entries = settled(ledger)
        champion = entries[-1].after if entries else None
        if champion != meant:
            raise InterloomError(
                f"the champion changed from {meant or 'none'} to {champion or 'none'} meanwhile "
                f"({words(entries[-1])}): look at `interloom registry history`"
            )
        target = to or _previous(entries, versions(catalogue, model))
        if target is None:
            raise InterloomError(f"{model} has no earlier champion that is still there")
        if target == champion:
            raise InterloomError(f"{model} version {target} is the champion already")
        if target not in {entry.after for entry in entries}:
            raise InterloomError(
                f"{model} version {target} never was champion: `interloom registry promote "
                f"--version {target}` holds it against the gate"
            )
        resolve(catalogue, f"models:/{model}/{target}")
        try:
            return ledger.append(
                len(entries) + 1, "rollback", author, version=target, before=champion, after=target
            )
        except TakenError:
            time.sleep(0.2)


def _previous(entries: Sequence[Entry], present: set[str]) -> str | None:
    """The champion before the present one that is still there.

    A rollback takes back what came after its target, so two rollbacks go back two champions.
    """
    line: list[str | None] = []
    for entry in entries:
        if entry.after == entry.before:
            continue
        if entry.kind == "rollback" and entry.after in line:
            while line[-1] != entry.after:
                line.pop()
        else:
            line.append(entry.after)
    earlier = [version for version in line[:-1] if version in present and version != line[-1]]
    return earlier[-1] if earlier else None
