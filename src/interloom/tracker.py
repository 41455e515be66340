"""Follows the spools of stages (``tracking.py``) and writes them to MLflow.

``python -m interloom.tracker SPOOL`` is one process per project. It starts with the first stage of
a lifecycle and stays until the lifecycle's process is gone, so that MLflow is imported once and not
once per stage. A spool that could not be written stays and is tried again by the next tracker.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interloom.provenance import provenance
from interloom.tracking import LOCK, PROBLEM, Process

POLL_SECONDS = 0.1
BATCH = 1000
"""Most metrics that MLflow takes at once."""


class StageRecord:
    """One stage execution on its way from its spool to its MLflow run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = (folder / "events.jsonl").open(encoding="utf-8")
        self.start: dict[str, Any] = json.loads(self._file.readline())
        self.process = Process(**self.start["process"])
        self.log: list[str] = []
        self.client: Any = None
        self.experiment = self.run = ""
        self.parent: str | None = None
        self.facts: dict[str, str] = {}

    def step(self) -> bool:
        """Write what is new; true when the stage has ended and all of it is in MLflow."""
        if self.client is None:
            self._open()
        gone = not self.process.alive()  # asked before reading, so that its last words are read
        events = self._new_events()
        self._handle(events)
        ends = [event for event in events if event["event"] == "end"]
        if gone and not ends:
            error = "the process of the stage vanished (killed)"
            ends = [{"status": "KILLED", "error": error, "outs": [], "metrics": {}}]
            ends[0]["time"] = time.time()
        if ends:
            self._end(ends[0])
        return bool(ends)

    def close(self) -> None:
        """Let go of the spool file."""
        self._file.close()

    def _open(self) -> None:
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=self.start["uri"])
        found = client.get_experiment_by_name(self.start["experiment"])
        self.experiment = (
            found.experiment_id if found else client.create_experiment(self.start["experiment"])
        )
        self.client = client
        self.facts = provenance(Path(self.start["root"]))
        self.parent = self._parent()
        known = self.folder / "run_id"
        if known.exists():
            self.run = known.read_text(encoding="utf-8")  # a kept spool is sent again
        else:
            self._begin()
            part = self.folder / "run_id.part"
            part.write_text(self.run, encoding="utf-8")
            part.replace(known)

    def _new_events(self) -> list[dict[str, Any]]:
        """Whole lines that were appended since the last call."""
        events = []
        while True:
            at = self._file.tell()
            line = self._file.readline()
            if not line.endswith("\n"):
                self._file.seek(at)
                return events
            events.append(json.loads(line))

    def _handle(self, events: list[dict[str, Any]]) -> None:
        """Write events in order; neighbouring metrics go in batches."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, round(event["time"] * 1000), event["step"] or 0)
            for event in events
            if event["event"] == "metrics"
            for name, value in event["values"].items()
        ]
        for at in range(0, len(metrics), BATCH):
            self.client.log_batch(self.run, metrics=metrics[at : at + BATCH])
        for event in events:
            if event["event"] == "log":
                clock = time.strftime("%H:%M:%S", time.localtime(event["time"]))
                self.log.append(f"{clock} {event['text']}")
            elif event["event"] == "artifact":
                path = Path(event["path"])
                where = event["folder"] or None
                if path.is_dir():
                    inside = "/".join(filter(None, (where, path.name)))
                    self.client.log_artifacts(self.run, str(path), inside)
                else:
                    self.client.log_artifact(self.run, str(path), where)
            elif event["event"] == "table" and event["columns"]:
                self._table(f"tables/{event['name']}.json", event["columns"])
            elif event["event"] == "trace":
                self._trace(Path(event["path"]), event["tags"])

    def _table(self, file: str, columns: dict[str, list[Any]]) -> None:
        """A table as MLflow's pages show it, once: MLflow would append to one that is there."""
        known = self.client.list_artifacts(self.run, str(Path(file).parent))
        if file not in {one.path for one in known}:
            self.client.log_table(self.run, columns, file)

    def _trace(self, path: Path, tags: dict[str, str]) -> None:
        """A tree of spans as a trace of the run, once."""
        if not path.exists():  # sent before a failure of something else
            return
        import mlflow

        mlflow.set_tracking_uri(self.start["uri"])  # traces do not ask the client
        whole = json.loads(path.read_text(encoding="utf-8"))
        root = self.client.start_trace(
            **_span(whole), tags=tags, experiment_id=self.experiment, run_id=self.run
        )

        def put(part: dict[str, Any], parent: str) -> None:
            span = self.client.start_span(**_span(part), trace_id=root.trace_id, parent_id=parent)
            for inner in part["parts"]:
                put(inner, span.span_id)
            self.client.end_span(root.trace_id, span.span_id, **_end(part))

        for part in whole["parts"]:
            put(part, root.span_id)
        self.client.end_trace(root.trace_id, **_end(whole))
        path.unlink()

    def _end(self, event: dict[str, Any]) -> None:
        """Write outputs, durations and the status, then bring the parent up to date."""
        for name, value in event["metrics"].items():
            self.client.log_metric(self.run, name, value)
        self._data(event["outs"])
        if event["error"]:
            self.client.log_text(self.run, event["error"], "error.txt")
            self.client.set_tag(self.run, "interloom.error", event["error"].strip()[-500:])
        if self.log:
            self.client.log_text(self.run, "\n".join(self.log) + "\n", "log.txt")
        lineage = {"inputs": self.start["inputs"], "outputs": event["outs"], **self.facts}
        self.client.log_text(self.run, json.dumps(lineage, indent=1), "lineage.json")
        self.client.set_terminated(self.run, event["status"], round(event["time"] * 1000))
        if self.parent is not None:
            seconds = event["metrics"].get("system.duration_seconds")
            if seconds is not None:
                name = f"seconds.{self.start['stage'].replace('@', '.')}"  # @ is not allowed
                self.client.log_metric(self.parent, name, seconds)
        if self.parent is not None:
            self._conclude_parent()

    def _parent(self) -> str | None:
        """The run of the lifecycle, made by the first of its stages."""
        lifecycle = self.start["lifecycle"]
        if lifecycle is None:
            return None
        found = self.client.search_runs(
            [self.experiment],
            f"tags.`interloom.lifecycle` = '{lifecycle}' AND tags.`interloom.kind` = 'lifecycle'",
            max_results=1,
        )
        if found:
            self.client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0].info.run_id
        tags = {
            **self.facts,
            **{key: value for key, value in self.start["tags"].items() if _of_lifecycle(key)},
            "interloom.kind": "lifecycle",
            "interloom.lifecycle": lifecycle,
        }
        began = round(self.start["time"] * 1000)
        name = f"lifecycle {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(began / 1000))}"
        run = self.client.create_run(self.experiment, began, tags, run_name=name)
        for key in ("seed", "profile"):
            if key in self.start["params"]:
                self.client.log_param(run.info.run_id, key, self.start["params"][key])
        return run.info.run_id

    def _begin(self) -> None:
        from mlflow.entities import Param

        tags = {
            **self.facts,
            **self.start["tags"],
            "interloom.kind": "stage",
            "interloom.stage": self.start["stage"],
        }
        if self.parent is not None:
            tags |= {
                "mlflow.parentRunId": self.parent,
                "interloom.lifecycle": self.start["lifecycle"],
            }
        began = round(self.start["time"] * 1000)
        run = self.client.create_run(self.experiment, began, tags, run_name=self.start["stage"])
        params = [Param(key, str(value)) for key, value in self.start["params"].items()]
        for at in range(0, len(params), 100):
            self.client.log_batch(run.info.run_id, params=params[at : at + 100])
        self.run = run.info.run_id
        self._data(self.start["inputs"])

    def _data(self, files: list[dict[str, str]]) -> None:
        """Files as MLflow datasets whose digest is DVC's md5."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        datasets = [
            DatasetInput(
                Dataset(
                    name=file["name"],
                    digest=file["md5"],
                    source_type="local",
                    source=json.dumps({"uri": file["path"]}),
                    profile=json.dumps({"path": file["path"], "dvc_md5": file["md5"]}),
                ),
                [InputTag("mlflow.data.context", file["context"])],
            )
            for file in files
        ]
        if datasets:
            self.client.log_inputs(self.run, datasets)

    def _conclude_parent(self) -> None:
        """The lifecycle is running while a stage runs; else as good as its stages' last runs."""
        assert self.parent is not None
        runs = self.client.search_runs(
            [self.experiment], f"tags.`mlflow.parentRunId` = '{self.parent}'", max_results=1000
        )
        last: dict[str, str] = {}
        for run in sorted(runs, key=lambda run: run.info.start_time):
            last[run.data.tags["interloom.stage"]] = run.info.status
        ranked = ("RUNNING", "FAILED", "KILLED", "FINISHED")
        status = min(last.values(), key=ranked.index)
        if status == "RUNNING":
            self.client.update_run(self.parent, status)
        else:
            self.client.set_terminated(self.parent, status)


def _span(part: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": part["name"],
        "span_type": part["kind"],
        "inputs": part["inputs"],
        "start_time_ns": round(part["began"] * 1e9),
    }


def _end(part: dict[str, Any]) -> dict[str, Any]:
    return {
        "outputs": part["outputs"],
        "attributes": {"error": part["error"]} if part["error"] else None,
        "status": "ERROR" if part["error"] else "OK",
        "end_time_ns": round(part["ended"] * 1e9),
    }


def _of_lifecycle(tag: str) -> bool:
    return tag.startswith("prefect.") or tag in ("interloom.profile", "dvc.experiment")


def serve(spool: Path) -> int:
    """Write all spools to MLflow; returns when none is left and no lifecycle goes on.

    The result is the number of spools that MLflow did not take. They are left where they are, with
    the reason in a file.
    """
    records: dict[Path, StageRecord] = {}
    refused: set[Path] = set()
    owners: set[Process] = set()
    while True:
        for folder in _waiting(spool):
            if folder not in records and folder not in refused:
                records[folder] = StageRecord(folder)
                owners.add(Process(**records[folder].start["owner"]))
        for folder, record in list(records.items()):
            try:
                finished = record.step()
            except Exception as error:
                # Whatever goes wrong with one record must reach its stage, and not stop the others:
                # stores raise errors of MLflow, of SQLAlchemy, of drivers and of requests.
                traceback.print_exc()
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
                (folder / PROBLEM).write_text(reason, encoding="utf-8")
                refused.add(folder)
            else:
                if not finished:
                    continue
                shutil.rmtree(folder)
                print(f"{folder.name}: sent", flush=True)
            record.close()
            del records[folder]
        owners = {owner for owner in owners if owner.alive()}
        if not records and not owners and not set(_waiting(spool)) - refused:
            return len(refused)
        time.sleep(POLL_SECONDS)


def _waiting(spool: Path) -> list[Path]:
    """Spools of this host, oldest first (a spool is made under another name and renamed)."""
    here = f"-{socket.gethostname()}"
    return sorted(path for path in spool.glob("*-*") if path.name.endswith(here))


@contextmanager
def _only_tracker(spool: Path) -> Iterator[bool]:
    """Whether this is the project's only tracker; then it stays so until the end."""
    with (spool / LOCK).open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


def main() -> int:
    """Serve the spool folder named on the command line, unless another tracker does."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ASYNC_TRACE_LOGGING", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    spool = Path(sys.argv[1])
    with _only_tracker(spool) as alone:
        return min(serve(spool), 1) if alone else 0


if __name__ == "__main__":
    sys.exit(main())
