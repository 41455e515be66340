"""Names of pods and Services as addresses of this machine."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from typing import TYPE_CHECKING

from kube_server.kinds import Object, labels_match

if TYPE_CHECKING:
    from kube_server.server import KubeServer

ADDRESS = re.compile(r"(?<![\w.-])([a-z0-9](?:[-a-z0-9.]*[a-z0-9])?):(\d{2,5})(?!\d)")


class Network:
    """Ports of this machine that stand for ``name:port`` in the cluster."""

    def __init__(self, cluster: KubeServer) -> None:
        self.cluster = cluster
        self._lock = threading.Lock()
        self._pods: dict[str, int] = {}
        self._services: dict[tuple[str, str, int], int] = {}
        self._stop = threading.Event()

    def read(self, text: str, namespace: str) -> str:
        """``text`` with the addresses of the cluster replaced; others stay."""

        def local(found: re.Match[str]) -> str:
            port = self._port(found[1], int(found[2]), namespace)
            return found[0] if port is None else f"127.0.0.1:{port}"

        return ADDRESS.sub(local, text)

    def close(self) -> None:
        """End all forwarding."""
        self._stop.set()

    def _port(self, host: str, port: int, namespace: str) -> int | None:
        first, *rest = host.split(".")
        store = self.cluster.store
        if rest and rest[-1] not in ("local", "svc"):  # POD.SERVICE
            if store.find("services", namespace, rest[0]) is None:
                return None
            with self._lock:
                return self._pods.setdefault(f"{host}:{port}", self.cluster.free_port())
        service = store.find("services", rest[0] if rest else namespace, first)
        if service is None or service["spec"].get("clusterIP") == "None":
            return None
        return self._forwarded(service, port)

    def _forwarded(self, service: Object, port: int) -> int:
        about = service["metadata"]
        key = (about["namespace"], about["name"], port)
        with self._lock:
            if key not in self._services:
                listener = socket.create_server(("127.0.0.1", 0))
                self._services[key] = listener.getsockname()[1]
                threading.Thread(
                    target=self._forward, args=(listener, service, port), daemon=True
                ).start()
            return self._services[key]

    def _forward(self, listener: socket.socket, service: Object, port: int) -> None:
        """Hand connections to the ready pods of a Service in turn."""
        wanted = next(p for p in service["spec"]["ports"] if p["port"] == port)
        target = int(wanted.get("targetPort", port))
        listener.settimeout(0.5)
        turn = 0
        while not self._stop.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            ports = self._endpoints(service, target)
            if not ports:
                client.close()  # connection refused, as near as that can be had
                continue
            turn += 1
            try:
                server = socket.create_connection(("127.0.0.1", ports[turn % len(ports)]))
            except OSError:
                client.close()
                continue
            for pair in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=pair, daemon=True).start()
        listener.close()

    def _endpoints(self, service: Object, target: int) -> list[int]:
        selector = ",".join(f"{k}={v}" for k, v in service["spec"]["selector"].items())
        pods = self.cluster.store.all("pods", service["metadata"]["namespace"])
        places = [
            self.cluster.kubelet.places.get(pod["metadata"]["uid"])
            for pod in pods
            if labels_match(pod["metadata"].get("labels") or {}, selector) and _ready(pod)
        ]
        return [place.ports[target] for place in places if place and target in place.ports]


def _ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
