"""Amounts as Kubernetes writes them, and what pods ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from interloom.cluster.rendered import Manifest, most_replicas, pod_spec

Amounts = dict[str, Decimal]
"""Resource, as a ResourceQuota calls it, → cores, bytes or pieces."""
NO_DEFAULTS: Mapping[str, Mapping[str, Any]] = {}


def amount(quantity: str | int | float) -> Decimal:
    """``250m`` → 0.25, ``1Gi`` → 1073741824."""
    return parse_quantity(quantity)


def pod_amounts(pod: Manifest, defaults: Mapping[str, Mapping[str, Any]] = NO_DEFAULTS) -> Amounts:
    """What one pod counts for in a ResourceQuota.

    A pod takes the larger of all its containers together and its largest init container. A limit
    without a request is a request too; ``defaults`` are ``default`` and ``defaultRequest`` of a
    LimitRange, for containers that say nothing.
    """
    total: Amounts = {"pods": Decimal(1)}
    for container in pod["containers"]:
        add(total, _container_amounts(container, defaults))
    for first in pod.get("initContainers", ()):
        for name, value in _container_amounts(first, defaults).items():
            total[name] = max(total.get(name, Decimal(0)), value)
    return total


def _container_amounts(container: Manifest, defaults: Mapping[str, Mapping[str, Any]]) -> Amounts:
    given = container.get("resources", {})
    limits = {**defaults.get("default", {}), **given.get("limits", {})}
    requests = {
        **defaults.get("defaultRequest", {}),
        **given.get("limits", {}),
        **given.get("requests", {}),
    }
    return {
        f"{side}.{name}": amount(value)
        for side, amounts in (("requests", requests), ("limits", limits))
        for name, value in amounts.items()
    }


def add(total: Amounts, more: Amounts, times: int = 1) -> None:
    """Add ``more`` to ``total``, ``times`` over."""
    for name, value in more.items():
        total[name] = total.get(name, Decimal(0)) + value * times


def most_amounts(
    manifests: Iterable[Manifest], defaults: Mapping[str, Mapping[str, Any]] = NO_DEFAULTS
) -> Amounts:
    """What all workloads and volumes among ``manifests`` count for at their largest."""
    every = list(manifests)
    total: Amounts = {}
    for manifest in every:
        kind, spec = manifest["kind"], manifest.get("spec", {})
        if kind == "PersistentVolumeClaim":
            add(total, _claim_amounts(spec))
        elif "template" in spec:
            pods = most_replicas(manifest, every)
            add(total, pod_amounts(pod_spec(manifest), defaults), pods)
            for claim in spec.get("volumeClaimTemplates", ()):
                add(total, _claim_amounts(claim["spec"]), pods)
    return total


def _claim_amounts(spec: Manifest) -> Amounts:
    storage = amount(spec["resources"]["requests"]["storage"])
    return {"requests.storage": storage, "persistentvolumeclaims": Decimal(1)}


def beyond(total: Amounts, hard: Mapping[str, Any]) -> list[str]:
    """Complaints about what a quota does not allow."""
    return [
        f"{name}: {shown(total[name])} of {shown(amount(most))}"
        for name, most in sorted(hard.items())
        if name in total and total[name] > amount(most)
    ]


def shown(value: Decimal) -> str:
    """Short and readable: ``96``, ``1.5``, ``64Gi``."""
    for unit, size in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20)):
        if value >= size:
            return f"{float(value / size):.4g}{unit}"
    return f"{float(value):.4g}"
