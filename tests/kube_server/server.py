"""A Kubernetes API server of the tests' own, with controllers and a node that runs containers.

It speaks the documented API over HTTP and *executes*: the containers of pods are processes of this
machine (``place.py`` says how their paths and addresses are made to fit). What it leaves out:
ReplicaSets, admission plug-ins but quota, images (an image is a name with environment variables).

    with KubeServer(tmp_path) as cluster:
        cluster.images["interloom:1"] = {"PATH": ...}
        cluster.namespace("interloom")
        client_config = cluster.kubeconfig()
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import yaml

from kube_server.access import ADMIN, Request
from kube_server.controllers import Controllers
from kube_server.faults import Faults
from kube_server.http_api import Server
from kube_server.kinds import ApiError, Object, kind_named
from kube_server.kubelet import Kubelet, set_condition
from kube_server.network import Network
from kube_server.store import Store

PODS = kind_named("pods")


class KubeServer:
    """The cluster. Everything that a test may do to it is a method."""

    def __init__(
        self, root: Path, *, cpu: str = "64", memory: str = "256Gi", gpus: int = 8
    ) -> None:
        self.root = root
        self.store = Store()
        self.faults = Faults()
        self.network = Network(self)
        self.kubelet = Kubelet(self)
        self.controllers = Controllers(self)
        self.images: dict[str, dict[str, str]] = {}
        """What can be pulled: names, with the environment that is baked in."""
        self.tokens: dict[str, str] = {ADMIN: ADMIN}
        """Users by their bearer token."""
        self.asked: list[Request] = []
        """Every request about objects, in the words of roles."""
        self.claims: dict[str, Path] = {}
        """Folders that stand for claims; others lie under ``root/claims``."""
        self.schema_problems: Callable[[Object], list[str]] = lambda _: []
        """What is wrong with an object when strict validation is asked for."""
        self.backoff_seconds = 0.2
        """Before the first replacement of a failed pod (ten in a real cluster), then doubled."""
        self.collect_seconds = 0.0
        """How long what has lost its owner stays before it is collected."""
        self._taken: set[int] = set()
        self.port = self.free_port()
        self._http: Server | None = None
        node = {
            "metadata": {"name": "node-1", "labels": {"kubernetes.io/hostname": "node-1"}},
            "spec": {},
            "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": "110",
                                       "ephemeral-storage": "500Gi",
                                       "nvidia.com/gpu": str(gpus)}},
        }  # fmt: skip
        self.store.create(kind_named("nodes"), "", node)
        self.namespace("default")

    def __enter__(self) -> Self:
        self.listen()
        self.kubelet.start()
        self.controllers.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.controllers.stop()
        self.kubelet.stop()
        self.network.close()
        self.refuse()

    def listen(self) -> None:
        """Answer requests, on the same port as before."""
        self._http = Server(self.port, self)
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def refuse(self) -> None:
        """An outage of the API: connections are cut, and new ones refused, until ``listen``.

        Pods run on, and the controllers work, as they do on other machines of a real cluster.
        """
        if self._http is not None:
            self._http.stopping.set()
            self._http.shutdown()
            self._http.server_close()
            self.faults.drop()
            self._http = None

    def namespace(self, name: str) -> None:
        """Make a namespace."""
        self.create("namespaces", "", {"metadata": {"name": name}})

    def create(self, plural: str, namespace: str, item: Object) -> Object:
        """Make an object, as an administrator would with kubectl."""
        return self.store.create(kind_named(plural), namespace, item)

    def kubeconfig(self, user: str = ADMIN, namespace: str = "default") -> Path:
        """A file to reach this server with, as ``user``: ``admin``, or of a service account
        (``system:serviceaccount:NAMESPACE:NAME``), whose roles then decide."""
        token = ADMIN if user == ADMIN else f"token-of-{user}"
        self.tokens[token] = user
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [
                {
                    "name": "test",
                    "context": {"cluster": "test", "user": "test", "namespace": namespace},
                }
            ],
        }
        path = self.root / f"kubeconfig-{token.replace(':', '-')}"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    def claim(self, name: str) -> Path:
        """The folder that stands for a PersistentVolumeClaim."""
        return self.claims.setdefault(name, self.root / "claims" / name)

    def evict(self, name: str, namespace: str, reason: str = "EvictionByEvictionAPI") -> None:
        """Evict a pod: the API's eviction, preemption (``PreemptionByScheduler``), or a taint of
        its node (``DeletionByTaintManager``). It has its grace period, and is gone then."""
        pod = self.store.get(PODS, namespace, name)
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": reason,
            "message": f"{reason}: the pod has to go",
        }
        set_condition(self.store, pod, condition)
        with suppress(ApiError):
            self.store.delete(PODS, namespace, name)

    def lose(self, name: str, namespace: str) -> None:
        """The pod's node goes silent: its containers are gone, and nobody says so. The pod is
        evicted, and does not end before the node is given up."""
        self.kubelet.lost.add(self.store.get(PODS, namespace, name)["metadata"]["uid"])
        self.evict(name, namespace, "DeletionByTaintManager")

    def give_up(self, name: str, namespace: str) -> None:
        """The node of a lost pod is deleted, and pods on it are collected."""

        def change(item: Object) -> None:
            item["status"]["phase"] = "Failed"

        self.store.update(PODS, namespace, name, change)

    def press(self, name: str, namespace: str) -> None:
        """The kubelet evicts a pod as its node is short of memory: it stays there, failed."""
        pod = self.store.get(PODS, namespace, name)
        text = "The node was low on resource: memory."
        condition = {"type": "DisruptionTarget", "status": "True",
                     "reason": "TerminationByKubelet", "message": text}  # fmt: skip
        set_condition(self.store, pod, condition)

        def change(item: Object) -> None:
            item["status"] |= {"phase": "Failed", "reason": "Evicted", "message": text}

        self.store.update(PODS, namespace, name, change)

    def log(self, pod: Object, container: str) -> str:
        """What a container has printed so far."""
        log = self.kubelet.log(pod, container)
        return log.text() if log else ""

    def free_port(self) -> int:
        """A port of this machine that was not given before."""
        while True:
            with socket.socket() as server:
                server.bind(("127.0.0.1", 0))
                port = server.getsockname()[1]
            if port not in self._taken:
                self._taken.add(port)
                return port


def interloom_image(*folders: Path) -> dict[str, str]:
    """The environment of an image with this repository's code, and further folders of modules."""
    import sys

    repository = Path(__file__).parent.parent.parent
    paths = [*folders, repository / "src", repository]
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "OMP_NUM_THREADS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
