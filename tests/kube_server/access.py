"""Who may do what: bearer tokens, and the roles that are stored."""

from __future__ import annotations

from typing import NamedTuple

from kube_server.kinds import ApiError, Object
from kube_server.store import Store

ADMIN = "admin"


class Request(NamedTuple):
    """What someone wants to do, in the words of roles."""

    user: str
    verb: str
    group: str
    resource: str
    """Plural, with a subresource as ``pods/log``."""
    namespace: str
    name: str


def allowed(store: Store, request: Request) -> bool:
    """Whether a role that is bound to the user grants the request."""
    if request.user == ADMIN:
        return True
    bindings = store.all("rolebindings", request.namespace) if request.namespace else []
    bindings += store.all("clusterrolebindings")
    for binding in bindings:
        if any(_is(subject, request.user) for subject in binding.get("subjects") or []):
            role = binding["roleRef"]
            space = "" if role["kind"] == "ClusterRole" else request.namespace
            plural = "clusterroles" if role["kind"] == "ClusterRole" else "roles"
            found = store.find(plural, space, role["name"])
            if found and any(_grants(rule, request) for rule in found.get("rules") or []):
                return True
    return False


def demand(store: Store, request: Request) -> None:
    """403 as the API words it, unless the request is allowed."""
    if allowed(store, request):
        return
    where = (
        f' in the namespace "{request.namespace}"' if request.namespace else " at the cluster scope"
    )
    plural = request.resource.partition("/")[0]
    shown = f"{plural}.{request.group}" if request.group else plural
    named = f' "{request.name}"' if request.name else ""
    raise ApiError(
        403,
        "Forbidden",
        f'{shown}{named} is forbidden: User "{request.user}" cannot {request.verb} resource '
        f'"{request.resource}" in API group "{request.group}"{where}',
    )


def _is(subject: Object, user: str) -> bool:
    if subject["kind"] == "ServiceAccount":
        return user == f"system:serviceaccount:{subject.get('namespace', '')}:{subject['name']}"
    return user == subject["name"]


def _grants(rule: Object, request: Request) -> bool:
    return (
        _among(request.verb, rule.get("verbs"))
        and _among(request.group, rule.get("apiGroups"))
        and _among(request.resource, rule.get("resources"))
        and (not rule.get("resourceNames") or request.name in rule["resourceNames"])
    )


def _among(word: str, words: list[str] | None) -> bool:
    return bool(words) and ("*" in words or word in words)
