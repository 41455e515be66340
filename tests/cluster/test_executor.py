"""A stage in pods of the test server: same files as here, and nothing lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from kube_project import SPACE, OnCluster
from kube_server.kinds import kind_named
from tiny_project.project import wait_for

from interloom.settings.file import load_settings

Outputs = Callable[[], dict[str, str]]


def test_a_stage_runs_in_a_pod_as_it_does_here(
    on_cluster: OnCluster, local_outputs: Outputs
) -> None:
    here = local_outputs()
    done = on_cluster.run()
    assert on_cluster.project.outputs() == here
    assert "[squares pod 0] squares: starting at 0" in done.stdout
    assert "Created pod: squares-" in done.stdout, "events of the Job are told"
    assert "squares: done in" in done.stdout.splitlines()[-1]
    [job] = on_cluster.jobs()
    labels = job["metadata"]["labels"]
    assert labels["interloom/stage"] == "squares"
    assert len(labels["interloom/git-commit"]) == 40
    again = on_cluster.run()
    assert "has run already: reading what it wrote" in again.stdout
    assert on_cluster.kube.store.all("configmaps", SPACE)[0]["metadata"]["ownerReferences"]


def test_dvc_sees_the_same_stage(on_cluster: OnCluster, local_outputs: Outputs) -> None:
    """`dvc repro` with a stage in a pod ends with the lock file of a local run."""
    here = local_outputs()
    on_cluster.project.repro()
    assert {k: v for k, v in on_cluster.project.outputs().items() if k in here} == here
    in_pods = (on_cluster.project.root / "dvc.lock").read_text()
    on_cluster.set("none")
    on_cluster.project.repro("-f")
    assert (on_cluster.project.root / "dvc.lock").read_text() == in_pods


def test_a_killed_caller_finds_its_job_again(on_cluster: OnCluster) -> None:
    on_cluster.hold()
    first = on_cluster.start()
    on_cluster.wait_for_squares()
    first.send_signal(signal.SIGKILL)
    first.wait()
    [job] = on_cluster.jobs()
    second = on_cluster.start()
    assert second.stdout is not None
    assert "which is there already" in second.stdout.readline()
    on_cluster.hold(False)
    out, _ = second.communicate(timeout=120)
    assert second.returncode == 0, out
    assert out.count("starting at 0") == 1, "the whole log is told again"
    assert [item["metadata"]["uid"] for item in on_cluster.jobs()] == [job["metadata"]["uid"]]
    assert len(on_cluster.pods()) == 1


def test_a_cancelled_caller_deletes_its_job(on_cluster: OnCluster) -> None:
    on_cluster.hold()
    first = on_cluster.start()
    on_cluster.wait_for_squares()
    first.terminate()
    out, _ = first.communicate(timeout=30)
    assert first.returncode == 128 + signal.SIGTERM
    assert "cancelled: deleting the Job and its pods" in out
    assert on_cluster.jobs() == []
    assert on_cluster.kube.store.all("pods", SPACE) == []
    wait_for(lambda: on_cluster.kube.store.all("configmaps", SPACE) == [])
    assert on_cluster.project.leftovers() == []


@pytest.mark.parametrize("how", ["preempt", "press"])
def test_an_evicted_pod_goes_on_from_its_checkpoint(on_cluster: OnCluster, how: str) -> None:
    on_cluster.image(TINY_PAUSE="0.3")
    on_cluster.set(retries=0)
    process = on_cluster.start()
    on_cluster.wait_for_squares(2)
    [pod] = on_cluster.pods("Running")
    name = pod["metadata"]["name"]
    if how == "press":
        on_cluster.kube.press(name, SPACE)
    else:
        on_cluster.kube.evict(name, SPACE, "PreemptionByScheduler")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert "pod 0 has to go" in out
    starts = [line for line in out.splitlines() if "squares: starting at" in line]
    assert len(starts) == 2
    assert "starting at 0" not in starts[1]


@pytest.mark.slow
def test_a_lost_node_is_waited_for_and_said(on_cluster: OnCluster) -> None:
    """A pod that does not end is not replaced before its node is given up."""
    on_cluster.image(TINY_PAUSE="0.3")
    on_cluster.set(retries=0, start_minutes=2.0)
    process = on_cluster.start()
    on_cluster.wait_for_squares(2)
    [pod] = on_cluster.pods("Running")
    name = pod["metadata"]["name"]
    on_cluster.kube.lose(name, SPACE)
    assert process.stdout is not None
    for line in process.stdout:
        if "pod 0 does not end, as node-1 does not answer" in line:
            break
    assert len(on_cluster.kube.store.all("pods", SPACE)) == 1, "nobody has taken its place"
    on_cluster.kube.give_up(name, SPACE)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    [start] = [line for line in out.splitlines() if "squares: starting at" in line]
    assert "starting at 0" not in start


@pytest.mark.parametrize("pods", [1, 2])
def test_a_queue_that_lets_the_job_start_and_takes_its_room_back(
    on_cluster: OnCluster, pods: int
) -> None:
    """Kueue's part is played here: it unsuspends the Job, suspends it for another one, and lets it
    go on. Pods that are told to go have failed in the Job's eyes, so it is made anew."""
    on_cluster.image(TINY_PAUSE="1")
    on_cluster.set(queue="gpus", start_minutes=2.0, retries=0, pods=pods)
    process = on_cluster.start()

    def suspend(on: bool) -> None:
        def change(job: dict[str, Any]) -> None:
            job["spec"]["suspend"] = on

        [job] = on_cluster.jobs()
        on_cluster.kube.store.update(kind_named("jobs"), SPACE, job["metadata"]["name"], change)

    def queued() -> list[str]:
        return [
            job["metadata"]["uid"]
            for job in on_cluster.jobs()
            if job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") == "gpus"
        ]

    wait_for(queued, seconds=60)
    [first] = queued()
    assert on_cluster.pods() == [], "the queue has not said so yet"
    suspend(False)
    on_cluster.wait_for_squares(1)
    suspend(True)
    wait_for(lambda: not on_cluster.pods("Running"), seconds=60)
    wait_for(lambda: queued() not in ([], [first]), seconds=60)
    suspend(False)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    assert "the Job is held back by queue gpus" in out
    starts = [line for line in out.splitlines() if "squares: starting at" in line]
    assert len(starts) == 2 and "starting at 0" not in starts[1]
    assert "the Job was suspended by queue gpus: all pods begin again" in out


def test_out_of_memory_says_limit_and_peak(on_cluster: OnCluster) -> None:
    on_cluster.set(memory="600Mi")
    on_cluster.image(TINY_MEMORY="600", TINY_PAUSE="0.5")
    failed = on_cluster.run(check=False)
    assert failed.returncode == 2
    assert "was killed for memory: its limit is 600Mi; it was last seen with" in failed.stderr
    assert len(on_cluster.pods()) == 1, "it is not tried again"


def test_a_refusal_is_not_repeated_and_keeps_its_words(on_cluster: OnCluster) -> None:
    on_cluster.image(TINY_FAIL_AT="3")
    failed = on_cluster.run(check=False)
    assert failed.returncode == 2
    assert failed.stderr.endswith("squares failed on the cluster: told to fail at 3\n")
    assert len(on_cluster.pods()) == 1
    on_cluster.kube.images["tiny:1"].pop("TINY_FAIL_AT")
    again = on_cluster.run()
    assert "of an earlier call has failed: running it anew" in again.stdout
    assert "starting at 4" in again.stdout, "from the checkpoint"


def test_a_crash_is_repeated_within_limits(on_cluster: OnCluster) -> None:
    on_cluster.image(TINY_CRASH_FROM="2")
    on_cluster.set(retries=1)
    failed = on_cluster.run(check=False)
    assert failed.returncode == 2
    assert "pod 0 failed in container stage: RuntimeError: told to crash at 3" in failed.stderr
    assert len(on_cluster.pods()) == 2


def test_unschedulable_pods_wait_and_then_say_why(on_cluster: OnCluster) -> None:
    on_cluster.set(node_selector={"gpu": "h100"}, start_minutes=0.03)
    failed = on_cluster.run(check=False)
    assert failed.returncode == 2
    assert "waiting: pod 0 finds no node" in failed.stdout
    words = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    assert f"pod 0 finds no node: {words} (waited cluster.start_minutes = 0.03)" in failed.stderr
    assert on_cluster.jobs() == []


def test_an_image_that_comes_late_is_waited_for(on_cluster: OnCluster) -> None:
    image = on_cluster.kube.images.pop("tiny:1")
    process = on_cluster.start()
    assert process.stdout is not None
    for line in process.stdout:
        if "waiting: pod 0 gets no image tiny:1 (ErrImagePull)" in line:
            break
    on_cluster.kube.images["tiny:1"] = image
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out


def test_a_missing_image_ends_the_wait(on_cluster: OnCluster) -> None:
    on_cluster.set(image="nobody/has:1", start_minutes=0.03)
    failed = on_cluster.run(check=False)
    assert "gets no image nobody/has:1 (ImagePullBackOff): Back-off pulling" in failed.stderr


def test_quota_for_pods_and_for_jobs(on_cluster: OnCluster) -> None:
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"requests.memory": "1Gi"}}}
    on_cluster.kube.create("resourcequotas", SPACE, quota)
    on_cluster.set(start_minutes=0.03)
    failed = on_cluster.run(check=False)
    assert "no quota for its pods" in failed.stderr
    assert "exceeded quota: small, requested: requests.memory=" in failed.stderr
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    on_cluster.kube.create("resourcequotas", SPACE, quota)
    failed = on_cluster.run(check=False)
    assert "the Job is refused" in failed.stderr
    assert "exceeded quota: none, requested: count/jobs.batch=1" in failed.stderr


def test_forbidden_names_verb_and_resource(on_cluster: OnCluster) -> None:
    user = "system:serviceaccount:interloom:nobody"
    path = on_cluster.kube.kubeconfig(user, SPACE)
    failed = on_cluster.run(check=False, KUBECONFIG=str(path))
    assert failed.returncode == 2
    assert "this account may not get jobs.batch in namespace interloom" in failed.stderr
    unknown = path.read_text().replace("token-of", "no-token-of")
    path.write_text(unknown)
    failed = on_cluster.run(check=False, KUBECONFIG=str(path))
    assert "does not know us (401)" in failed.stderr


def test_the_api_server_may_go_away(on_cluster: OnCluster) -> None:
    on_cluster.image(TINY_PAUSE="0.4")
    process = on_cluster.start()
    on_cluster.wait_for_squares()
    on_cluster.kube.refuse()
    time.sleep(3)
    on_cluster.kube.store.compact()  # so that the watches have to list anew
    on_cluster.kube.listen()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert "does not answer" in out
    assert "answers again after" in out
    lines = [line for line in out.splitlines() if "squares: square: " in line]
    assert len(lines) == 1, "log lines are told once"


@pytest.mark.slow
def test_an_outage_of_half_a_minute(on_cluster: OnCluster) -> None:
    on_cluster.image(TINY_PAUSE="1")
    process = on_cluster.start()
    on_cluster.wait_for_squares()
    on_cluster.kube.refuse()
    time.sleep(30)
    on_cluster.kube.listen()
    out, _ = process.communicate(timeout=90)
    assert process.returncode == 0, out


def test_connections_that_break_stall_or_expire(on_cluster: OnCluster) -> None:
    """Cut connections, silence, 429 with Retry-After, 500, and 410 in the middle of a run."""
    on_cluster.set(silence_seconds=2.0)
    on_cluster.image(TINY_PAUSE="0.8")
    faults = on_cluster.kube.faults
    headers = {"Retry-After": "1"}
    faults.answer("POST .*/jobs", 429, reason="TooManyRequests", headers=headers, times=2)
    faults.answer("GET .*/pods\\?.*watch", 500, times=2)
    faults.answer("GET .*/configmaps|POST .*/configmaps", 503, reason="ServiceUnavailable")
    process = on_cluster.start()
    on_cluster.wait_for_squares()
    faults.drop()
    on_cluster.kube.store.compact()
    time.sleep(1)
    faults.silent.set()
    time.sleep(3)
    faults.silent.clear()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert "429 for create jobs" in out
    starts = [line for line in out.splitlines() if "starting at" in line]
    assert len(starts) == 1


def test_a_job_controller_that_restarts(on_cluster: OnCluster) -> None:
    on_cluster.image(TINY_PAUSE="0.3")
    process = on_cluster.start()
    on_cluster.wait_for_squares()
    on_cluster.kube.controllers.stop()
    wait_for(lambda: on_cluster.pods("Succeeded"), seconds=60)
    assert process.poll() is None, "nobody has said yet that the Job is complete"
    on_cluster.kube.controllers.start()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out


def test_the_deadline(on_cluster: OnCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cluster.image(TINY_PAUSE="60")
    process = on_cluster.start()
    on_cluster.wait_for_squares()

    def sooner(job: dict[str, dict[str, int]]) -> None:
        job["spec"]["activeDeadlineSeconds"] = 1

    name = on_cluster.jobs()[0]["metadata"]["name"]
    on_cluster.kube.store.update(kind_named("jobs"), SPACE, name, sooner)  # type: ignore[arg-type]
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    failed = on_cluster.jobs()[0]["status"]["conditions"]
    assert "DeadlineExceeded" in {condition["reason"] for condition in failed}
    assert "took longer than cluster.deadline_minutes = 120" in out


def test_a_job_that_someone_deletes(on_cluster: OnCluster) -> None:
    on_cluster.image(TINY_PAUSE="0.5")
    process = on_cluster.start()
    on_cluster.wait_for_squares()
    name = on_cluster.jobs()[0]["metadata"]["name"]
    on_cluster.kube.store.delete(kind_named("jobs"), SPACE, name, "Background")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "was deleted by someone else" in out


def test_several_pods_begin_again_together(on_cluster: OnCluster, local_outputs: Outputs) -> None:
    """Two pods under torchrun; one is evicted, and both go on from the last checkpoint. What the
    first Job owned is still there when the second one is made."""
    here = local_outputs()
    on_cluster.kube.collect_seconds = 2.0
    on_cluster.image(TINY_PAUSE="1")
    on_cluster.set(pods=2, retries=0)
    process = on_cluster.start()
    on_cluster.wait_for_squares(2)
    first = on_cluster.jobs()[0]["metadata"]["uid"]
    names = {pod["metadata"]["name"] for pod in on_cluster.pods("Running")}
    assert len(names) == 2
    on_cluster.kube.evict(max(names), SPACE)
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0, out
    assert "pod 1 had to go" in out
    assert "all pods begin again from the last checkpoint" in out
    assert "[squares pod 1] squares, process 1: starting at" in out
    [job] = on_cluster.jobs()
    assert job["metadata"]["uid"] != first
    assert job["metadata"]["annotations"]["interloom/disruptions"] == "1"
    wait_for(lambda: len(on_cluster.kube.store.all("configmaps", SPACE)) == 1, seconds=10)
    [config] = on_cluster.kube.store.all("configmaps", SPACE)
    assert config["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    asked = load_settings(on_cluster.project.root / "params.yaml").remote.gemini
    told = yaml.safe_load(config["data"]["params.yaml"])["remote"]["gemini"]
    assert told["requests_per_minute"] == asked.requests_per_minute / 2 > 0, "a half each"
    assert told["concurrency"] == asked.concurrency // 2
    assert on_cluster.project.outputs() == here


def test_one_of_several_that_crashes_ends_all(on_cluster: OnCluster) -> None:
    """The second process dies; the Job ends as a whole, is made anew once, and then fails with the
    error of the one that died, which the first one only noticed."""
    on_cluster.image(TINY_PAUSE="3", TINY_CRASH_RANK="1", TINY_CRASH_FROM="0")
    on_cluster.set(pods=2, retries=1)
    process = on_cluster.start()
    on_cluster.wait_for_squares()
    [first] = on_cluster.jobs()
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 2, out
    assert out.count("all pods begin again from the last checkpoint") == 1
    assert "pod 1 failed in container stage: RuntimeError: told to crash at " in out
    [last] = on_cluster.jobs()
    assert last["metadata"]["uid"] != first["metadata"]["uid"]
    assert last["metadata"]["annotations"]["interloom/crashes"] == "1"


def test_several_processes_for_a_stage_that_runs_as_one(on_cluster: OnCluster) -> None:
    on_cluster.set("total", pods=2)
    failed = on_cluster.run("total", check=False)
    assert failed.returncode == 2
    assert "are 2 processes, and total runs as one" in failed.stderr
    assert on_cluster.jobs() == []
