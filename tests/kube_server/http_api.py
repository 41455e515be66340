"""The HTTP side of the test server: paths, verbs, watches, logs."""

from __future__ import annotations

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import yaml

from kube_server.access import Request, allowed, demand
from kube_server.admission import used
from kube_server.kinds import (
    KINDS,
    ApiError,
    Kind,
    Object,
    find_kind,
    invalid,
    json_patched,
    merged,
)
from kube_server.store import selected

if TYPE_CHECKING:
    from kube_server.server import KubeServer

PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<ns>[^/]+)(?=/))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>.+))?"
)
BOOKMARK_SECONDS = 1.0
REVIEWS = "selfsubjectaccessreviews"


class Server(ThreadingHTTPServer):
    """Knows the cluster that it speaks for."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, port: int, cluster: KubeServer) -> None:
        self.cluster = cluster
        self.stopping = threading.Event()
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that was cut off is what tests do, and no news."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server  # type: ignore[assignment]

    def setup(self) -> None:
        super().setup()
        self.server.cluster.faults.opened(self.connection)

    def finish(self) -> None:
        self.server.cluster.faults.closed(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PUT(self) -> None:
        self._serve("PUT")

    def do_PATCH(self) -> None:
        self._serve("PATCH")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        try:
            self.server.cluster.faults.meet(f"{method} {self.path}", self.server.stopping)
            self._route(method, raw)
        except ApiError as error:
            self._send(error.code, error.status(), error.headers)

    def _send(self, code: int, body: Any, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def _route(self, method: str, raw: bytes) -> None:
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        user = self._user()
        if url.path in ("/version", "/livez", "/readyz", "/healthz", "/api", "/apis"):
            self._send(200, _discovery(url.path))
            return
        if groups := re.fullmatch(r"/(?:api/(v1)|apis/([^/]+)/([^/]+))", url.path):
            self._send(200, _resources(groups[2] or "", groups[1] or groups[3]))
            return
        found = PATH.fullmatch(url.path)
        if found is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        group, version = found["group"] or "", found["core"] or found["version"]
        if found["plural"] == REVIEWS and method == "POST":
            self._send(201, self._review(user, _body(raw, self.headers.get("Content-Type"))))
            return
        kind = find_kind(group, version, found["plural"])
        if kind is None:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        call = _Call(self, user, kind, found["ns"] or "", found["name"] or "", found["sub"] or "",
                     query)  # fmt: skip
        call.answer(method, raw)

    def _user(self) -> str:
        cluster = self.server.cluster
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given not in cluster.tokens:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return cluster.tokens[given]

    def _review(self, user: str, body: Object) -> Object:
        wanted = body["spec"]["resourceAttributes"]
        plural = wanted.get("resource", "")
        if wanted.get("subresource"):
            plural += "/" + wanted["subresource"]
        request = Request(user, wanted["verb"], wanted.get("group", ""), plural,
                          wanted.get("namespace", ""), wanted.get("name", ""))  # fmt: skip
        granted = allowed(self.server.cluster.store, request)
        return body | {"status": {"allowed": granted}}


class _Call:
    """One request about objects of a kind."""

    def __init__(
        self,
        handler: Handler,
        user: str,
        kind: Kind,
        namespace: str,
        name: str,
        sub: str,
        query: dict[str, str],
    ) -> None:
        self.handler, self.user, self.kind = handler, user, kind
        self.namespace, self.name, self.sub, self.query = namespace, name, sub, query
        self.cluster = handler.server.cluster
        self.store = self.cluster.store
        self.dry = query.get("dryRun") == "All"

    def answer(self, method: str, raw: bytes) -> None:
        """Check the right, then do it."""
        watch = self.query.get("watch") in ("1", "true", "True")
        verb = {
            "GET": "watch" if watch else "get" if self.name else "list",
            "POST": "create",
            "PUT": "update",
            "PATCH": "patch",
            "DELETE": "delete" if self.name else "deletecollection",
        }[method]
        plural = f"{self.kind.plural}/{self.sub}" if self.sub else self.kind.plural
        request = Request(self.user, verb, self.kind.group, plural, self.namespace, self.name)
        self.cluster.asked.append(request)
        demand(self.store, request)
        if self.sub == "log":
            self._log()
        elif watch:
            self._watch()
        elif method == "GET":
            self._read()
        elif method == "POST":
            self._create(_body(raw, self.handler.headers.get("Content-Type")))
        elif method in ("PUT", "PATCH"):
            self._change(method, raw)
        elif self.name:
            self._delete(_body(raw, None) if raw else {})
        else:
            raise ApiError(405, "MethodNotAllowed", "the server does not allow this method")

    def _read(self) -> None:
        if self.name:
            self.handler._send(
                200, self._shown(self.store.get(self.kind, self.namespace, self.name))
            )
            return
        with self.store.changed:
            items = self.store.list(
                self.kind,
                self.namespace,
                self.query.get("labelSelector", ""),
                self.query.get("fieldSelector", ""),
            )
            version = self.store.version
        self.handler._send(
            200,
            {
                "kind": f"{self.kind.kind}List",
                "apiVersion": self.kind.api_version,
                "metadata": {"resourceVersion": str(version)},
                "items": [self._shown(item) for item in items],
            },
        )

    def _shown(self, item: Object) -> Object:
        if self.kind.plural == "resourcequotas":
            hard = item["spec"].get("hard", {})
            have = used(self.store, item["metadata"]["namespace"], hard)
            item["status"] = {"hard": hard, "used": {k: f"{v:g}" for k, v in have.items()}}
        return item

    def _create(self, body: Object) -> None:
        if self.sub == "eviction":
            self.cluster.evict(self.name, self.namespace)
            self.handler._send(201, {"kind": "Status", "status": "Success"})
            return
        self._strict(body)
        self.handler._send(201, self.store.create(self.kind, self.namespace, body, self.dry))

    def _strict(self, body: Object) -> None:
        wrong = [
            (body.get("kind"), self.kind.kind),
            (body.get("apiVersion"), self.kind.api_version),
        ]
        for given, wanted in wrong:
            if given not in (None, wanted):
                raise ApiError(400, "BadRequest", f"{given} in the body, {wanted} in the path")
        if self.query.get("fieldValidation", "Warn") == "Strict":
            for problem in self.cluster.schema_problems(body):
                raise ApiError(400, "BadRequest", f"strict decoding error: {problem}")

    def _change(self, method: str, raw: bytes) -> None:
        kind = (self.handler.headers.get("Content-Type") or "").partition(";")[0]
        if method == "PATCH" and kind == "application/apply-patch+yaml":
            body = yaml.safe_load(raw)
            self._strict(body)
            if self.store.find(self.kind.plural, self.namespace, self.name) is None:
                created = self.store.create(self.kind, self.namespace, body, self.dry)
                self.handler._send(201, created)
                return
        elif method == "PATCH" and kind not in (
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
            "application/json-patch+json",
        ):
            raise ApiError(415, "UnsupportedMediaType", f"the body of the request was in {kind}")
        else:
            body = json.loads(raw)

        def change(item: Object) -> Object:
            if method == "PUT":
                fresh = body
            elif isinstance(body, list):
                fresh = json_patched(item, body)
            else:
                fresh = merged(item, body)
            if self.sub == "status":
                return item | {"status": fresh.get("status", {})}
            if "status" in item:
                fresh = fresh | {"status": item["status"]}
            return fresh

        done = self.store.update(
            self.kind, self.namespace, self.name, change, dry=self.dry, checked=True
        )
        self.handler._send(200, done)

    def _delete(self, options: Object) -> None:
        item = self.store.get(self.kind, self.namespace, self.name)
        uid = (options.get("preconditions") or {}).get("uid")
        if uid not in (None, item["metadata"]["uid"]):
            raise ApiError(
                409, "Conflict", f"Precondition failed: UID in precondition: {uid}, UID in object"
            )
        if self.dry:
            self.handler._send(200, item)
            return
        grace = options.get("gracePeriodSeconds", self.query.get("gracePeriodSeconds"))
        propagation = options.get("propagationPolicy") or self.query.get("propagationPolicy") or ""
        if propagation not in ("", "Foreground", "Background", "Orphan"):
            raise invalid(self.kind, self.name, f"propagationPolicy: {propagation!r}")
        done = self.store.delete(
            self.kind,
            self.namespace,
            self.name,
            propagation,
            None if grace is None else int(grace),
        )
        self.handler._send(200, done)

    def _start_stream(self, content: str) -> None:
        handler = self.handler
        handler.send_response(200)
        handler.send_header("Content-Type", content)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()

    def _chunk(self, data: bytes) -> None:
        while self.cluster.faults.silent.is_set():
            self.handler.server.stopping.wait(0.05)
        self.handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.handler.wfile.flush()

    def _watch(self) -> None:
        """``ADDED``, ``MODIFIED``, ``DELETED``, ``BOOKMARK`` and ``ERROR``, one JSON a line."""
        labels, fields = self.query.get("labelSelector", ""), self.query.get("fieldSelector", "")
        if self.name:
            fields = f"metadata.name={self.name}"
        version = int(self.query.get("resourceVersion") or 0)
        end = time.monotonic() + float(self.query.get("timeoutSeconds") or 3600)
        bookmarks = self.query.get("allowWatchBookmarks") in ("1", "true", "True")
        known: set[str] = set()
        news: list[tuple[str, Object]] = []
        with self.store.changed:
            present = self.store.list(self.kind, self.namespace, labels, fields)
            if not version:  # first all that is there, then what happens
                news, version = [("ADDED", item) for item in present], self.store.version
            else:
                known = {item["metadata"]["uid"] for item in present}
        self._start_stream("application/json")
        marked = time.monotonic()
        while not self.handler.server.stopping.is_set() and time.monotonic() < end:
            for word, item in news:
                self._tell(word, item, labels, fields, known)
            if bookmarks and time.monotonic() - marked > BOOKMARK_SECONDS:
                marked = time.monotonic()
                about = {"resourceVersion": str(version)}
                self._line("BOOKMARK", {"kind": self.kind.kind,
                                        "apiVersion": self.kind.api_version,
                                        "metadata": about})  # fmt: skip
            with self.store.changed:
                if self.store.version == version:
                    self.store.changed.wait(0.2)
                try:
                    version, news = self.store.since(self.kind, self.namespace, version)
                except ApiError as error:
                    self._line("ERROR", error.status())
                    break
        self._chunk(b"")

    def _tell(self, word: str, item: Object, labels: str, fields: str, known: set[str]) -> None:
        """One event, as it looks through the selectors."""
        uid, chosen = item["metadata"]["uid"], selected(item, labels, fields)
        if word == "DELETED":
            if uid not in known and not chosen:
                return
            known.discard(uid)
        elif chosen:
            word = "MODIFIED" if uid in known and word != "ADDED" else word
            word = "ADDED" if uid not in known else word
            known.add(uid)
        elif uid in known:
            word = "DELETED"
            known.discard(uid)
        else:
            return
        self._line(word, item)

    def _line(self, word: str, item: Object) -> None:
        self._chunk(json.dumps({"type": word, "object": item}).encode() + b"\n")

    def _log(self) -> None:
        pod = self.store.get(self.kind, self.namespace, self.name)
        names = [container["name"] for container in pod["spec"]["containers"]]
        every = names + [c["name"] for c in pod["spec"].get("initContainers") or []]
        container = self.query.get("container") or names[0]
        if len(names) > 1 and "container" not in self.query:
            raise ApiError(
                400, "BadRequest",
                f"a container name must be specified for pod {self.name}, choose one of: {names}",
            )  # fmt: skip
        if container not in every:
            raise ApiError(
                400, "BadRequest", f"container {container} is not valid for pod {self.name}"
            )
        log = self.cluster.kubelet.log(pod, container)
        if log is None:
            raise ApiError(
                400, "BadRequest",
                f'container "{container}" in pod "{self.name}" is waiting to start: '
                f"{_waiting(pod, container)}",
            )  # fmt: skip
        follow = self.query.get("follow") in ("1", "true", "True")
        stamps = self.query.get("timestamps") in ("1", "true", "True")
        since = self.query.get("sinceTime", "")
        self._start_stream("text/plain")
        for stamp, text in log.lines(follow, self.handler.server.stopping):
            if stamp >= since:
                self._chunk((f"{stamp} {text}\n" if stamps else f"{text}\n").encode())
        self._chunk(b"")


def _waiting(pod: Object, container: str) -> str:
    statuses = pod.get("status", {})
    for status in [
        *(statuses.get("containerStatuses") or []),
        *(statuses.get("initContainerStatuses") or []),
    ]:
        if status["name"] == container:
            return (status.get("state") or {}).get("waiting", {}).get("reason", "PodInitializing")
    return "ContainerCreating"


def _body(raw: bytes, content: str | None) -> Object:
    if content and content.partition(";")[0] in ("application/yaml", "text/yaml"):
        body = yaml.safe_load(raw)
    else:
        try:
            body = json.loads(raw)
        except json.JSONDecodeError as error:
            raise ApiError(400, "BadRequest", f"the body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise ApiError(400, "BadRequest", "the body is no object")
    return body


def _discovery(path: str) -> Object:
    if path == "/version":
        return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = sorted({(kind.group, kind.version) for kind in KINDS if kind.group})
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [
                {
                    "name": group,
                    "versions": [{"groupVersion": f"{group}/{version}", "version": version}],
                    "preferredVersion": {"groupVersion": f"{group}/{version}", "version": version},
                }
                for group, version in groups
            ],
        }
    return {"status": "ok"}


def _resources(group: str, version: str) -> Object:
    return {
        "kind": "APIResourceList",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": [
            {
                "name": kind.plural,
                "singularName": kind.kind.lower(),
                "kind": kind.kind,
                "namespaced": kind.namespaced,
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            }
            for kind in KINDS
            if (kind.group, kind.version) == (group, version)
        ],
    }
