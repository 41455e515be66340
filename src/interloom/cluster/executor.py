"""Runs a stage in pods: the same command, the same files, the same record as here.

What the account that runs this needs in the namespace, and nothing else:

==================================  =========================================
``jobs`` (batch)                    create, get, list, watch, patch, delete
``pods``                            list, watch
``pods/log``                        get
``events``                          list, watch
``services``, ``configmaps``        create, get
``deployments`` (apps)              get; for servers of a run's own also create, delete
``horizontalpodautoscalers``        create, get (autoscaling), for such servers
==================================  =========================================

Services and ConfigMaps belong to the Job and are deleted with it. The pods' own account
(``cluster.service_account``) needs no rights at all.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interloom.atomic import finish
from interloom.cluster import failures, manifests, names
from interloom.cluster.api import CONFIG_MAPS, JOBS, PODS, SERVICES, Api, Refusal
from interloom.cluster.data import (
    Inputs,
    TransferError,
    pull_products,
    push_deps,
    remote_options,
    tracked_deps,
)
from interloom.cluster.failures import Failure
from interloom.cluster.manifests import Object, Work
from interloom.cluster.services import Services
from interloom.cluster.settings import StagePods
from interloom.cluster.watching import LOOK_SECONDS, GaveUpError, Watcher, belongs_to
from interloom.digests import digest
from interloom.errors import InterloomError
from interloom.guards import signals_unwind, stage_lock, watch_parents
from interloom.progress import clock
from interloom.provenance import CALLER, provenance
from interloom.runner import MEMORY, Identity, identify
from interloom.settings.file import Settings
from interloom.stages import StageSpec
from interloom.tracking import LIFECYCLE_VARIABLE, VARIABLE_TAGS, lifecycle_id

DELETE_SECONDS = 60.0
"""Beyond the pods' own grace period."""
ARRIVE_SECONDS = 60.0
"""Until what pods wrote to a shared volume is seen here."""
ROLLOUTS_VARIABLE = "INTERLOOM_ROLLOUTS_URL"
"""Tells ``train/grpo.py`` of a vLLM server."""


def run_on_cluster(
    spec: StageSpec,
    settings: Settings,
    root: Path,
    *,
    track: bool = True,
    command: Sequence[str] = (),
) -> None:
    """Run one stage in pods, from the project folder ``root``.

    A Job of the same inputs and params that is there already is followed, or, if it has ended well,
    read. SIGTERM and Ctrl-C delete it; a kill leaves it running, for the next call to find.

    Args:
        command: of the stage's processes; ``interloom run STAGE`` if not given.

    Raises:
        InterloomError: whatever keeps the stage from its end, by name, with what to do.
    """
    began = time.monotonic()
    manifests.check_processes(spec, settings.cluster.stages[spec.family])
    with stage_lock(root, f"{spec.name}.cluster"), signals_unwind():
        watch_parents(_leave_running)
        run = _Run(spec, settings, root, track, command or ("interloom", "run", spec.name))
        run.to_the_end()
    print(f"{spec.name}: done in {clock(time.monotonic() - began)} on the cluster", flush=True)


def _leave_running() -> None:
    """The flow is gone without a word: its Job goes on, and a restarted flow finds it."""
    os._exit(143)


class _Run:
    """One stage on the cluster, from its files here to its files here."""

    def __init__(
        self, spec: StageSpec, settings: Settings, root: Path, track: bool, command: Sequence[str]
    ) -> None:
        self.spec, self.settings, self.root = spec, settings, root
        self.options = settings.cluster
        self.pods: StagePods = settings.cluster.stages[spec.family]
        self.printing = threading.Lock()
        self.identity: Identity = identify(spec, settings, root)
        name = names.job_name(spec.name, self.identity.key)
        self.api = Api(self.options, self.say)
        self.services = Services(self.api, self.options, self.pods, name, self.say)
        checkout = provenance(root)
        origin = names.Origin(lifecycle_id() or "", checkout["mlflow.source.git.commit"])
        given = ("--params", manifests.PARAMS, "--inputs", manifests.INPUTS)
        self.work = Work(
            stage=spec.name,
            name=name,
            command=(*command, *given, *(() if track else ("--no-track",))),
            env=self._environment(checkout),
            labels=names.labels(spec.name, origin),
        )
        self.told: dict[str, Any] = {}
        """What pods are told of files."""
        self.watcher = Watcher(self.api, self.options, self.pods, self.work, self.say)

    def say(self, text: str, who: str = "") -> None:
        """A line for the terminal, and so for the Prefect log."""
        prefix = f"[{self.spec.name} {who}] " if who else f"{self.spec.name}: "
        with self.printing:
            print(f"{prefix}{text}", flush=True)

    def to_the_end(self) -> None:
        """Make or find the Job, follow it, bring its outputs here."""
        inputs = self._inputs()
        self.told = inputs.plain()
        try:
            job, found = self._begin()
            while True:
                failure = self._followed(job)
                if failure is None:
                    missing = self._collect(job, inputs, 0.0 if found else ARRIVE_SECONDS)
                    if missing is None:
                        return
                    if not found:
                        raise InterloomError(missing)
                    self.say(f"the Job has ended, but {missing}: running it anew")
                    failure = Failure("deleted", "", "free")
                job, found = self._again(job, failure), False
        finally:
            self.services.end()

    def _followed(self, job: Object) -> Failure | None:
        """Let the Job go and follow it; if this is cancelled meanwhile, delete it."""
        try:
            if names.HELD in (job["metadata"].get("annotations") or {}):
                self._release(job)
            return self.watcher.follow(job)
        except GaveUpError:
            self._delete(job)
            raise
        except (KeyboardInterrupt, SystemExit):
            self.say("cancelled: deleting the Job and its pods")
            self._delete(job)
            raise

    def _inputs(self) -> Inputs:
        """What the pods are told of files; with DVC, what they read is pushed."""
        data = self.options.data
        deps = [item for item in self.identity.inputs if item.context == "dep"]
        tracked, remote = {}, {}
        if data.kind == "dvc":
            tracked = tracked_deps(self.root, deps)
            remote = remote_options(self.root, data.remote)
            push_deps(self.root, data.remote, sorted(tracked))
        return Inputs(
            stage=self.spec.name,
            key=self.identity.key,
            kind=data.kind,
            files=self.identity.inputs,
            tracked=tracked,
            remote=remote,
            products=tuple(sorted(self.spec.products.values())),
        )

    def _environment(self, checkout: Mapping[str, str]) -> dict[str, str]:
        """What pods are told of the flow, and of the checkout that they do not have."""
        told = {name: os.environ[name] for name in VARIABLE_TAGS if name in os.environ}
        told |= {name: checkout[tag] for name, tag in CALLER.items()}
        lifecycle = lifecycle_id()
        if lifecycle:
            told[LIFECYCLE_VARIABLE] = lifecycle
        if "INTERLOOM_PROGRESS" in os.environ:
            told["INTERLOOM_PROGRESS"] = os.environ["INTERLOOM_PROGRESS"]
        if "rollouts" in self.services.addresses:
            told[ROLLOUTS_VARIABLE] = self.services.addresses["rollouts"]
        return told

    def _params(self) -> dict[str, Any]:
        """The params file of the pods: this one, with the stage local, services found, and for
        each of several processes its part of what remote backends may be asked."""
        raw = self.settings.model_dump(mode="json")
        raw["cluster"]["stages"][self.spec.family]["executor"] = "local"
        for backend, url in self.services.addresses.items():
            if backend in raw["remote"]:
                raw["remote"][backend]["base_urls"] = [url]
        for remote in raw["remote"].values():
            remote["concurrency"] = max(1, remote["concurrency"] // self.pods.processes)
            remote["requests_per_minute"] /= self.pods.processes
        return raw

    def _begin(self) -> tuple[Object, bool]:
        """The Job, and whether it was there; one that failed before is made anew."""
        present = self._settled()
        if present is None:
            return self._create({names.BEGAN: f"{time.time():.0f}"}), False
        if failures.condition(present, "Failed") is not None:
            self.say(f"the Job {self.work.name} of an earlier call has failed: running it anew")
            return self._again(present, Failure("deleted", "", "free")), False
        if failures.condition(present, "Complete") is not None:
            self.say(f"the Job {self.work.name} has run already: reading what it wrote")
        else:
            self.say(f"following the Job {self.work.name}, which is there already")
            self.api.patch(JOBS, self.work.name, {"metadata": {"labels": dict(self.work.labels)}})
        return present, True

    def _settled(self) -> Object | None:
        """The Job as it is, once an earlier one that is being deleted is gone."""
        end = time.monotonic() + self.options.grace_seconds + DELETE_SECONDS
        while True:
            present = self.api.get(JOBS, self.work.name)
            if present is None or "deletionTimestamp" not in present["metadata"]:
                return present
            if time.monotonic() > end:
                raise InterloomError(
                    f"the Job {self.work.name} is being deleted and does not go: see `kubectl "
                    f"-n {self.options.namespace} describe job {self.work.name}`"
                )
            time.sleep(LOOK_SECONDS)

    def _create(self, annotations: Mapping[str, str]) -> Object:
        """Make the Job, held back until it is released; wait if there is no quota for it."""
        gone = time.time() - float(annotations[names.BEGAN])
        deadline = max(60, round(60 * self.options.deadline_minutes - gone))
        body = manifests.job(
            self.work, self.options, self.pods, {**annotations, names.HELD: "yes"}, deadline
        )
        end = time.monotonic() + 60 * self.options.start_minutes
        job, told = None, False
        while job is None:
            try:
                job = self.api.create(JOBS, body)
            except Refusal as refusal:
                if refusal.code == 409:  # ours: an answer was lost, or another flow was quicker
                    job = self.api.get(JOBS, self.work.name)
                    continue
                if not refusal.quota or time.monotonic() > end:
                    raise InterloomError(f"the Job is refused: {refusal.message}") from None
                if not told:
                    self.say(f"waiting: {refusal.message}")
                    told = True
                time.sleep(LOOK_SECONDS)
        shape = f"{self.pods.pods} pod(s) with {self.pods.gpus} GPU(s) each"
        self.say(f"Job {self.work.name} in namespace {self.options.namespace}: {shape}")
        return job

    def _release(self, job: Object) -> None:
        """Make what goes with the Job, wait for the servers that it needs, then let it start."""
        things = [(CONFIG_MAPS, manifests.config_map(self.work, self._params(), self.told))]
        if self.pods.pods > 1:
            things.append((SERVICES, manifests.headless_service(self.work)))
        try:
            for resource, body in things:
                self.api.ensure(resource, manifests.owned(body, job))
            self.services.make_ready(self.work, job)
        except InterloomError:
            self._delete(job)
            raise
        self.api.patch(JOBS, self.work.name, manifests.release(self.options))

    def _again(self, job: Object, failure: Failure) -> Object:
        """The Job made anew as a whole, for its next checkpoint; or the error that ends it."""
        about = job["metadata"].get("annotations") or {}
        crashes, disruptions = (
            int(about.get(name, "0")) for name in (names.CRASHES, names.DISRUPTIONS)
        )
        if failure.cause == "deleted":  # of an earlier call: counted from the beginning
            crashes, disruptions = 0, 0
            about = {names.BEGAN: f"{time.time():.0f}"}
        elif failure.again == "free":
            disruptions += 1
        elif failure.again == "counted" and crashes < self.options.retries:
            crashes += 1
        else:
            raise InterloomError(f"{self.spec.name} failed on the cluster: {failure.text}")
        if failure.text:
            self.say(f"{failure.text}: all pods begin again from the last checkpoint")
        self._delete(job)
        return self._create(
            {
                names.BEGAN: about.get(names.BEGAN, f"{time.time():.0f}"),
                names.CRASHES: str(crashes),
                names.DISRUPTIONS: str(disruptions),
            },
        )

    def _delete(self, job: Object) -> None:
        """Delete the Job in the foreground, and wait until it and its pods are gone."""
        uid = job["metadata"]["uid"]
        self.api.delete(JOBS, self.work.name, uid)
        end = time.monotonic() + self.options.grace_seconds + DELETE_SECONDS
        while time.monotonic() < end:
            present = self.api.get(JOBS, self.work.name)
            if present is None or present["metadata"]["uid"] != uid:
                return
            time.sleep(LOOK_SECONDS / 4)
        self.say(f"the Job {self.work.name} is still being deleted")

    def _collect(self, job: Object, inputs: Inputs, patience: float) -> str | None:
        """Bring the outputs here; what is wrong with them, if they cannot be had."""
        outs = self._made(job)
        if not outs:
            return "its pods, which say what it wrote, are gone"
        if self.options.data.kind == "volume":
            return self._arrived(outs, patience)
        aside = self.identity.aside(self.root, self.spec.name)
        try:
            pull_products(self.root, aside, outs, inputs.remote)
        except TransferError as error:
            return str(error)
        finish(self.root, aside)
        return None

    def _made(self, job: Object) -> dict[str, str]:
        """Digests of what the first pod has written."""
        pods, _ = self.api.list(PODS, labels=f"{names.JOB_NAME}={self.work.name}")
        for pod in pods:
            if not belongs_to(pod, job["metadata"]["uid"]):
                continue
            for status in failures.statuses(pod):
                if status["name"] == manifests.STAGE_CONTAINER:
                    outs = failures.message(status).get("outs")
                    if outs:
                        return outs
        return {}

    def _arrived(self, outs: Mapping[str, str], patience: float) -> str | None:
        """Wait until the outputs are seen on this end of the volume; what is wrong if not."""
        end = time.monotonic() + patience
        while True:
            other = [path for path, md5 in outs.items() if not self._stands(path, md5)]
            if not other:
                return None
            if time.monotonic() > end:
                return (
                    f"{', '.join(other)} did not arrive here: is {self.root} the folder that pods "
                    f"mount from the claim {self.options.data.claim} (cluster.data.claim, folder)?"
                )
            time.sleep(LOOK_SECONDS)

    def _stands(self, path: str, md5: str) -> bool:
        return (self.root / path).exists() and digest(self.root / path, self.root / MEMORY) == md5
