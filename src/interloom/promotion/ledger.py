"""The memory of who became champion: an append-only ledger in MLflow itself.

MLflow keeps no history of aliases and has no way to say "set this alias if it still is that". But
a *param* of a run can be written once and never be changed or taken back, and of two writers at
once one is refused, whatever the store (the primary key of its table decides: SQLite, PostgreSQL,
or a tracking server in front of one). So the ledger is:

- one run, in the experiment ``promotions-claims``, whose params are the ledger's lines: param
  ``MODEL/000007`` is decision 7 about MODEL, as JSON. Who writes it has made decision 7; who comes
  second finds the place taken, and nothing has changed.
- one finished run per decision in the experiment ``promotions``, for people: tags, the gate's
  figures as metrics, its table as an artifact. The lines do not need it, nor the model versions,
  so the history stays when those are deleted.
- The experiment ``promotions`` names the run of the lines in a tag that is written with the
  experiment itself: of two first writers, one makes it.

A decision is carried out in this order: its run is made (status RUNNING), its line is claimed, the
alias is set, its run is finished. So a process that was killed before the claim has done nothing,
and after the claim has decided: ``settle``, which every command calls first, finds the last line's
run unfinished and does the rest. While the claiming process may be alive (``PATIENCE``), others
wait. A process that slept through all that and then sets an alias of old looks at the ledger once
more after having set it, and sets the newest line's.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from interloom.catalogue import Catalogue, aliases
from interloom.errors import InterloomError
from interloom.promotion.gate import Verdict
from interloom.records import Record
from interloom.registry import CHAMPION
from interloom.tracking import Process, this_process

PATIENCE = 60.0
"""Seconds that a claimed decision may take to be carried out, before others do it."""
CLAIMS_TAG = "interloom.claims_run"
COMMENT_LIMIT = 1000
Kind = Literal["promotion", "refusal", "rollback", "outside"]


class TakenError(Exception):
    """Another decision was written first."""


class BusyError(Exception):
    """A decision is being carried out by a process that seems alive."""


@dataclass(frozen=True)
class Author:
    """Who decides, why, and further tags of the record (the flow run)."""

    name: str
    comment: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


class Entry(Record):
    """One line. ``outside`` is a change of the alias that was found, made by none of us."""

    number: int
    kind: Kind
    version: str | None
    """What was decided about; none if the champion was taken away from outside."""
    before: str | None
    """The champion when it was decided, and ``after`` it."""
    after: str | None
    by: str
    at: str
    comment: str
    run: str
    despite_gate: bool = False


class Ledger:
    """The decisions about one model."""

    def __init__(self, catalogue: Catalogue, model: str) -> None:
        self._catalogue, self.model = catalogue, model
        self._client = catalogue.client
        self._experiment = catalogue.settings.promotion.experiment

    # --- reading

    def entries(self) -> list[Entry]:
        """All decisions, oldest first."""
        claims = self._claims()
        if claims is None:
            return []
        params = self._client.get_run(claims).data.params
        prefix = f"{self.model}/"
        lines = sorted((key, text) for key, text in params.items() if key.startswith(prefix))
        return [Entry.model_validate_json(text) for _, text in lines]

    def champion(self) -> str | None:
        """The version that the alias names."""
        return aliases(self._catalogue, self.model).get(CHAMPION)

    def _claims(self) -> str | None:
        """The run of the lines; none before the first decision.

        Raises:
            InterloomError: the experiment was deleted, or is not ours.
        """
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            return None
        if found.lifecycle_stage != "active":
            raise InterloomError(
                f"the MLflow experiment {self._experiment!r} was deleted, and with it the ledger: "
                f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
            )
        if CLAIMS_TAG not in found.tags:
            raise InterloomError(
                f"the MLflow experiment {self._experiment!r} is no ledger of promotions: set "
                "another name in promotion.experiment"
            )
        return found.tags[CLAIMS_TAG]

    # --- writing

    def append(
        self,
        number: int,
        kind: Kind,
        author: Author,
        *,
        version: str | None,
        before: str | None,
        after: str | None,
        verdict: Verdict | None = None,
        despite_gate: bool = False,
    ) -> Entry:
        """Write decision ``number`` and carry it out: afterwards ``after`` is the champion.

        Raises:
            TakenError: there is a decision of that number already; nothing was changed.
        """
        claims = self._claims() or self._begin()
        entry = Entry(
            number=number, kind=kind, version=version, before=before, after=after, by=author.name,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            comment=author.comment[:COMMENT_LIMIT], run="", despite_gate=despite_gate,
        )  # fmt: skip
        entry = entry.model_copy(update={"run": self._draft(entry, author, verdict)})
        if not self._claim(claims, entry):
            self._client.delete_run(entry.run)
            raise TakenError(f"{self.model}: decision {number} is another's")
        self.carry_out(entry)
        return entry

    def _claim(self, claims: str, entry: Entry) -> bool:
        """Write the line, if its place is free; whether it stands there now."""
        from mlflow.exceptions import MlflowException

        key = f"{self.model}/{entry.number:06d}"
        try:
            self._client.log_param(claims, key, entry.model_dump_json())
        except MlflowException:
            # Taken, or no answer although it was written: what stands there tells.
            params = self._client.get_run(claims).data.params
            if key not in params:
                raise
            return params[key] == entry.model_dump_json()
        return True

    def carry_out(self, entry: Entry) -> None:
        """Make the aliases and tags say what the newest line says, and finish the line's run."""
        while True:
            lost = not self._point(entry.after)
            newest = self.entries()[-1]
            if newest.number == entry.number:
                break
            entry = newest
        if lost:
            note = f"version {entry.after} was deleted before it became champion"
            self._client.set_tag(entry.run, "interloom.error", note)
        else:
            self._tag_versions(entry)
        self._client.set_terminated(entry.run, "FAILED" if lost else "FINISHED")

    def _point(self, version: str | None) -> bool:
        """Set the alias, or take it away; false if there is no such version any more."""
        from mlflow.exceptions import MlflowException

        if self.champion() == version:
            return True
        if version is None:
            self._client.delete_registered_model_alias(self.model, CHAMPION)
            return True
        try:
            self._client.set_registered_model_alias(self.model, CHAMPION, version)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return True

    def _tag_versions(self, entry: Entry) -> None:
        """Tags on the versions concerned, for people who look at them in the UI."""
        gone = {"promotion": "replaced", "rollback": "rolled back", "outside": "replaced"}
        words: dict[str, str] = {}
        if entry.before is not None and entry.before != entry.after:
            words[entry.before] = gone[entry.kind]
        if entry.kind == "refusal" and entry.version is not None:
            words[entry.version] = "refused"
        elif entry.after is not None:
            words[entry.after] = "champion"
        for version, status in words.items():
            self._tag(version, {
                "promotion.status": status,
                "promotion.decision": f"{entry.number}, {entry.at}, {entry.by}",
                "promotion.run": entry.run,
            })  # fmt: skip

    def _tag(self, version: str, tags: Mapping[str, str]) -> None:
        from mlflow.exceptions import MlflowException

        for name, value in tags.items():
            try:
                self._client.set_model_version_tag(self.model, version, name, value)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return  # deleted meanwhile

    # --- making

    def _draft(self, entry: Entry, author: Author, verdict: Verdict | None) -> str:
        """The run of a decision, which is not valid before its line is claimed; its id."""
        found = self._client.get_experiment_by_name(self._experiment)
        assert found is not None
        tags = {
            **author.tags,
            "mlflow.user": entry.by,
            "mlflow.note.content": entry.comment or words(entry),
            "interloom.kind": "promotion",
            "promotion.model": self.model,
            "promotion.decision": entry.kind,
            "promotion.version": entry.version or "",
            "promotion.comment": entry.comment,
            "promotion.despite_gate": str(entry.despite_gate).lower(),
            "promotion.process": json.dumps(
                {"host": socket.gethostname()} | asdict(this_process())
            ),
        }
        name = f"{self.model} {entry.number}: {words(entry)}"
        run = self._client.create_run(found.experiment_id, tags=tags, run_name=name).info.run_id
        params: dict[str, Any] = {
            "model": self.model, "decision": entry.kind, "number": entry.number,
            "version": entry.version, "from": entry.before, "to": entry.after, "by": entry.by,
        }  # fmt: skip
        for key, value in params.items():
            self._client.log_param(run, key, value)
        if verdict is not None:
            for key, value in verdict.figures().items():
                self._client.log_metric(run, key, value)
            rows = [check.row() for check in verdict.checks]
            table = {key: [row[key] for row in rows] for key in rows[0]}
            self._client.log_table(run, table, "gate.json")
        return run

    def _begin(self) -> str:
        """Begin the ledger; the run of the lines, whoever made it."""
        from mlflow.exceptions import MlflowException

        lines = self._make_experiment(f"{self._experiment}-claims", {})
        note = "The ledger of promotions: each param is a decision. Do not delete this run."
        tags = {"mlflow.note.content": note, "interloom.kind": "ledger"}
        run = self._client.create_run(lines, tags=tags, run_name="ledger").info.run_id
        self._client.set_terminated(run)
        try:
            self._make_experiment(self._experiment, {CLAIMS_TAG: run}, must_be_new=True)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            self._client.delete_run(run)
        claims = self._claims()
        assert claims is not None
        return claims

    def _make_experiment(
        self, name: str, tags: dict[str, str], *, must_be_new: bool = False
    ) -> str:
        from mlflow.exceptions import MlflowException

        place = None
        if not self._catalogue.uri.startswith("http"):
            # The store's default is relative to the working directory, whichever that is.
            place = str((self._catalogue.root / "mlruns" / name).absolute())
        try:
            return self._client.create_experiment(name, place, tags)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or must_be_new:
                raise
        found = self._client.get_experiment_by_name(name)
        assert found is not None
        return found.experiment_id

    # --- healing

    def settle(self) -> list[Entry]:
        """Finish what a killed process left, write down what others did; then all decisions.

        Raises:
            BusyError: a decision is being carried out right now.
        """
        entries = self.entries()
        if entries:
            run = self._run(entries[-1])
            if run is not None and run.info.status == "RUNNING":
                if _at_work(run):
                    raise BusyError(
                        f"{words(entries[-1])} by {entries[-1].by} is being carried out"
                    )
                self.carry_out(entries[-1])
            self._end_drafts(entries)
        recorded = entries[-1].after if entries else None
        present = self.champion()
        if present == recorded:
            return entries
        outside = Author("unknown", "found: the alias was changed by other means")
        number = len(entries) + 1
        try:
            return [
                *entries,
                self.append(
                    number, "outside", outside, version=present, before=recorded, after=present
                ),
            ]
        except TakenError:
            return self.settle()

    def _run(self, entry: Entry) -> Any:
        """The MLflow run of a line; none if someone has deleted it for good."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(entry.run)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def _end_drafts(self, entries: Sequence[Entry]) -> None:
        """Close runs of decisions that were never claimed, as their process was killed."""
        found = self._client.get_experiment_by_name(self._experiment)
        assert found is not None
        valid = {entry.run for entry in entries}
        query = f"attributes.status = 'RUNNING' AND tags.`promotion.model` = '{self.model}'"
        for run in self._client.search_runs([found.experiment_id], query):
            if run.info.run_id not in valid and not _at_work(run):
                note = "never took effect: its process was killed before it was decided"
                self._client.set_tag(run.info.run_id, "interloom.error", note)
                self._client.set_terminated(run.info.run_id, "KILLED")


def _at_work(run: Any) -> bool:
    """Whether the process of an unfinished decision may still be about to finish it."""
    age = time.time() - run.info.start_time / 1000
    if age > PATIENCE:
        return False
    process = json.loads(run.data.tags["promotion.process"])
    here = process.pop("host") == socket.gethostname()
    return not here or Process(**process).alive()


def words(entry: Entry) -> str:
    """What a decision was, in short.

    >>> said = dict(number=1, by="ana", at="", comment="", run="")
    >>> words(Entry(kind="promotion", version="3", before="2", after="3", **said))
    'promotion of 3, champion 2 → 3'
    >>> words(Entry(kind="refusal", version="4", before="3", after="3", **said))
    'refusal of 4, champion stays 3'
    """
    if entry.before == entry.after:
        return f"{entry.kind} of {entry.version}, champion stays {entry.after or 'none'}"
    change = f"champion {entry.before or 'none'} → {entry.after or 'none'}"
    if entry.kind == "outside":
        return f"change from outside, {change}"
    return f"{entry.kind} {'to' if entry.kind == 'rollback' else 'of'} {entry.version}, {change}"
