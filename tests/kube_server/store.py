"""What etcd and the API server keep: objects with versions, and a history that watches follow."""

from __future__ import annotations

import copy
import random
import re
import string
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from kube_server.admission import check, default, within_quota
from kube_server.kinds import (
    ApiError,
    Kind,
    Object,
    fields_match,
    invalid,
    kind_named,
    labels_match,
    not_found,
)

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
RBAC_NAME = re.compile(r"[^/%]+")


def now(offset: float = 0.0) -> str:
    """A time as objects have it."""
    return datetime.fromtimestamp(time.time() + offset, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(stamp: str) -> float:
    """Seconds since the epoch of a time in an object."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


class Store:
    """All objects. Every change has a version of its own; ``changed`` is notified of it."""

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.version = 1000
        self.oldest = 1000
        """Watches that ask for what came after an older version than this get 410."""
        self._objects: dict[Kind, dict[tuple[str, str], Object]] = {}
        self._history: list[tuple[int, Kind, str, Object]] = []

    def create(self, kind: Kind, namespace: str, item: Object, dry: bool = False) -> Object:
        """A new object as it is stored."""
        with self.changed:
            item = copy.deepcopy(item)
            about = item.setdefault("metadata", {})
            if "name" not in about and "generateName" in about:
                tail = "".join(random.choices(string.ascii_lowercase + string.digits, k=5))
                about["name"] = about["generateName"] + tail
            name = about.get("name", "")
            pattern = RBAC_NAME if "rbac" in kind.group else NAME
            if not pattern.fullmatch(name) or len(name) > 253:
                raise invalid(kind, name, f"metadata.name: Invalid value: {name!r}")
            if kind.namespaced:
                if about.setdefault("namespace", namespace) != namespace:
                    raise ApiError(
                        400,
                        "BadRequest",
                        "the namespace of the provided object does not match the namespace sent on "
                        "the request",
                    )
                spaces = self._objects.get(kind_named("namespaces"), {})
                if ("", namespace) not in spaces:
                    raise not_found(kind_named("namespaces"), namespace)
            if (namespace, name) in self._objects.get(kind, {}):
                raise ApiError(409, "AlreadyExists", f'{kind.qualified} "{name}" already exists')
            item |= {"apiVersion": kind.api_version, "kind": kind.kind}
            default(kind, item)
            check(kind, item)
            within_quota(self, kind, namespace, item)
            about |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
            if kind.plural == "jobs":  # selector and labels are the controller's own
                _own_pods(item)
            if not dry:
                self._put(kind, namespace, name, item, "ADDED")
            return copy.deepcopy(item)

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """One object; ``ApiError`` 404 if there is none."""
        with self.changed:
            found = self._objects.get(kind, {}).get((namespace, name))
            if found is None:
                raise not_found(kind, name)
            return copy.deepcopy(found)

    def find(self, plural: str, namespace: str, name: str) -> Object | None:
        """One object by its plural, or none."""
        with self.changed:
            found = self._objects.get(kind_named(plural), {}).get((namespace, name))
            return copy.deepcopy(found)

    def list(
        self, kind: Kind, namespace: str = "", labels: str = "", fields: str = ""
    ) -> list[Object]:
        """Objects of a kind, of all namespaces if none is given."""
        with self.changed:
            return [
                copy.deepcopy(item)
                for (space, _), item in sorted(self._objects.get(kind, {}).items())
                if namespace in ("", space) and selected(item, labels, fields)
            ]

    def all(self, plural: str, namespace: str = "", labels: str = "") -> list[Object]:
        """Objects by their plural."""
        return self.list(kind_named(plural), namespace, labels)

    def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        change: Callable[[Object], Object | None],
        *,
        dry: bool = False,
        checked: bool = False,
    ) -> Object:
        """Change an object; ``change`` may alter its argument or return another object.

        ``checked`` refuses what clients may not do, such as a change of a Job's pods.
        """
        with self.changed:
            old = self.get(kind, namespace, name)
            item = copy.deepcopy(old)
            item = change(item) or item
            wanted = item["metadata"].get("resourceVersion")
            if wanted not in (None, old["metadata"]["resourceVersion"]):
                raise ApiError(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {kind.qualified} "{name}": the object has '
                    "been modified; please apply your changes to the latest version and try again",
                )
            for field in ("uid", "creationTimestamp", "name", "namespace", "deletionTimestamp"):
                if field in old["metadata"]:
                    item["metadata"][field] = old["metadata"][field]
            item |= {"apiVersion": kind.api_version, "kind": kind.kind}
            if checked:
                default(kind, item)
                check(kind, item, old)
            if item.get("spec") != old.get("spec"):
                item["metadata"]["generation"] = old["metadata"].get("generation", 1) + 1
            item["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            if item == old:
                return item
            if not dry:
                if "deletionTimestamp" in item["metadata"] and not self._held(kind, item):
                    self._remove(kind, namespace, name)
                else:
                    self._put(kind, namespace, name, item, "MODIFIED")
            return copy.deepcopy(item)

    def delete(
        self, kind: Kind, namespace: str, name: str, propagation: str = "", grace: int | None = None
    ) -> Object:
        """Delete, or begin to: pods end first, and with ``Foreground`` what an object owns does."""
        with self.changed:
            item = self.get(kind, namespace, name)
            about = item["metadata"]
            if not propagation:  # as the API server's strategies have it
                propagation = "Background"
            if propagation == "Foreground":
                finalizers = about.setdefault("finalizers", [])
                if "foregroundDeletion" not in finalizers:
                    finalizers.append("foregroundDeletion")
            running = kind.plural == "pods" and item.get("spec", {}).get("nodeName")
            ended = item.get("status", {}).get("phase") in ("Succeeded", "Failed")
            if running and not ended:
                if grace is None:
                    grace = item["spec"].get("terminationGracePeriodSeconds", 30)
                about["deletionGracePeriodSeconds"] = grace
            elif not about.get("finalizers"):
                self._remove(kind, namespace, name)
                return item
            if "deletionTimestamp" not in about:
                about["deletionTimestamp"] = now(grace or 0)
            self._put(kind, namespace, name, item, "MODIFIED")
            return item

    def finish(self, kind: Kind, namespace: str, name: str) -> None:
        """Take an object away that was held for its ending."""
        with self.changed:
            if (namespace, name) in self._objects.get(kind, {}):
                self._remove(kind, namespace, name)

    def since(
        self, kind: Kind, namespace: str, version: int
    ) -> tuple[int, list[tuple[str, Object]]]:
        """What happened to a kind after ``version``, and the version it is now."""
        with self.changed:
            if version < self.oldest:
                raise ApiError(
                    410, "Expired", f"too old resource version: {version} ({self.oldest})"
                )
            news = [
                (word, item)
                for number, other, word, item in self._history
                if number > version
                and other == kind
                and namespace in ("", item["metadata"].get("namespace", ""))
            ]
            return self.version, news

    def compact(self) -> None:
        """Forget the history, as etcd does every few minutes."""
        with self.changed:
            self.oldest = self.version
            self._history.clear()

    def event(self, about: Object, kind: str, reason: str, message: str) -> None:
        """Write an Event about an object (``kind`` is Normal or Warning)."""
        space = about["metadata"].get("namespace", "default")
        stamp = now()
        with self.changed:
            known = [
                item
                for item in self.all("events", space)
                if item["involvedObject"]["uid"] == about["metadata"]["uid"]
                and (item["reason"], item["message"]) == (reason, message)
            ]
            if known:
                name = known[0]["metadata"]["name"]

                def again(item: Object) -> None:
                    item |= {"count": item["count"] + 1, "lastTimestamp": stamp}

                self.update(kind_named("events"), space, name, again)
                return
            self.create(
                kind_named("events"),
                space,
                {
                    "metadata": {"generateName": f"{about['metadata']['name']}."},
                    "involvedObject": {
                        "kind": about["kind"],
                        "apiVersion": about["apiVersion"],
                        "namespace": space,
                        "name": about["metadata"]["name"],
                        "uid": about["metadata"]["uid"],
                    },
                    "type": kind,
                    "reason": reason,
                    "message": message,
                    "count": 1,
                    "firstTimestamp": stamp,
                    "lastTimestamp": stamp,
                    "source": {"component": "test-server"},
                },
            )

    def _held(self, kind: Kind, item: Object) -> bool:
        """Whether an object that is being deleted has to stay a while."""
        ended = item.get("status", {}).get("phase") in ("Succeeded", "Failed")
        runs = kind.plural == "pods" and "nodeName" in item["spec"] and not ended
        return bool(item["metadata"].get("finalizers")) or runs

    def _put(self, kind: Kind, namespace: str, name: str, item: Object, word: str) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        item = copy.deepcopy(item)
        self._objects.setdefault(kind, {})[namespace, name] = item
        self._history.append((self.version, kind, word, item))
        self.changed.notify_all()

    def _remove(self, kind: Kind, namespace: str, name: str) -> None:
        self.version += 1
        item = copy.deepcopy(self._objects[kind].pop((namespace, name)))
        item["metadata"]["resourceVersion"] = str(self.version)
        self._history.append((self.version, kind, "DELETED", item))
        self.changed.notify_all()


def selected(item: Object, labels: str, fields: str) -> bool:
    """Whether selectors of a query choose an object."""
    return labels_match(item["metadata"].get("labels") or {}, labels) and fields_match(item, fields)


def _own_pods(job: Object) -> None:
    about: dict[str, Any] = job["metadata"]
    labels = {
        "batch.kubernetes.io/controller-uid": about["uid"],
        "batch.kubernetes.io/job-name": about["name"],
        "controller-uid": about["uid"],
        "job-name": about["name"],
    }
    template = job["spec"]["template"].setdefault("metadata", {})
    template["labels"] = {**(template.get("labels") or {}), **labels}
    job["spec"]["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": about["uid"]}}
