"""What we demand of a pod, beyond what Kubernetes' own schemas do. Each rule gives complaints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from interloom.cluster.rendered import containers

Pod = Mapping[str, Any]
SECRET_NAME = re.compile(
    r"(password|passwd|secret|token|api[_-]?key|auth[_-]?string|credential)", re.I
)
REFERS = re.compile(r"(_SECRET_NAME|_SECRET_KEY|_FILE|_ENV)$")
"""Variables that only say where a secret is."""
ADDRESS_WITH_PASSWORD = re.compile(r"://[^/@:\s]+:[^/@\s]+@")
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
           "projected", "secret"}  # fmt: skip
"""The kinds of volumes that Pod Security *restricted* allows."""


def restricted(pod: Pod) -> Iterator[str]:
    """Pod Security Standards, profile *restricted*."""
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{field} is set"
    for volume in pod.get("volumes", ()):
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES:
            yield f"volume {volume['name']} is a {', '.join(kinds - VOLUMES)}"
    if pod.get("securityContext", {}).get("sysctls"):
        yield "sysctls are set"
    for container in containers(pod):
        yield from _restricted(container, pod.get("securityContext", {}))


def _restricted(container: Mapping[str, Any], whole: Mapping[str, Any]) -> Iterator[str]:
    """A container, with the ``securityContext`` of the whole pod."""
    name, own = container["name"], container.get("securityContext", {})
    capabilities = own.get("capabilities", {})
    faults = {
        "is privileged": own.get("privileged"),
        "may gain privileges": own.get("allowPrivilegeEscalation") is not False,
        "keeps capabilities": capabilities.get("drop") != ["ALL"],
        "adds capabilities": set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"},
        "may run as root": own.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True,
        "runs as user 0": own.get("runAsUser", whole.get("runAsUser")) == 0,
        "sees all of /proc": own.get("procMount", "Default") != "Default",
        "takes a port of the host": any("hostPort" in p for p in container.get("ports", ())),
    }
    profile = own.get("seccompProfile", whole.get("seccompProfile", {})).get("type")
    faults["has no seccomp profile"] = profile not in {"RuntimeDefault", "Localhost"}
    yield from (f"{name} {fault}" for fault, found in faults.items() if found)


def read_only(pod: Pod) -> Iterator[str]:
    """The root file system is read-only, and what is written is bounded."""
    for container in containers(pod):
        if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            yield f"{container['name']} may write to its image"
        if not any(mount["mountPath"] == "/tmp" for mount in container.get("volumeMounts", ())):
            yield f"{container['name']} has no /tmp to write to"
    for volume in pod.get("volumes", ()):
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} may fill the node"


def bounded(pod: Pod) -> Iterator[str]:
    """Requests of CPU and memory, limits of memory and disk. CPU has none on purpose."""
    for container in containers(pod):
        given = container.get("resources", {})
        for side, names in (
            ("requests", ("cpu", "memory")),
            ("limits", ("memory", "ephemeral-storage")),
        ):
            for name in names:
                if name not in given.get(side, {}):
                    yield f"{container['name']} has no {side}.{name}"


def pinned(pod: Pod) -> Iterator[str]:
    """Images with a tag that stands for one thing."""
    for container in containers(pod):
        image = container["image"]
        tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
        if "@sha256:" not in image and not re.fullmatch(r"v?\d+\.\d+[\w.-]*", tag):
            yield f"{container['name']} runs {image}, which may be another image tomorrow"


def probed(pod: Pod) -> Iterator[str]:
    """All three probes: loading takes long, and must not look like death."""
    for container in pod["containers"]:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe not in container:
                yield f"{container['name']} has no {probe}"


def discreet(pod: Pod) -> Iterator[str]:
    """No secret is written out: not by name, and not inside of an address."""
    for container in containers(pod):
        for variable in container.get("env", ()):
            name, value = variable["name"], variable.get("value")
            if value and SECRET_NAME.search(name) and not REFERS.search(name):
                yield f"{container['name']} has {name} in the open"
        words = [*container.get("command", ()), *container.get("args", ())]
        words += [variable.get("value") or "" for variable in container.get("env", ())]
        for word in words:
            if ADDRESS_WITH_PASSWORD.search(word):
                yield f"{container['name']} has a password in {word!r}"
            if re.match(r"--?(password|token|api-key)=", word):
                yield f"{container['name']} has a secret in {word!r}"


def apart(pod: Pod) -> Iterator[str]:
    """No token unless it says so, no account shared with strangers, no variables of neighbours.

    With service links a Service ``mlflow`` gives every pod ``MLFLOW_PORT=tcp://…``, which MLflow
    takes for its own port.
    """
    if pod.get("serviceAccountName", "default") == "default":
        yield "the account is everybody's (default)"
    if "automountServiceAccountToken" not in pod:
        yield "nothing says whether there is a token"
    if pod.get("enableServiceLinks") is not False:
        yield "services become environment variables"


EVERY_POD: tuple[Callable[[Pod], Iterator[str]], ...] = (
    restricted, read_only, bounded, pinned, discreet, apart,
)  # fmt: skip
"""Rules for all pods; those that serve are ``probed`` too."""
