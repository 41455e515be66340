"""What the API server does to an object before it is stored: defaults, validation, quota."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kube_server.kinds import Kind, Object, forbidden, invalid, kind_named

if TYPE_CHECKING:
    from kube_server.store import Store

SUFFIXES = {
    "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip
COUNTED = {
    "pods": "pods",
    "services": "services",
    "configmaps": "configmaps",
    "secrets": "secrets",
    "persistentvolumeclaims": "persistentvolumeclaims",
}


def amount(quantity: str | int | float) -> float:
    """A Kubernetes quantity as a number: cores, bytes or pieces."""
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(quantity))
    assert found is not None, f"no quantity: {quantity!r}"
    return float(found[1]) * SUFFIXES.get(found[2], 1.0)


def pod_spec(kind: Kind, item: Object) -> Object | None:
    """The pods' specification in an object, if it has one."""
    if kind.plural == "pods":
        return item["spec"]
    if kind.plural in ("jobs", "deployments", "statefulsets"):
        return item["spec"]["template"]["spec"]
    return None


def default(kind: Kind, item: Object) -> None:
    """Fill in what a client may leave out."""
    if kind.plural == "jobs":
        spec = item.get("spec", {})
        spec.setdefault("completionMode", "NonIndexed")
        spec.setdefault("parallelism", 1)
        if spec["completionMode"] == "NonIndexed":
            spec.setdefault("completions", spec["parallelism"])
        spec.setdefault("backoffLimit", 6)
        spec.setdefault("suspend", False)
        spec.setdefault(
            "podReplacementPolicy",
            "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed",
        )
    if kind.plural == "deployments":
        item.setdefault("spec", {}).setdefault("replicas", 1)
    if kind.plural == "namespaces":
        item.setdefault("status", {"phase": "Active"})
    if kind.plural == "persistentvolumeclaims":
        item.setdefault("status", {"phase": "Bound"})
    if kind.plural == "pods":
        item.setdefault("status", {"phase": "Pending"})


def check(kind: Kind, item: Object, old: Object | None = None) -> None:
    """Refuse with 422 what the API server refuses, as far as this project might do it."""
    for problem in _problems(kind, item, old):
        raise invalid(kind, item["metadata"]["name"], problem)


def _problems(kind: Kind, item: Object, old: Object | None) -> Iterator[str]:
    for key, value in (item["metadata"].get("labels") or {}).items():
        if not re.fullmatch(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?", str(value)):
            yield f"metadata.labels: Invalid value: {value!r} of {key}"
    if kind.plural in ("jobs", "services", "namespaces") and len(item["metadata"]["name"]) > 63:
        yield "metadata.name: must be no more than 63 characters"
    if kind.plural == "jobs":
        yield from _job_problems(item, old)
    if kind.plural == "deployments":
        wanted = item["spec"]["selector"]["matchLabels"].items()
        if not wanted <= (item["spec"]["template"]["metadata"].get("labels") or {}).items():
            yield "spec.template.metadata.labels: `selector` does not match template `labels`"
    size = sum(len(text.encode()) for text in (item.get("data") or {}).values())
    if kind.plural == "configmaps" and size > 1 << 20:
        yield "[]: Too long: must have at most 1048576 bytes"
    spec = pod_spec(kind, item)
    if spec is not None:
        claimed = item["spec"].get("volumeClaimTemplates") or []
        yield from _pod_problems(spec, {claim["metadata"]["name"] for claim in claimed})


def _job_problems(item: Object, old: Object | None) -> Iterator[str]:
    spec = item["spec"]
    if spec["completionMode"] == "Indexed" and "completions" not in spec:
        yield "spec.completions: Required value: when completion mode is Indexed"
    if spec["template"]["spec"].get("restartPolicy") not in ("Never", "OnFailure"):
        yield 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
    if "podFailurePolicy" in spec and spec["template"]["spec"].get("restartPolicy") != "Never":
        yield "spec.template.spec.restartPolicy: only Never with a podFailurePolicy"
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        codes = rule.get("onExitCodes")
        if codes and codes["operator"] == "In" and 0 in codes["values"]:
            yield "spec.podFailurePolicy.rules: must not have 0 for the In operator"
        if codes and codes["values"] != sorted(set(codes["values"])):
            yield "spec.podFailurePolicy.rules: values must be ordered and unique"
        if bool(codes) == bool(rule.get("onPodConditions")):
            yield "spec.podFailurePolicy.rules: one of onExitCodes and onPodConditions"
    if old is not None:
        template, before = spec["template"], old["spec"]["template"]
        if template != before and not old["spec"].get("suspend"):
            yield "spec.template: Invalid value: field is immutable"
        for field in ("completionMode", "selector", "podFailurePolicy"):
            if spec.get(field) != old["spec"].get(field):
                yield f"spec.{field}: Invalid value: field is immutable"


def _pod_problems(spec: Object, claimed: set[str]) -> Iterator[str]:
    volumes = {volume["name"] for volume in spec.get("volumes") or []} | claimed
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        if not container.get("image"):
            yield f"spec.containers[{container.get('name')}].image: Required value"
        for mount in container.get("volumeMounts") or []:
            if mount["name"] not in volumes:
                yield f"spec.containers[0].volumeMounts[0].name: Not found: {mount['name']!r}"
        resources = container.get("resources") or {}
        for name, wanted in (resources.get("requests") or {}).items():
            limit = (resources.get("limits") or {}).get(name)
            if limit is not None and amount(wanted) > amount(limit):
                yield f"spec.containers[0].resources.requests: must be less than or equal to {name}"
            if "/" in name and limit is None:
                yield f"spec.containers[0].resources.limits[{name}]: Required value: Limit must be "
    if not spec.get("containers"):
        yield "spec.containers: Required value"


def requested(spec: Object) -> dict[str, float]:
    """What the containers of a pod ask for together; without a request the limit counts."""
    total: dict[str, float] = {}
    for container in spec.get("containers") or []:
        resources: dict[str, Any] = container.get("resources") or {}
        wanted = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for name, quantity in wanted.items():
            total[name] = total.get(name, 0.0) + amount(quantity)
    return total


def _charges(kind: Kind, item: Object) -> dict[str, float]:
    """What an object counts as in a quota."""
    charges = {f"count/{kind.qualified}": 1.0}
    if kind.plural in COUNTED:
        charges[COUNTED[kind.plural]] = 1.0
    if kind.plural == "pods" and item.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
        for name, number in requested(item["spec"]).items():
            charges[f"requests.{name}"] = number
            if name in ("cpu", "memory"):
                charges[name] = number
        for container in item["spec"]["containers"]:
            for name, quantity in ((container.get("resources") or {}).get("limits") or {}).items():
                charges[f"limits.{name}"] = charges.get(f"limits.{name}", 0.0) + amount(quantity)
    if kind.plural == "pods" and item.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        charges.pop("pods", None)
    return charges


def used(store: Store, namespace: str, hard: dict[str, str]) -> dict[str, float]:
    """What is used of each line of a quota."""
    total = dict.fromkeys(hard, 0.0)
    for plural in ("pods", "jobs", "services", "configmaps", "secrets", "persistentvolumeclaims",
                   "deployments"):  # fmt: skip
        kind = kind_named(plural)
        for item in store.list(kind, namespace):
            for name, number in _charges(kind, item).items():
                if name in total:
                    total[name] += number
    return total


def within_quota(store: Store, kind: Kind, namespace: str, item: Object) -> None:
    """Refuse with 403 an object for which there is no quota left."""
    charges = _charges(kind, item)
    for quota in store.all("resourcequotas", namespace):
        hard = quota["spec"].get("hard", {})
        over = [name for name in hard if name in charges]
        have = used(store, namespace, hard)
        over = [name for name in over if have[name] + charges[name] > amount(hard[name])]
        if over:
            parts = [
                ",".join(f"{name}={value:g}" for name, value in side)
                for side in (
                    [(name, charges[name]) for name in over],
                    [(name, have[name]) for name in over],
                )
            ]
            limited = ",".join(f"{name}={hard[name]}" for name in over)
            raise forbidden(
                kind,
                item["metadata"]["name"],
                f"exceeded quota: {quota['metadata']['name']}, requested: {parts[0]}, "
                f"used: {parts[1]}, limited: {limited}",
            )
