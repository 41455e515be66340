from __future__ import annotations

import json
from typing import Any

import pytest

from interloom.cluster import failures
from interloom.cluster.settings import ClusterSettings, StagePods
from interloom.settings.file import load_settings

JOB = {"metadata": {"uid": "job"}, "spec": {"parallelism": 1}, "status": {}}


@pytest.fixture(scope="module")
def options() -> ClusterSettings:
    return load_settings("params.yaml").cluster


@pytest.fixture(scope="module")
def wanted(options: ClusterSettings) -> StagePods:
    return options.stages["sft-critic"]


def pod(index: int = 0, **status: Any) -> dict[str, Any]:
    labels = {"batch.kubernetes.io/job-completion-index": str(index)}
    return {"metadata": {"uid": f"pod{index}", "name": f"x-{index}", "labels": labels},
            "status": status}  # fmt: skip


def ended(code: int, reason: str = "Error", **words: Any) -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": reason}}
    if words:
        state["terminated"]["message"] = json.dumps(words)
    return {"containerStatuses": [{"name": "stage", "image": "i", "state": state}]}


def failed(reason: str = "PodFailurePolicy") -> dict[str, Any]:
    condition = {"type": "Failed", "status": "True", "reason": reason, "message": "m"}
    return JOB | {"status": {"conditions": [condition]}}


def test_out_of_memory_by_kubelet_or_by_the_stage_itself(wanted: StagePods) -> None:
    killed = failures.of_pod(pod(**ended(137, "OOMKilled", peak_memory_mib=4000.4)), wanted)
    assert killed is not None
    assert killed.text.startswith("pod 0 was killed for memory: its limit is 4Gi; it was last seen "
                                  "with 4000 MiB: raise memory")  # fmt: skip
    inside = failures.of_pod(pod(**ended(137, out_of_memory=True)), wanted)
    assert inside is not None and inside.cause == "out of memory"


def test_what_is_counted_and_what_is_not(wanted: StagePods) -> None:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                 "message": "by a pod of more priority"}  # fmt: skip
    lost = failures.of_pod(pod(conditions=[condition], **ended(143)), wanted)
    assert lost is not None
    assert (lost.cause, lost.again) == ("disrupted", "free")
    assert "PreemptionByScheduler: by a pod of more priority" in lost.text
    crash = failures.of_pod(pod(**ended(1, error="RuntimeError: x")), wanted)
    assert crash is not None
    assert (crash.cause, crash.again) == ("crashed", "counted")
    assert failures.of_pod(pod(phase="Running"), wanted) is None


def test_of_several_pods_the_cause_and_not_the_consequence(
    options: ClusterSettings, wanted: StagePods
) -> None:
    many = wanted.model_copy(update={"pods": 2})
    consequence = pod(0, **ended(1, error="Connection closed by peer"))
    cause = pod(1, **ended(2, error="no such dataset"))
    found = failures.of_job(failed(), [consequence, cause], options, many)
    assert (found.cause, found.text, found.again) == ("refused", "no such dataset", "no")
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    evicted = pod(1, conditions=[condition], **ended(143))
    found = failures.of_job(failed(), [consequence, evicted], options, many)
    assert (found.cause, found.again) == ("disrupted", "free")
    found = failures.of_job(failed(), [consequence], options, many)
    assert (found.cause, found.again) == ("crashed", "counted")


def test_deadline_and_pods_that_are_gone(options: ClusterSettings, wanted: StagePods) -> None:
    found = failures.of_job(failed("DeadlineExceeded"), [], options, wanted)
    assert "cluster.deadline_minutes = 120" in found.text
    found = failures.of_job(failed("BackoffLimitExceeded"), [], options, wanted)
    assert found.text == "BackoffLimitExceeded: m; its pods are gone"


def test_a_suspended_job_that_fails_by_it_is_made_again(
    options: ClusterSettings, wanted: StagePods
) -> None:
    """A queue that takes its room back suspends the Job; pods that are killed fail it then."""
    queued = options.model_copy(update={"queue": "gpus"})
    suspended = failed() | {"spec": {"parallelism": 1, "suspend": True}}
    found = failures.of_job(suspended, [pod(**ended(137))], queued, wanted)
    assert (found.cause, found.again) == ("disrupted", "free")
    assert found.text == "the Job was suspended by queue gpus"


def event(uid: str, reason: str, message: str) -> dict[str, Any]:
    return {"involvedObject": {"uid": uid}, "reason": reason, "message": message}


def test_waiting_names_the_obstacle(options: ClusterSettings) -> None:
    def waits(*pods: dict[str, Any], events: Any = (), job: Any = JOB) -> tuple[str, str]:
        found = failures.waiting(job, pods, events, options, 0.0)
        assert found is not None
        return found.cause, found.text

    scheduled = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}
    assert waits(pod(conditions=[scheduled])) == ("unschedulable", "pod 0 finds no node: 0/3 nodes")
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "401"}}
    status = {"name": "stage", "image": "i:1", "state": state}
    assert waits(pod(containerStatuses=[status]))[0] == "image"
    mount = event("pod0", "FailedMount", "no claim")
    assert waits(pod(), events=[mount]) == ("mount", "pod 0 waits for a volume: no claim")
    quota = event("job", "FailedCreate", "exceeded quota: q")
    assert waits(events=[quota])[0] == "quota"
    denied = event("job", "FailedCreate", 'violates PodSecurity "restricted:latest"')
    assert waits(events=[denied])[0] == "denied"
    held = JOB | {"spec": {"parallelism": 1, "suspend": True}}
    assert waits(job=held)[0] == "queue"
    assert failures.waiting(JOB, [pod(phase="Running")], [quota], options, 0.0) is None
    made = event("job", "SuccessfulCreate", "made")
    assert failures.waiting(JOB, [], [quota, made], options, 0.0) is None


def test_a_pod_on_a_lost_node_is_waited_for(options: ClusterSettings) -> None:
    lost = pod(phase="Running")
    lost["metadata"]["deletionTimestamp"] = "1970-01-01T00:01:00Z"
    lost["spec"] = {"nodeName": "node-7"}
    assert failures.waiting(JOB, [lost], [], options, 75.0) is None, "it may still end"
    found = failures.waiting(JOB, [lost], [], options, 85.0)
    assert found is not None and found.cause == "node"
    assert "pod 0 does not end, as node-7 does not answer" in found.text
    assert "`kubectl delete node node-7`" in found.text
