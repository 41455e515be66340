"""Why pods wait, and why a Job has failed: causes by name, in words that say what to do.

Functions of plain objects (Job, pods, events), so every case is tested without a cluster.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from interloom.cluster import names
from interloom.cluster.manifests import OUT_OF_MEMORY, REFUSED
from interloom.cluster.settings import ClusterSettings, StagePods

Object = dict[str, Any]
Cause = Literal[
    "disrupted", "crashed", "out of memory", "refused", "deadline", "deleted", "image",
    "unschedulable", "quota", "mount", "queue", "config", "denied", "node",
]  # fmt: skip
ENDED = ("Succeeded", "Failed")
IMAGE_REASONS = frozenset(["ErrImagePull", "ImagePullBackOff", "InvalidImageName",
                           "ImageInspectError", "ErrImageNeverPull"])  # fmt: skip
LINGER_SECONDS = 20.0
"""How much longer than its grace period a pod may take to end; clocks differ."""
MOUNT_REASONS = frozenset(["FailedMount", "FailedAttachVolume"])


@dataclass(frozen=True)
class Failure:
    """What went wrong, and whether the Job may simply be made again."""

    cause: Cause
    text: str
    again: Literal["no", "counted", "free"] = "no"
    """``free`` for what is nobody's fault: an eviction is not counted."""


def condition(item: Object, kind: str) -> Object | None:
    """The condition ``kind`` of an object, if it holds."""
    for found in item.get("status", {}).get("conditions") or []:
        if found["type"] == kind and found["status"] == "True":
            return found
    return None


def short(pod: Object) -> str:
    """A pod's name in log lines: its index, or the random end of its name."""
    index = (pod["metadata"].get("labels") or {}).get(names.INDEX)
    return f"pod {index}" if index is not None else pod["metadata"]["name"]


def message(status: Object) -> Object:
    """The last words of a container, as ``inside.py`` writes them; empty if there are none."""
    text = (status["state"].get("terminated") or {}).get("message", "")
    try:
        said = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}


def statuses(pod: Object) -> list[Object]:
    """Of all containers, in the order in which they run."""
    status = pod.get("status", {})
    return [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]


def disruption(pod: Object) -> str:
    """Why a pod had to go, in the API's words; empty if it had not."""
    found = condition(pod, "DisruptionTarget")
    if found is None:
        return ""
    return f"{found.get('reason', 'disrupted')}: {found.get('message', '')}".rstrip(": ")


def of_job(
    job: Object, pods: Sequence[Object], options: ClusterSettings, wanted: StagePods
) -> Failure:
    """Why a Job with the condition ``Failed`` has failed."""
    ended = condition(job, "Failed")
    assert ended is not None, "the Job has not failed"
    if ended.get("reason") == "DeadlineExceeded":
        return Failure(
            "deadline",
            f"took longer than cluster.deadline_minutes = {options.deadline_minutes:g}, waiting "
            "for room included: raise it; the next run goes on from the last checkpoint",
        )
    if job["spec"].get("suspend"):
        # Pods of a suspended Job are told to go, and their ends count as failures.
        return Failure("disrupted", f"the Job was suspended by {_holder(options)}", "free")
    many = wanted.pods > 1
    # Of one pod after another the last; of several at once not those that had to go for it.
    inspected = sorted(pods, key=_told_to_go) if many else pods[::-1]
    found = [failure for pod in inspected if (failure := of_pod(pod, wanted)) is not None]
    # Of several pods most fail because one did: what cannot be a consequence goes first.
    order: list[Cause] = ["refused", "out of memory", "disrupted", "crashed"]
    for cause in order:
        for failure in found:
            if failure.cause == cause:
                again = failure.again if many else "no"
                return Failure(failure.cause, failure.text, again)
    text = f"{ended.get('reason', 'failed')}: {ended.get('message', '')}; its pods are gone"
    if "condition DisruptionTarget" in text:
        return Failure("disrupted", text, "free" if many else "no")
    return Failure("crashed", text, "counted" if many else "no")


def _told_to_go(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"] and not disruption(pod)


def of_pod(pod: Object, wanted: StagePods) -> Failure | None:
    """Why one pod has failed; none for one that has not, or that was told to go with the others."""
    where = short(pod)
    if why := disruption(pod):
        return Failure("disrupted", f"{where} had to go ({why})", "free")
    for status in statuses(pod):
        state = status["state"].get("terminated")
        if not state or not state["exitCode"]:
            continue
        said, code = message(status), state["exitCode"]
        peak = said.get("peak_memory_mib")
        if state.get("reason") == "OOMKilled" or said.get("out_of_memory"):
            seen = f"; it was last seen with {peak:.0f} MiB" if peak else ""
            return Failure(
                "out of memory",
                f"{where} was killed for memory: its limit is {wanted.memory}{seen}: raise "
                "memory of the stage in cluster.stages, or lower its micro_batch_size",
            )
        reason = said.get("error") or state.get("message") or f"exit code {code}"
        if code == REFUSED:
            return Failure("refused", reason)
        if code == OUT_OF_MEMORY:
            text = f"{where} was killed (SIGKILL) without a reason; memory may be short: {reason}"
            return Failure("crashed", text, "counted")
        return Failure("crashed", f"{where} failed in container {status['name']}: {reason}",
                       "counted")  # fmt: skip
    return None


def waiting(
    job: Object,
    pods: Sequence[Object],
    events: Sequence[Object],
    options: ClusterSettings,
    now: float,
) -> Failure | None:
    """Why pods that should run do not yet; none if nothing is in their way.

    Args:
        events: those of the Job and its pods, the newest last.
        now: seconds since the epoch.
    """
    pods = [pod for pod in pods if pod.get("status", {}).get("phase") not in ENDED]
    if condition(job, "Suspended") is not None or job["spec"].get("suspend"):
        return Failure("queue", f"the Job is held back by {_holder(options)}")
    for pod in pods:
        if "deletionTimestamp" in pod["metadata"]:
            problem = _lingering(pod, now)
        else:
            problem = pod_waiting(pod, events)
        if problem is not None:
            return problem
    if len(pods) < int(job["spec"]["parallelism"]):
        return _not_created(job, events)
    return None


def _holder(options: ClusterSettings) -> str:
    return f"queue {options.queue}" if options.queue else "someone, as no queue is set"


def _lingering(pod: Object, now: float) -> Failure | None:
    """A pod that has to go and does not end is not replaced, as it may be at work still."""
    by = datetime.fromisoformat(pod["metadata"]["deletionTimestamp"]).timestamp()
    if now < by + LINGER_SECONDS:
        return None
    node = pod["spec"].get("nodeName", "its node")
    return Failure(
        "node",
        f"{short(pod)} does not end, as {node} does not answer: it is replaced when the node is "
        f"back, or gone for good (`kubectl delete node {node}`)",
    )


def _not_created(job: Object, events: Sequence[Object]) -> Failure | None:
    uid = job["metadata"]["uid"]
    mine = [event for event in events if event["involvedObject"].get("uid") == uid]
    for event in reversed(mine):
        if event.get("reason") == "FailedCreate":
            text = event.get("message", "")
            if "exceeded quota" in text:
                return Failure("quota", f"no quota for its pods: {text}")
            return Failure("denied", f"its pods are not admitted: {text}")
        if event.get("reason") == "SuccessfulCreate":
            break
    return None


def pod_waiting(pod: Object, events: Sequence[Object]) -> Failure | None:
    """Why one pod does not run yet; none if it does, or nothing is known."""
    where = short(pod)
    if pod.get("status", {}).get("phase", "Pending") != "Pending":
        return None
    for found in pod.get("status", {}).get("conditions") or []:
        if (found["type"], found["status"]) == ("PodScheduled", "False"):
            return Failure("unschedulable", f"{where} finds no node: {found.get('message', '')}")
    for status in statuses(pod):
        held = status["state"].get("waiting") or {}
        reason, text = held.get("reason", ""), held.get("message", "")
        if reason in IMAGE_REASONS:
            return Failure("image", f"{where} gets no image {status['image']} ({reason}): {text}")
        if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError"):
            return Failure("config", f"{where} cannot start ({reason}): {text}")
    uid = pod["metadata"]["uid"]
    for event in reversed(events):
        if event["involvedObject"].get("uid") == uid and event.get("reason") in MOUNT_REASONS:
            return Failure("mount", f"{where} waits for a volume: {event.get('message', '')}")
    return None
