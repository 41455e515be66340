"""The controller manager: Jobs, Deployments, and the collector of what has lost its owner."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
import time
from typing import TYPE_CHECKING

from kube_server import jobs
from kube_server.kinds import KINDS, ApiError, Kind, Object, kind_named

if TYPE_CHECKING:
    from kube_server.server import KubeServer

DEPLOYMENTS, PODS = kind_named("deployments"), kind_named("pods")


class Controllers:
    """One loop over everything, stopped and started as a real manager is."""

    def __init__(self, cluster: KubeServer) -> None:
        self.cluster, self.store = cluster, cluster.store
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._orphans: dict[str, float] = {}

    def start(self) -> None:
        """Begin, with what is stored as the only memory."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._loop, name="controllers", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; what happens meanwhile is seen at the next start."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)

    def _loop(self) -> None:
        while not self._stop.is_set():
            for job in self.store.all("jobs"):
                jobs.reconcile(self.cluster, job)
            self._release_orphans()
            for deployment in self.store.all("deployments"):
                self._deploy(deployment)
            self._collect()
            with self.store.changed:
                self.store.changed.wait(0.1)

    def _release_orphans(self) -> None:
        """Pods of Jobs that are gone need not be counted."""
        alive = {job["metadata"]["uid"] for job in self.store.all("jobs")}
        for pod in self.store.all("pods"):
            owners = pod["metadata"].get("ownerReferences") or []
            if owners and owners[0]["kind"] == "Job" and owners[0]["uid"] not in alive:
                jobs.release(self.cluster, pod)

    def _deploy(self, item: Object) -> None:
        """Pods of a Deployment and its status; the ReplicaSet between them is left out."""
        about, spec = item["metadata"], item["spec"]
        if "deletionTimestamp" in about:
            return
        mine = [
            pod
            for pod in self.store.all("pods", about["namespace"])
            if _owned_by(pod, item) and "deletionTimestamp" not in pod["metadata"]
        ]
        text = json.dumps(spec["template"], sort_keys=True)
        revision = hashlib.sha256(text.encode()).hexdigest()[:10]
        current = [p for p in mine if p["metadata"]["labels"]["pod-template-hash"] == revision]
        ready = [pod for pod in current if _ready(pod)]
        if len(ready) >= spec["replicas"]:
            for pod in [p for p in mine if p not in current] + current[spec["replicas"] :]:
                self.store.delete(PODS, about["namespace"], pod["metadata"]["name"])
        problem = ""
        for _ in range(spec["replicas"] - len(current)):
            problem = self._add_pod(item, revision) or problem
        self._write_status(item, len(mine), len(current), len(ready), problem)

    def _add_pod(self, item: Object, revision: str) -> str:
        template = copy.deepcopy(item["spec"]["template"])
        about = template.setdefault("metadata", {})
        about["generateName"] = f"{item['metadata']['name']}-{revision}-"
        about["labels"] = {**(about.get("labels") or {}), "pod-template-hash": revision}
        about["ownerReferences"] = [
            {
                "apiVersion": item["apiVersion"],
                "kind": item["kind"],
                "name": item["metadata"]["name"],
                "uid": item["metadata"]["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
        template["spec"].setdefault("restartPolicy", "Always")
        try:
            self.store.create(PODS, item["metadata"]["namespace"], template)
        except ApiError as error:
            return error.message
        return ""

    def _write_status(
        self, item: Object, total: int, updated: int, ready: int, problem: str
    ) -> None:
        wanted = item["spec"]["replicas"]
        conditions = [
            {
                "type": "Available",
                "status": "True" if ready >= wanted else "False",
                "reason": "MinimumReplicasAvailable" if ready >= wanted else
                "MinimumReplicasUnavailable",
            }
        ]  # fmt: skip
        if problem:
            conditions.append(
                {
                    "type": "ReplicaFailure",
                    "status": "True",
                    "reason": "FailedCreate",
                    "message": problem,
                }
            )
        status = {
            "observedGeneration": item["metadata"]["generation"],
            "replicas": total,
            "updatedReplicas": updated,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, wanted - ready),
            "conditions": conditions,
        }

        def change(stored: Object) -> None:
            stored["status"] = status

        try:
            self.store.update(
                DEPLOYMENTS, item["metadata"]["namespace"], item["metadata"]["name"], change
            )
        except ApiError:
            return  # deleted meanwhile

    def _collect(self) -> None:
        """Delete what has lost its owner; let go of owners whose dependents are gone.

        An owner that is deleted in the foreground waits for dependents with ``blockOwnerDeletion``
        alone; the others may outlive it for a while.
        """
        with self.store.changed:
            every = [(kind, item) for kind in KINDS for item in self.store.list(kind)]
        alive = {item["metadata"]["uid"]: item for _, item in every}
        for kind, item in every:
            about = item["metadata"]
            owners = about.get("ownerReferences") or []
            going = any(
                _foreground(alive.get(owner["uid"])) and owner.get("blockOwnerDeletion")
                for owner in owners
            )
            gone = owners and all(owner["uid"] not in alive for owner in owners)
            late = gone and self._lost(about["uid"]) >= self.cluster.collect_seconds
            if (late or going) and "deletionTimestamp" not in about:
                self._let_go(kind, item, "Foreground" if going else "Background")
        for kind, item in every:
            if _foreground(item) and not any(_blocks(other, item) for _, other in every):

                def change(stored: Object) -> None:
                    stored["metadata"]["finalizers"].remove("foregroundDeletion")

                about = item["metadata"]
                try:
                    self.store.update(kind, about.get("namespace", ""), about["name"], change)
                except (ApiError, ValueError):
                    continue  # done meanwhile

    def _lost(self, uid: str) -> float:
        """Seconds since something was first seen without its owner."""
        return time.monotonic() - self._orphans.setdefault(uid, time.monotonic())

    def _let_go(self, kind: Kind, item: Object, how: str) -> None:
        about = item["metadata"]
        try:
            self.store.delete(kind, about.get("namespace", ""), about["name"], how)
        except ApiError:
            return  # gone meanwhile


def _foreground(item: Object | None) -> bool:
    if item is None:
        return False
    about = item["metadata"]
    return "deletionTimestamp" in about and "foregroundDeletion" in about.get("finalizers", [])


def _owned_by(item: Object, owner: Object) -> bool:
    references = item["metadata"].get("ownerReferences") or []
    return any(reference["uid"] == owner["metadata"]["uid"] for reference in references)


def _blocks(item: Object, owner: Object) -> bool:
    references = item["metadata"].get("ownerReferences") or []
    return any(
        reference["uid"] == owner["metadata"]["uid"] and reference.get("blockOwnerDeletion")
        for reference in references
    )


def _ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
