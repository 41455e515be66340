"""Following a Job to its end: what its pods print, what happens to them, and why they wait."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence

from interloom.cluster import failures, names
from interloom.cluster.api import EVENTS, JOBS, PODS, Api
from interloom.cluster.failures import Failure
from interloom.cluster.following import LogFollower, Mirror, News
from interloom.cluster.manifests import Object, Work
from interloom.cluster.settings import ClusterSettings, StagePods
from interloom.errors import InterloomError
from interloom.progress import PICTURE_PREFIX, RUN_PREFIX, flow_listens, from_event

LOOK_SECONDS = 1.0
"""Between looks at the clock while nothing happens."""
LAST_LINES_SECONDS = 10.0
Say = Callable[..., None]


class GaveUpError(InterloomError):
    """Pods have waited for too long; the Job is of no use."""


class Watcher:
    """Follows one Job and tells what is news.

    Args:
        say: prints a line, of a pod if one is named.
    """

    def __init__(
        self, api: Api, options: ClusterSettings, pods: StagePods, work: Work, say: Say
    ) -> None:
        self.api, self.options, self.pods, self.work, self.say = api, options, pods, work, say
        self.news: News = queue.Queue()
        self.run_id = self.labelled = ""
        """MLflow's run, as a pod has told it, and as the Job is labelled."""
        self.logs: dict[tuple[str, str], LogFollower] = {}
        self.told: set[tuple[str, int]] = set()
        """Events: their ids and counts."""
        self.disrupted: set[str] = set()
        self.known: dict[str, Object] = {}
        """Pods of the Job as they were last seen; those that had to go are soon gone."""
        self.waiting: dict[str, float] = {}
        """Since when pods wait, by cause (seconds of the monotonic clock)."""

    def follow(self, job: Object) -> Failure | None:
        """Watch the Job until it ends; why it failed, or none.

        Raises:
            GaveUpError: its pods have waited for something for too long.
            InterloomError: the API server has refused something, or stays away.
        """
        chosen = f"{names.JOB_NAME}={self.work.name}"
        mirrors = (
            Mirror(self.api, JOBS, self.news, fields=f"metadata.name={self.work.name}"),
            Mirror(self.api, PODS, self.news, labels=chosen),
            Mirror(self.api, EVENTS, self.news),
        )
        uid = job["metadata"]["uid"]
        try:
            while True:
                try:
                    error = self.news.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    error = None
                if error is not None:
                    raise error
                if not all(mirror.listed.is_set() for mirror in mirrors):
                    continue
                jobs, pods, events = (mirror.items() for mirror in mirrors)
                current = next((item for item in jobs if item["metadata"]["uid"] == uid), None)
                pods = [pod for pod in pods if belongs_to(pod, uid)]
                self.known |= {pod["metadata"]["uid"]: pod for pod in pods}
                events = _events_of(events, {uid, *(pod["metadata"]["uid"] for pod in pods)})
                self._tell(pods, events)
                self._label_run()
                if current is None or "deletionTimestamp" in current["metadata"]:
                    raise InterloomError(
                        f"the Job {self.work.name} was deleted by someone else: the next run goes "
                        "on from the last checkpoint"
                    )
                job |= current
                if failures.condition(current, "Complete") is not None:
                    self._last_lines()
                    return None
                if failures.condition(current, "Failed") is not None:
                    self._last_lines()
                    every = list(self.known.values())
                    return failures.of_job(current, every, self.options, self.pods)
                self._patience(current, pods, events)
        finally:
            # No waiting here: a cancelled run has seconds to delete its Job.
            for mirror in mirrors:
                mirror.stop()

    def _tell(self, pods: Sequence[Object], events: Sequence[Object]) -> None:
        """Logs, events and disruptions that are news."""
        for event in events:
            key = (event["metadata"]["uid"], int(event.get("count") or 1))
            if key not in self.told:
                self.told.add(key)
                about = event["involvedObject"]
                self.say(f"{event.get('reason')}: {event.get('message')}", about["name"])
        present = {pod["metadata"]["uid"] for pod in pods}
        for pod in pods:
            uid = pod["metadata"]["uid"]
            if (why := failures.disruption(pod)) and uid not in self.disrupted:
                self.disrupted.add(uid)
                self.say(f"{failures.short(pod)} has to go ({why}): on from its last checkpoint")
            for status in failures.statuses(pod):
                key = (uid, status["name"])
                if "waiting" in status["state"] or not status["state"]:
                    continue
                if key not in self.logs:
                    self.logs[key] = self._listen(pod, status["name"])
                if "terminated" in status["state"]:
                    self.logs[key].end()
        for (uid, _), follower in self.logs.items():
            if uid not in present:
                follower.end()

    def _last_lines(self) -> None:
        """Read what the pods have printed to the end."""
        for follower in self.logs.values():
            follower.end()
        for follower in self.logs.values():
            follower.join(LAST_LINES_SECONDS)

    def _listen(self, pod: Object, container: str) -> LogFollower:
        who = failures.short(pod)
        first = (pod["metadata"].get("labels") or {}).get(names.INDEX, "0") == "0"

        def hear(line: str) -> None:
            # Events are for the flow that asked for them, as they are.
            if line.startswith((RUN_PREFIX, PICTURE_PREFIX)):
                if line.startswith(RUN_PREFIX):
                    self.run_id = line.removeprefix(RUN_PREFIX).strip()
                if first and flow_listens():
                    print(line, flush=True)
                return
            report = from_event(line)
            if report is None:
                self.say(line, who)
            elif first:
                raw = flow_listens()
                print(line if raw else f"{self.work.stage}: {report.line()}", flush=True)

        return LogFollower(self.api, pod, container, hear)

    def _label_run(self) -> None:
        """Label the Job with its MLflow run, as soon as a pod has told it."""
        if self.run_id != self.labelled:
            self.labelled = self.run_id
            self.say(f"MLflow run {self.run_id}")
            label = {names.RUN: names.label_value(self.run_id)}
            self.api.patch(JOBS, self.work.name, {"metadata": {"labels": label}})

    def _patience(self, job: Object, pods: Sequence[Object], events: Sequence[Object]) -> None:
        """Wait for room, quota, images and volumes up to the limit, then give up."""
        problem = failures.waiting(job, pods, events, self.options, time.time())
        if problem is None:
            self.waiting.clear()
            return
        now = time.monotonic()
        if problem.cause not in self.waiting:
            self.say(f"waiting: {problem.text}")
        since = self.waiting.setdefault(problem.cause, now)
        first = min(self.waiting.values())
        if now - min(since, first) > 60 * self.options.start_minutes:
            raise GaveUpError(
                f"{problem.text} (waited cluster.start_minutes = {self.options.start_minutes:g})"
            )


def belongs_to(pod: Object, uid: str) -> bool:
    """Whether a pod is of the Job with this uid."""
    owners = pod["metadata"].get("ownerReferences") or []
    return any(owner["uid"] == uid for owner in owners)


def _events_of(events: Sequence[Object], uids: set[str]) -> list[Object]:
    return [event for event in events if event["involvedObject"].get("uid") in uids]
