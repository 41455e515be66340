from __future__ import annotations

from decimal import Decimal

import pytest

from interloom.cluster.quantities import amount, beyond, most_amounts, pod_amounts, shown


@pytest.mark.parametrize(
    ("text", "value"),
    [("250m", "0.25"), ("2", "2"), ("1.5", "1.5"), ("1Gi", "1073741824"), ("1G", "1000000000")],
)
def test_amounts_are_kubernetes_own(text: str, value: str) -> None:
    assert amount(text) == Decimal(value)


def test_a_pod_takes_the_larger_of_its_first_and_its_working_containers() -> None:
    work = {"name": "a", "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}}
    first = {"name": "b", "resources": {"requests": {"cpu": "3"}}}
    found = pod_amounts({"containers": [work, work], "initContainers": [first]})
    assert found["requests.cpu"] == 3
    assert found["requests.memory"] == found["limits.memory"] == 2 * 2**30  # a limit is a request
    assert found["pods"] == 1


def test_defaults_stand_for_what_is_not_said() -> None:
    defaults = {"default": {"memory": "2Gi"}, "defaultRequest": {"cpu": "100m", "memory": "1Gi"}}
    found = pod_amounts({"containers": [{"name": "a"}]}, defaults)
    assert found["requests.cpu"] == Decimal("0.1")
    assert (found["requests.memory"], found["limits.memory"]) == (2**30, 2 * 2**30)


def test_everything_at_its_largest() -> None:
    pod = {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}
    claim = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    manifests = [
        {"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": {"spec": pod}}},
        {
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "d"},
            "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}},
        },
        {
            "kind": "StatefulSet",
            "metadata": {"name": "s"},
            "spec": {"replicas": 2, "template": {"spec": pod}, "volumeClaimTemplates": [claim]},
        },
        {"kind": "PersistentVolumeClaim", "metadata": {"name": "p"}, **claim},
    ]
    total = most_amounts(manifests)
    assert (total["pods"], total["requests.cpu"]) == (5, 5)
    assert (total["requests.storage"], total["persistentvolumeclaims"]) == (6 * 2**30, 3)
    assert beyond(total, {"requests.cpu": "5", "pods": "9"}) == []
    assert beyond(total, {"requests.cpu": "4", "requests.storage": "5Gi"}) == [
        "requests.cpu: 5 of 4",
        "requests.storage: 6Gi of 5Gi",
    ]


def test_shown_is_short() -> None:
    assert [shown(amount(text)) for text in ("96", "250m", "64Gi", "1536Mi", "2Ti")] == [
        "96", "0.25", "64Gi", "1.5Gi", "2Ti",
    ]  # fmt: skip
