"""The Job controller: pods for completions, failure policy, deadlines, conditions."""

from __future__ import annotations

import copy
import random
import string
import time
from typing import TYPE_CHECKING

from kube_server.kinds import ApiError, Object, kind_named
from kube_server.store import now, seconds_of

if TYPE_CHECKING:
    from kube_server.server import KubeServer

JOBS, PODS = kind_named("jobs"), kind_named("pods")
TRACKING = "batch.kubernetes.io/job-tracking"
"""Finalizer that keeps a pod until the controller has seen how it ended."""
INDEX = "batch.kubernetes.io/job-completion-index"


def reconcile(cluster: KubeServer, job: Object) -> None:
    """Bring one Job a step further."""
    _Step(cluster, job).take()


class _Step:
    """One look at one Job."""

    def __init__(self, cluster: KubeServer, job: Object) -> None:
        self.cluster, self.store, self.job = cluster, cluster.store, job
        self.about, self.spec = job["metadata"], job["spec"]
        self.status: Object = copy.deepcopy(job.get("status") or {})
        selector = f"batch.kubernetes.io/controller-uid={self.about['uid']}"
        self.pods = self.store.all("pods", self.about["namespace"], selector)

    def take(self) -> None:
        """Look at the pods, then end the Job, or start and replace pods; write the status."""
        if self._condition("Complete") or self._condition("Failed"):
            self._expire()
            self._let_go()
            return
        if "deletionTimestamp" in self.about:
            self._let_go()
            return
        if self.spec.get("suspend"):
            # Pods that end as they are told to go are failures all the same.
            decided = self._decided()
            if decided is None or decided[0] == "Complete":
                self._suspended()
            else:
                self._end(*decided)
        else:
            self._set("Suspended", "False", "JobResumed", "Job resumed", only_if_there=True)
            self.status.setdefault("startTime", now())
            self._work()
        self._count()
        going = [
            pod for pod in self.pods
            if _phase(pod) == "Failed" and "deletionTimestamp" in pod["metadata"]
            and TRACKING in pod["metadata"].get("finalizers", []) and self._action(pod) == "Count"
        ]  # fmt: skip
        if going:
            self.status["goneFailed"] = self.status.get("goneFailed", 0) + len(going)
        if self.status != (self.job.get("status") or {}):
            self._write()
        self._let_go()

    def _let_go(self) -> None:
        """Let pods that have ended, and are counted, be removed."""
        for pod in self.pods:
            never_ran = "deletionTimestamp" in pod["metadata"] and "nodeName" not in pod["spec"]
            if never_ran or _phase(pod) in ("Succeeded", "Failed"):
                release(self.cluster, pod)

    def _work(self) -> None:
        decided = self._decided()
        if decided is not None:
            self._end(*decided)
            return
        needed = [place for place in self._places() if self._wants_pod(place)]
        active = [pod for pod in self.pods if _active(pod) or self._holds_place(pod)]
        room = self.spec["parallelism"] - len(active)
        for place in needed[: max(0, room)]:
            if not self._create(place):
                break

    def _places(self) -> list[int]:
        return list(range(self.spec.get("completions") or self.spec["parallelism"]))

    def _wants_pod(self, place: int) -> bool:
        mine = [pod for pod in self.pods if _index(pod) == place]
        if any(_phase(pod) == "Succeeded" for pod in mine):
            return False
        if any(_active(pod) or self._holds_place(pod) for pod in mine):
            return False
        counted = sum(self._action(pod) == "Count" for pod in mine if _phase(pod) == "Failed")
        if not counted:
            return True
        wait = self.cluster.backoff_seconds * 2 ** (counted - 1)
        ended = max(_ended_at(pod) for pod in mine if _phase(pod) == "Failed")
        return time.time() > ended + wait

    def _holds_place(self, pod: Object) -> bool:
        """A pod that is still ending keeps its place, with podReplacementPolicy Failed."""
        ending = "deletionTimestamp" in pod["metadata"] and _phase(pod) not in (
            "Succeeded", "Failed",
        )  # fmt: skip
        return ending and self.spec["podReplacementPolicy"] == "Failed"

    def _decided(self) -> tuple[str, str, str] | None:
        """Condition, reason and message that end the Job; none while it goes on."""
        for early, final in (("FailureTarget", "Failed"), ("SuccessCriteriaMet", "Complete")):
            for known in self.status.get("conditions", []):
                if known["type"] == early:  # decided before, and only waiting for pods to go
                    return final, known["reason"], known["message"]
        places = self._places()
        done = {_index(pod) for pod in self.pods if _phase(pod) == "Succeeded"}
        if done >= set(places):
            return "Complete", "CompletionsReached", "Reached expected number of succeeded pods"
        failed = [pod for pod in self.pods if _phase(pod) == "Failed"]
        for pod in failed:
            if self._action(pod) == "FailJob":
                return "Failed", "PodFailurePolicy", self._policy_message(pod)
        counted = sum(
            self._action(pod) == "Count"
            and (TRACKING in pod["metadata"].get("finalizers", [])
                 or "deletionTimestamp" not in pod["metadata"])
            for pod in failed
        )  # fmt: skip
        counted += self.status.get("goneFailed", 0)
        if counted > self.spec["backoffLimit"]:
            return (
                "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit",
            )  # fmt: skip
        limit = self.spec.get("activeDeadlineSeconds")
        began = self.status.get("startTime")
        if limit and began and time.time() > seconds_of(began) + limit:
            return "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"
        return None

    def _policy_message(self, pod: Object) -> str:
        name = f"{self.about['namespace']}/{pod['metadata']['name']}"
        rules = self.spec["podFailurePolicy"]["rules"]
        place = next(i for i, rule in enumerate(rules) if _matches(rule, pod))
        if rules[place].get("onPodConditions"):
            kind = rules[place]["onPodConditions"][0]["type"]
            return f"Pod {name} has condition {kind} matching FailJob rule at index {place}"
        status = next(s for s in _statuses(pod) if s["state"]["terminated"]["exitCode"])
        return (
            f"Container {status['name']} for pod {name} failed with exit code "
            f"{status['state']['terminated']['exitCode']} matching FailJob rule at index {place}"
        )

    def _action(self, pod: Object) -> str:
        """What the failure policy says about a failed pod."""
        for rule in self.spec.get("podFailurePolicy", {}).get("rules", []):
            if _matches(rule, pod):
                return rule["action"]
        return "Count"

    def _end(self, condition: str, reason: str, message: str) -> None:
        """First ``FailureTarget`` or ``SuccessCriteriaMet``, then, without pods, the end."""
        active = [pod for pod in self.pods if _phase(pod) not in ("Succeeded", "Failed")]
        early = "FailureTarget" if condition == "Failed" else "SuccessCriteriaMet"
        self._set(early, "True", reason, message)
        for pod in active:
            if "deletionTimestamp" not in pod["metadata"]:
                self._delete(pod)
        if active:
            return
        self._set(condition, "True", reason, message)
        if condition == "Complete":
            self.status["completionTime"] = now()
            self.store.event(self.job, "Normal", "Completed", "Job completed")
        else:
            self.store.event(self.job, "Warning", reason, message)

    def _suspended(self) -> None:
        for pod in self.pods:
            if _active(pod):
                self._delete(pod)
        self.status.pop("startTime", None)
        self._set("Suspended", "True", "JobSuspended", "Job suspended")

    def _create(self, place: int) -> bool:
        template = copy.deepcopy(self.spec["template"])
        about = template.setdefault("metadata", {})
        tail = "".join(random.choices(string.ascii_lowercase + string.digits, k=5))
        name = self.about["name"]
        if self.spec["completionMode"] == "Indexed":
            about["name"] = f"{name}-{place}-{tail}"
            about.setdefault("annotations", {})[INDEX] = str(place)
            about["labels"][INDEX] = str(place)
            template["spec"].setdefault("hostname", f"{name}-{place}")
            source = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
            for container in [
                *(template["spec"].get("initContainers") or []), *template["spec"]["containers"],
            ]:  # fmt: skip
                entry = {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}
                container["env"] = [entry, *(container.get("env") or [])]
        else:
            about["name"] = f"{name}-{tail}"
        about["ownerReferences"] = [_owner(self.job)]
        about["finalizers"] = [TRACKING]
        try:
            self.store.create(PODS, self.about["namespace"], template)
        except ApiError as error:
            self.store.event(
                self.job, "Warning", "FailedCreate", f"Error creating: {error.message}"
            )
            return False
        self.store.event(self.job, "Normal", "SuccessfulCreate", f"Created pod: {about['name']}")
        return True

    def _delete(self, pod: Object) -> None:
        try:
            self.store.delete(PODS, self.about["namespace"], pod["metadata"]["name"])
        except ApiError:
            return  # gone meanwhile
        self.store.event(
            self.job, "Normal", "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}"
        )

    def _count(self) -> None:
        self.status["active"] = sum(_active(pod) for pod in self.pods)
        self.status["terminating"] = sum("deletionTimestamp" in p["metadata"] for p in self.pods)
        self.status["succeeded"] = sum(_phase(pod) == "Succeeded" for pod in self.pods)
        failed = sum(_phase(p) == "Failed" and self._action(p) != "Ignore" for p in self.pods)
        self.status["failed"] = failed
        self.status["ready"] = sum(_phase(pod) == "Running" for pod in self.pods)
        if self.spec["completionMode"] == "Indexed":
            done = sorted({_index(pod) for pod in self.pods if _phase(pod) == "Succeeded"})
            self.status["completedIndexes"] = ",".join(map(str, done))

    def _expire(self) -> None:
        """Delete a finished Job when its time is up."""
        keep = self.spec.get("ttlSecondsAfterFinished")
        ended = max(seconds_of(c["lastTransitionTime"]) for c in self.status["conditions"])
        if (
            keep is not None
            and "deletionTimestamp" not in self.about
            and time.time() > ended + keep
        ):
            self.store.delete(JOBS, self.about["namespace"], self.about["name"], "Foreground")

    def _condition(self, kind: str) -> bool:
        return any(
            c["type"] == kind and c["status"] == "True" for c in self.status.get("conditions", [])
        )

    def _set(
        self, kind: str, status: str, reason: str, message: str, only_if_there: bool = False
    ) -> None:
        conditions = self.status.setdefault("conditions", [])
        known = next((c for c in conditions if c["type"] == kind), None)
        if only_if_there and (known is None or known["status"] == status):
            return
        if known and (known["status"], known["reason"]) == (status, reason):
            return
        if known:
            conditions.remove(known)
        conditions.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": now(),
                "lastProbeTime": now(),
            }
        )

    def _write(self) -> None:
        def change(item: Object) -> None:
            item["status"] = self.status

        try:
            self.store.update(JOBS, self.about["namespace"], self.about["name"], change)
        except ApiError:
            return  # deleted meanwhile


def release(cluster: KubeServer, pod: Object) -> None:
    """Take the controller's finalizer off a pod."""
    if TRACKING not in (pod["metadata"].get("finalizers") or []):
        return

    def change(item: Object) -> None:
        item["metadata"]["finalizers"] = [
            name for name in item["metadata"]["finalizers"] if name != TRACKING
        ]

    about = pod["metadata"]
    try:
        cluster.store.update(PODS, about["namespace"], about["name"], change)
    except ApiError:
        return  # gone meanwhile


def _owner(item: Object) -> Object:
    return {
        "apiVersion": item["apiVersion"],
        "kind": item["kind"],
        "name": item["metadata"]["name"],
        "uid": item["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _phase(pod: Object) -> str:
    return pod.get("status", {}).get("phase", "Pending")


def _active(pod: Object) -> bool:
    return _phase(pod) in ("Pending", "Running") and "deletionTimestamp" not in pod["metadata"]


def _index(pod: Object) -> int:
    return int((pod["metadata"].get("annotations") or {}).get(INDEX, 0))


def _statuses(pod: Object) -> list[Object]:
    found = [
        *(pod["status"].get("initContainerStatuses") or []),
        *(pod["status"].get("containerStatuses") or []),
    ]
    return [status for status in found if "terminated" in status["state"]]


def _ended_at(pod: Object) -> float:
    stamps = [status["state"]["terminated"]["finishedAt"] for status in _statuses(pod)]
    return max(map(seconds_of, stamps), default=0.0)


def _matches(rule: Object, pod: Object) -> bool:
    for wanted in rule.get("onPodConditions") or []:
        for condition in pod["status"].get("conditions") or []:
            if condition["type"] == wanted["type"] and condition["status"] == wanted.get(
                "status", "True"
            ):
                return True
    codes = rule.get("onExitCodes")
    if codes is None:
        return False
    for status in _statuses(pod):
        code = status["state"]["terminated"]["exitCode"]
        named = codes.get("containerName") in (None, status["name"])
        if code and named and (code in codes["values"]) == (codes["operator"] == "In"):
            return True
    return False
