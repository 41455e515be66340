"""A pod's place on this machine: where its volumes lie, and how its words are read here.

There are no namespaces of the kernel here, so that the tests run anywhere. Instead the paths of
mounts, the names of pods and services, and the ports of containers are *rewritten* wherever they
stand in a container's command, environment or working folder, and in the ConfigMaps it mounts:
``/project/x`` becomes the folder of that volume, ``job-0.job:29500`` a free port of this machine.
What a real node gives to a container (its paths and the network) is thus there under other names.
"""

from __future__ import annotations

import base64
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kube_server.kinds import Object

if TYPE_CHECKING:
    from kube_server.server import KubeServer


class NotMountableError(Exception):
    """A volume is not there; the pod waits, as the kubelet tries again."""


@dataclass
class Place:
    """Where one pod lives."""

    cluster: KubeServer
    pod: Object
    root: Path
    volumes: dict[str, Path] = field(default_factory=dict)
    ports: dict[int, int] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """Of the pod."""
        return self.pod["metadata"]["namespace"]

    def mount(self) -> None:
        """Make every volume of the pod ready.

        Raises:
            NotMountableError: saying what is missing.
        """
        store = self.cluster.store
        for volume in self.pod["spec"].get("volumes") or []:
            path = self.root / "volumes" / volume["name"]
            if claim := volume.get("persistentVolumeClaim"):
                name = claim["claimName"]
                if store.find("persistentvolumeclaims", self.namespace, name) is None:
                    raise NotMountableError(f'persistentvolumeclaim "{name}" not found')
                path = self.cluster.claim(name)
            elif config := volume.get("configMap"):
                found = store.find("configmaps", self.namespace, config["name"])
                if found is None:
                    raise NotMountableError(f'configmap "{config["name"]}" not found')
                path.mkdir(parents=True, exist_ok=True)
                for name, text in (found.get("data") or {}).items():
                    (path / name).write_text(self.read(text), encoding="utf-8")
            elif secret := volume.get("secret"):
                found = store.find("secrets", self.namespace, secret["secretName"])
                if found is None:
                    raise NotMountableError(f'secret "{secret["secretName"]}" not found')
                path.mkdir(parents=True, exist_ok=True)
                for name, data in _secret(found).items():
                    (path / name).write_text(data, encoding="utf-8")
            path.mkdir(parents=True, exist_ok=True)
            self.volumes[volume["name"]] = path
        if self.pod["metadata"].get("ownerReferences", [{}])[0].get("kind") != "Job":
            for container in self.pod["spec"]["containers"]:
                for port in container.get("ports") or []:
                    self.ports[port["containerPort"]] = self.cluster.free_port()

    def forget(self) -> None:
        """Remove what goes with the pod."""
        shutil.rmtree(self.root, ignore_errors=True)

    def environment(self, container: Object) -> dict[str, str]:
        """The container's variables: of its image, of its Secrets and ConfigMaps, its own."""
        store, env = self.cluster.store, dict(self.cluster.images[container["image"]])
        for source in container.get("envFrom") or []:
            for kind, plural in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
                if kind in source:
                    name = source[kind]["name"]
                    found = store.find(plural, self.namespace, name)
                    if found is None:
                        raise NotMountableError(f'{plural[:-1]} "{name}" not found')
                    env |= _secret(found) if plural == "secrets" else found.get("data") or {}
        said: dict[str, str] = {}
        for entry in container.get("env") or []:
            said[entry["name"]] = self._value(entry, said)
        return env | {name: self._local(text, container) for name, text in said.items()}

    def words(self, container: Object, env: dict[str, str]) -> list[str]:
        """The container's command."""
        words = [*(container.get("command") or []), *(container.get("args") or [])]
        expanded = [
            re.sub(r"\$\((\w+)\)", lambda found: env.get(found[1], found[0]), word)
            for word in words
        ]
        return [
            str(self.ports[int(word)])
            if word.isdigit() and int(word) in self.ports
            else self._local(word, container)
            for word in expanded
        ]

    def nest(self, container: Object) -> None:
        """Link mounts that lie in other mounts, for paths relative to the working folder.

        What a volume has at that place itself cannot be hidden here, and stays.
        """
        mounts = {mount["mountPath"]: self._source(mount)
                  for mount in container.get("volumeMounts") or []}  # fmt: skip
        for path, source in mounts.items():
            holders = [other for other in mounts if path.startswith(other + "/")]
            if not holders:
                continue
            holder = max(holders, key=len)
            link = mounts[holder] / path.removeprefix(holder + "/")
            source.mkdir(parents=True, exist_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(source)

    def folder(self, container: Object) -> Path:
        """The container's working folder."""
        given = container.get("workingDir")
        path = Path(self._local(given, container)) if given else self.root
        path.mkdir(parents=True, exist_ok=True)
        return path

    def message_file(self, container: Object) -> Path:
        """Where the container leaves its last words."""
        path = self.root / f"{container['name']}-termination-log"
        path.touch()
        return path

    def _value(self, entry: Object, said: dict[str, str]) -> str:
        source = entry.get("valueFrom")
        if source is None:
            text = str(entry.get("value", ""))
            return re.sub(r"\$\((\w+)\)", lambda found: said.get(found[1], found[0]), text)
        if "fieldRef" in source:
            return self._field(source["fieldRef"]["fieldPath"])
        for key, plural in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
            if key in source:
                ref = source[key]
                found = self.cluster.store.find(plural, self.namespace, ref["name"])
                if found is None:
                    raise NotMountableError(f'{plural[:-1]} "{ref["name"]}" not found')
                data = _secret(found) if plural == "secrets" else found.get("data") or {}
                return data[ref["key"]]
        raise NotImplementedError(f"valueFrom {source}")

    def _field(self, path: str) -> str:
        if path == "status.podIP":
            return "127.0.0.1"
        if found := re.fullmatch(r"metadata\.(annotations|labels)\['(.+)'\]", path):
            return (self.pod["metadata"].get(found[1]) or {}).get(found[2], "")
        section, _, name = path.partition(".")
        return str(self.pod[section][name])

    def _local(self, text: str, container: Object) -> str:
        """A container's word as it is on this machine."""
        mounts = {mount["mountPath"]: self._source(mount)
                  for mount in container.get("volumeMounts") or []}  # fmt: skip
        path = container.get("terminationMessagePath", "/dev/termination-log")
        mounts[path] = self.message_file(container)
        either = "|".join(re.escape(mount) for mount in sorted(mounts, key=len, reverse=True))
        text = re.sub(rf"(?<![\w./-])({either})(?![\w.-])", lambda m: str(mounts[m[1]]), text)
        return self.read(text)

    def _source(self, mount: Object) -> Path:
        path = self.volumes[mount["name"]]
        return path / mount["subPath"] if mount.get("subPath") else path

    def read(self, text: str) -> str:
        """Names of pods and services, with a port, as addresses of this machine."""
        return self.cluster.network.read(text, self.namespace)


def _secret(item: Object) -> dict[str, str]:
    data = {k: base64.b64decode(v).decode() for k, v in (item.get("data") or {}).items()}
    return data | (item.get("stringData") or {})
