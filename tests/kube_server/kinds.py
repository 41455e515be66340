"""The kinds of objects that the test server knows, and the errors it answers with."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One resource of the API."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As ``apiVersion`` has it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """As messages of the API have it: ``jobs.batch``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


KINDS = (
    Kind("", "v1", "namespaces", "Namespace", namespaced=False),
    Kind("", "v1", "nodes", "Node", namespaced=False),
    Kind("", "v1", "pods", "Pod"),
    Kind("", "v1", "services", "Service"),
    Kind("", "v1", "configmaps", "ConfigMap"),
    Kind("", "v1", "secrets", "Secret"),
    Kind("", "v1", "serviceaccounts", "ServiceAccount"),
    Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    Kind("", "v1", "resourcequotas", "ResourceQuota"),
    Kind("", "v1", "limitranges", "LimitRange"),
    Kind("", "v1", "events", "Event"),
    Kind("batch", "v1", "jobs", "Job"),
    Kind("batch", "v1", "cronjobs", "CronJob"),
    Kind("apps", "v1", "deployments", "Deployment"),
    Kind("apps", "v1", "statefulsets", "StatefulSet"),
    Kind("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    Kind("networking.k8s.io", "v1", "ingresses", "Ingress"),
    Kind("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False),
    Kind(
        "rbac.authorization.k8s.io",
        "v1",
        "clusterrolebindings",
        "ClusterRoleBinding",
        namespaced=False,
    ),
    Kind("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False),
    Kind("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False),
    Kind("kueue.x-k8s.io", "v1beta1", "localqueues", "LocalQueue"),
)


def find_kind(group: str, version: str, plural: str) -> Kind | None:
    """The kind at a path of the API."""
    for kind in KINDS:
        if (kind.group, kind.version, kind.plural) == (group, version, plural):
            return kind
    return None


def kind_named(plural: str) -> Kind:
    """The kind of a resource by its plural alone."""
    return next(kind for kind in KINDS if kind.plural == plural)


class ApiError(Exception):
    """An answer other than success, as a ``Status`` object."""

    def __init__(
        self, code: int, reason: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.headers = headers or {}

    def status(self) -> Object:
        """The body of the answer."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }


def not_found(kind: Kind, name: str) -> ApiError:
    """404 as the API words it."""
    return ApiError(404, "NotFound", f'{kind.qualified} "{name}" not found')


def invalid(kind: Kind, name: str, problem: str) -> ApiError:
    """422 as the API words it."""
    return ApiError(422, "Invalid", f'{kind.kind}.{kind.group} "{name}" is invalid: {problem}')


def forbidden(kind: Kind, name: str, problem: str) -> ApiError:
    """403 of an admission plug-in, as the API words it."""
    return ApiError(403, "Forbidden", f'{kind.qualified} "{name}" is forbidden: {problem}')


def merged(old: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def json_patched(old: Object, operations: list[Object]) -> Object:
    """A JSON patch (RFC 6902): add, replace, remove and test."""
    result = copy.deepcopy(old)
    for operation in operations:
        *path, last = [
            part.replace("~1", "/").replace("~0", "~")
            for part in operation["path"].removeprefix("/").split("/")
        ]
        place: Any = result
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place[part]
        key: Any = last
        if isinstance(place, list):
            key = len(place) if last == "-" else int(last)
        match operation["op"]:
            case "remove":
                del place[key]
            case "add" if isinstance(place, list):
                place.insert(key, operation["value"])
            case "add" | "replace":
                place[key] = operation["value"]
            case "test" if place[key] != operation["value"]:
                raise ApiError(422, "Invalid", f"the test of {operation['path']} failed")
    return result


def labels_match(labels: dict[str, str], selector: str) -> bool:
    """A label selector of a query: ``a=b,c!=d,e in (f,g),h,!i``."""
    import re

    for term in map(str.strip, re.split(r",(?![^(]*\))", selector)):
        if not term:
            continue
        if among := re.fullmatch(r"(\S+)\s+(in|notin)\s+\((.*)\)", term):
            key, word, values = among.groups()
            inside = labels.get(key) in [value.strip() for value in values.split(",")]
            if inside != (word == "in"):
                return False
        elif "!=" in term:
            key, _, value = term.partition("!=")
            if labels.get(key) == value:
                return False
        elif "=" in term:
            key, _, value = term.replace("==", "=").partition("=")
            if labels.get(key) != value:
                return False
        elif term.startswith("!"):
            if term[1:] in labels:
                return False
        elif term not in labels:
            return False
    return True


def fields_match(item: Object, selector: str) -> bool:
    """A field selector of a query: ``metadata.name=x,status.phase!=Running``."""
    for term in filter(None, selector.split(",")):
        key, sign, value = term.partition("!=" if "!=" in term else "=")
        place: Any = item
        for part in key.split("."):
            place = place.get(part, "") if isinstance(place, dict) else ""
        if (str(place) == value) == (sign == "!="):
            return False
    return True
