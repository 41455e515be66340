"""The scheduler and the kubelet: pods are placed, and their containers run as processes here."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import psutil

from kube_server.admission import amount, requested
from kube_server.kinds import ApiError, Object, kind_named
from kube_server.logs import Log
from kube_server.place import NotMountableError, Place
from kube_server.store import now

if TYPE_CHECKING:
    from kube_server.server import KubeServer

PODS = kind_named("pods")
LOOK_SECONDS = 0.05


class Kubelet:
    """One thread per placed pod, and one that places pods."""

    def __init__(self, cluster: KubeServer) -> None:
        self.cluster, self.store = cluster, cluster.store
        self.places: dict[str, Place] = {}
        self.lost: set[str] = set()
        """Pods (uids) on a node that has gone silent."""
        self._logs: dict[tuple[str, str], Log] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._scheduler = threading.Thread(target=self._schedule, name="scheduler", daemon=True)

    def start(self) -> None:
        """Begin to place pods."""
        self._scheduler.start()

    def stop(self) -> None:
        """End everything that runs."""
        self._stop.set()
        self._scheduler.join(5)
        for thread in self._threads:
            thread.join(10)

    def log(self, pod: Object, container: str) -> Log | None:
        """What a container has printed; none if it has not begun."""
        return self._logs.get((pod["metadata"]["uid"], container))

    def _schedule(self) -> None:
        while not self._stop.is_set():
            for pod in self.store.all("pods"):
                if not pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]:
                    self._place(pod)
            with self.store.changed:
                self.store.changed.wait(0.1)

    def _place(self, pod: Object) -> None:
        node, problem = self._node_for(pod)
        if node is None:
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": problem,
            }
            if set_condition(self.store, pod, condition):
                self.store.event(pod, "Warning", "FailedScheduling", problem)
            return

        def bind(item: Object) -> None:
            item["spec"]["nodeName"] = node

        try:
            pod = self.store.update(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"],
                                    bind)  # fmt: skip
        except ApiError:
            return  # deleted meanwhile
        set_condition(self.store, pod, {"type": "PodScheduled", "status": "True"})
        self.store.event(pod, "Normal", "Scheduled", f"Successfully assigned to {node}")
        thread = threading.Thread(target=self._run, args=(pod,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _node_for(self, pod: Object) -> tuple[str | None, str]:
        """A node with room, or the scheduler's words about why there is none."""
        wanted, nodes = requested(pod["spec"]), self.store.all("nodes")
        reasons: dict[str, int] = {}
        for claim in pod["spec"].get("volumes") or []:
            name = claim.get("persistentVolumeClaim", {}).get("claimName")
            space = pod["metadata"]["namespace"]
            if name and self.store.find("persistentvolumeclaims", space, name) is None:
                return None, f'persistentvolumeclaim "{name}" not found'
        for node in nodes:
            reason = _why_not(node, pod, wanted, self._taken(node["metadata"]["name"]))
            if reason is None:
                return node["metadata"]["name"], ""
            reasons[reason] = reasons.get(reason, 0) + 1
        said = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        return None, f"0/{len(nodes)} nodes are available: {said}."

    def _taken(self, node: str) -> dict[str, float]:
        taken: dict[str, float] = {}
        for pod in self.store.all("pods"):
            if pod["spec"].get("nodeName") == node and pod["status"].get("phase") in (
                "Pending", "Running",
            ):  # fmt: skip
                for name, number in requested(pod["spec"]).items():
                    taken[name] = taken.get(name, 0.0) + number
        return taken

    def _run(self, pod: Object) -> None:
        about = pod["metadata"]
        place = Place(self.cluster, pod, self.cluster.root / "pods" / about["uid"])
        place.root.mkdir(parents=True)
        self.places[about["uid"]] = place
        try:
            _PodRun(self, place).live()
        finally:
            del self.places[about["uid"]]
            place.forget()


class _PodRun:
    """The life of one pod on its node."""

    def __init__(self, kubelet: Kubelet, place: Place) -> None:
        self.kubelet, self.place, self.pod = kubelet, place, place.pod
        self.store, self.cluster = kubelet.store, kubelet.cluster
        self.states: dict[str, Object] = {}
        self.restarts: dict[str, int] = {}
        self.ready = False

    def live(self) -> None:
        """Pull, mount, run the init containers and then the others, until all have ended."""
        spec = self.pod["spec"]
        failed = False
        if self._wait_for(self._prepared):
            for container in spec.get("initContainers") or []:
                process = self._start(container)
                self._watch_over([(container, process)])
                if self._exit_code(container) != 0:
                    failed = True
                    break
            if not failed and not self._going():
                running = [(c, self._start(c)) for c in spec["containers"]]
                self._show("Running")
                self._watch_over(running)
        codes = [self._exit_code(container) for container in spec["containers"]]
        if self.kubelet._stop.is_set() or self._lost():
            return
        self._show("Succeeded" if not failed and all(code == 0 for code in codes) else "Failed")
        current = self._current()
        if current is not None and "deletionTimestamp" in current["metadata"]:
            about = self.pod["metadata"]
            held = current["metadata"].get("finalizers")
            if not held:
                self.store.finish(PODS, about["namespace"], about["name"])

    def _wait_for(self, ready: Any) -> bool:
        """Try until it works; false if the pod has to go."""
        while not self._going():
            if ready():
                return True
            self.kubelet._stop.wait(0.1)
        return False

    def _prepared(self) -> bool:
        for container in [*(self.pod["spec"].get("initContainers") or []),
                          *self.pod["spec"]["containers"]]:  # fmt: skip
            image = container["image"]
            if image not in self.cluster.images:
                text = f'Back-off pulling image "{image}": not found'
                known = self.states.get(container["name"], {}).get("waiting", {})
                reason = "ImagePullBackOff" if known else "ErrImagePull"
                if known.get("reason") != "ImagePullBackOff":
                    self.states[container["name"]] = {
                        "waiting": {"reason": reason, "message": text}
                    }
                    self.store.event(self.pod, "Warning", "Failed", f"Error: {reason}: {text}")
                    self._show("Pending")
                return False
        try:
            self.place.mount()
            for container in self.pod["spec"]["containers"]:
                self.place.environment(container)
        except NotMountableError as problem:
            self.store.event(
                self.pod, "Warning", "FailedMount", f"MountVolume.SetUp failed: {problem}"
            )
            return False
        return True

    def _start(self, container: Object) -> subprocess.Popen[bytes]:
        env = self.place.environment(container)
        self.place.nest(container)
        log = self.kubelet._logs[self.pod["metadata"]["uid"], container["name"]] = Log()
        base = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
        host = self.pod["spec"].get("hostname") or self.pod["metadata"]["name"]
        process = subprocess.Popen(
            self.place.words(container, env),
            cwd=self.place.folder(container),
            env={**base, "HOSTNAME": host, "HOME": str(self.place.root), **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        threading.Thread(target=_copy, args=(process, log), daemon=True).start()
        self.states[container["name"]] = {"running": {"startedAt": now()}}
        self.store.event(self.pod, "Normal", "Started", f"Started container {container['name']}")
        return process

    def _watch_over(self, running: list[tuple[Object, subprocess.Popen[bytes]]]) -> None:
        """Until all have ended: limits of memory, readiness, the polite end and the kill."""
        ends_by: float | None = None
        killed: set[str] = set()
        always = self.pod["spec"].get("restartPolicy", "Always") == "Always"
        while running:
            if ends_by is None and self._going():
                ends_by = time.monotonic() + self._grace()
                for _, process in running:
                    _signal(process, signal.SIGTERM)
            if ends_by is not None and time.monotonic() > ends_by:
                for _, process in running:
                    _signal(process, signal.SIGKILL)
            for pair in list(running):
                container, process = pair
                if process.poll() is None:
                    if _too_much(process, container):
                        killed.add(container["name"])
                        _signal(process, signal.SIGKILL)
                    continue
                running.remove(pair)
                _signal(process, signal.SIGKILL)  # what it left behind
                self._ended(container, process.returncode, container["name"] in killed)
                if always and ends_by is None:
                    self.restarts[container["name"]] = self.restarts.get(container["name"], 0) + 1
                    self.kubelet._stop.wait(0.5)
                    running.append((container, self._start(container)))
            if self._lost():
                for _, process in running:
                    _signal(process, signal.SIGKILL)
                    process.wait()
                return
            self._probe(running)
            self.kubelet._stop.wait(LOOK_SECONDS)

    def _ended(self, container: Object, status: int, oom: bool) -> None:
        code = status if status >= 0 else 128 - status
        reason = "OOMKilled" if oom else "Completed" if code == 0 else "Error"
        text = self.place.message_file(container).read_text(encoding="utf-8", errors="replace")
        ended = {"exitCode": code, "reason": reason, "finishedAt": now()}
        if text:
            ended["message"] = text[-4096:]
        self.states[container["name"]] = {"terminated": ended}
        time.sleep(0.05)  # the last lines
        self.kubelet._logs[self.pod["metadata"]["uid"], container["name"]].end()
        self._show(None)

    def _exit_code(self, container: Object) -> int | None:
        return self.states.get(container["name"], {}).get("terminated", {}).get("exitCode")

    def _current(self) -> Object | None:
        about = self.pod["metadata"]
        found = self.store.find("pods", about["namespace"], about["name"])
        return found if found and found["metadata"]["uid"] == about["uid"] else None

    def _going(self) -> bool:
        current = self._current()
        return (
            self.kubelet._stop.is_set()
            or current is None
            or "deletionTimestamp" in current["metadata"]
            or current["status"].get("phase") == "Failed"
        )

    def _lost(self) -> bool:
        return self.pod["metadata"]["uid"] in self.kubelet.lost

    def _grace(self) -> float:
        if self.kubelet._stop.is_set():
            return 0.5
        current = self._current()
        about = current["metadata"] if current else {}
        return about.get(
            "deletionGracePeriodSeconds", self.pod["spec"].get("terminationGracePeriodSeconds", 30)
        )

    def _probe(self, running: list[tuple[Object, Any]]) -> None:
        """Readiness by HTTP, where a container has such a probe."""
        ready = bool(running)
        for container, _ in running:
            http = container.get("readinessProbe", {}).get("httpGet")
            if http:
                port = self.place.ports.get(http["port"], http["port"])
                ready &= _answers(f"http://127.0.0.1:{port}{http.get('path', '/')}")
        if ready != self.ready:
            self.ready = ready
            self._show(None)

    def _show(self, phase: str | None) -> None:
        """Write the pod's status as it is now."""
        about = self.pod["metadata"]
        statuses = {
            key: [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": f"test://{container['image']}",
                    "ready": self.ready and "running" in self.states.get(container["name"], {}),
                    "restartCount": self.restarts.get(container["name"], 0),
                    "state": self.states.get(container["name"],
                                             {"waiting": {"reason": "PodInitializing"}}),
                }
                for container in self.pod["spec"].get(source) or []
            ]
            for key, source in (
                ("containerStatuses", "containers"),
                ("initContainerStatuses", "initContainers"),
            )
        }  # fmt: skip

        def change(item: Object) -> None:
            item["status"] |= statuses
            if phase and item["status"].get("phase") not in ("Succeeded", "Failed"):
                item["status"]["phase"] = phase
            item["status"]["podIP"] = "127.0.0.1"
            others = [c for c in item["status"].get("conditions") or [] if c["type"] != "Ready"]
            word = "True" if self.ready else "False"
            item["status"]["conditions"] = [*others, {"type": "Ready", "status": word}]

        if self._current() is not None:
            try:
                self.store.update(PODS, about["namespace"], about["name"], change)
            except ApiError:
                return  # deleted meanwhile


def set_condition(store: Any, pod: Object, condition: Object) -> bool:
    """Set a condition of a pod; whether that was news."""
    news = False

    def change(item: Object) -> None:
        nonlocal news
        old = item["status"].get("conditions") or []
        known = next((c for c in old if c["type"] == condition["type"]), None)
        fresh = {**condition, "lastTransitionTime": now()}
        if known and {**known, "lastTransitionTime": ""} == {**fresh, "lastTransitionTime": ""}:
            return
        news = True
        others = [c for c in old if c["type"] != condition["type"]]
        item["status"]["conditions"] = [*others, fresh]

    try:
        store.update(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], change)
    except ApiError:
        return False  # deleted meanwhile
    return news


def _why_not(
    node: Object, pod: Object, wanted: dict[str, float], taken: dict[str, float]
) -> str | None:
    """Why a pod cannot be placed on a node, in the scheduler's words; none if it can."""
    labels = node["metadata"].get("labels") or {}
    selector = pod["spec"].get("nodeSelector") or {}
    if not selector.items() <= labels.items():
        return "node(s) didn't match Pod's node affinity/selector"
    for taint in node.get("spec", {}).get("taints") or []:
        if not any(_tolerates(t, taint) for t in pod["spec"].get("tolerations") or []):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    room = node["status"]["allocatable"]
    for name, number in wanted.items():
        if amount(room.get(name, "0")) < taken.get(name, 0.0) + number:
            return f"Insufficient {name}"
    return None


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and toleration.get("value") == taint.get("value")


def _too_much(process: subprocess.Popen[bytes], container: Object) -> bool:
    """Whether a container's processes hold more memory than its limit."""
    limit = (container.get("resources", {}).get("limits") or {}).get("memory")
    if limit is None:
        return False
    total = 0
    try:
        root = psutil.Process(process.pid)
        for one in [root, *root.children(recursive=True)]:
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        return False
    return total > amount(limit)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _copy(process: subprocess.Popen[bytes], log: Log) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        log.write(line.decode(errors="replace").rstrip("\n"))


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return 200 <= answer.status < 400
    except (urllib.error.URLError, OSError):
        return False
