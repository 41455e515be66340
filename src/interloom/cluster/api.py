"""Calls to the Kubernetes API in one namespace: objects as plain dictionaries, as the API has them.

The official client brings address, credentials, TLS and proxies. What is added here: an API server
that is away is waited for, a refusal says which verb on which resource it was about, and watches
and logs are streams that their readers resume.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenacity import RetryCallState, retry_if_exception_type, wait_exponential
from tenacity import Retrying as Repeat

from interloom.cluster.settings import ClusterSettings
from interloom.errors import InterloomError

Object = dict[str, Any]
CALL_SECONDS = 60.0
"""Longest single call; what takes longer is asked again."""
COLLECT_SECONDS, COLLECT_LOOK_SECONDS = 60.0, 0.25
"""How long what has lost its owner may stay, and between looks at it."""
BUSY = frozenset([429, 500, 502, 503, 504])
"""Answers of a server that is starting, overloaded or losing its own store."""


@dataclass(frozen=True)
class Resource:
    """A kind of object by its place in the API."""

    prefix: str
    plural: str

    @property
    def qualified(self) -> str:
        """As roles and messages name it: ``jobs.batch``."""
        parts = self.prefix.split("/")
        return f"{self.plural}.{parts[2]}" if parts[1] == "apis" else self.plural


JOBS = Resource("/apis/batch/v1", "jobs")
PODS = Resource("/api/v1", "pods")
EVENTS = Resource("/api/v1", "events")
SERVICES = Resource("/api/v1", "services")
CONFIG_MAPS = Resource("/api/v1", "configmaps")
DEPLOYMENTS = Resource("/apis/apps/v1", "deployments")
AUTOSCALERS = Resource("/apis/autoscaling/v2", "horizontalpodautoscalers")


class Refusal(Exception):
    """An answer other than success; ``message`` has the server's own words."""

    def __init__(self, code: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.retry_after = retry_after

    @property
    def quota(self) -> bool:
        """Whether a quota is used up, which may change by waiting."""
        return self.code == 403 and "exceeded quota" in self.message


class AwayError(Exception):
    """The API server cannot be reached, is busy, or has gone silent: try again."""

    def __init__(self, why: str, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class GoneError(Exception):
    """The version that a watch asked for is forgotten (410): list anew."""


class Api:
    """The API server, seen from one namespace.

    Args:
        say: told, once each, when the server goes away and when it is back.
    """

    def __init__(self, options: ClusterSettings, say: Callable[[str], None]) -> None:
        self.namespace = options.namespace
        self.silence = options.silence_seconds
        self._patience = 60 * options.start_minutes
        self._later_patience = 60 * options.deadline_minutes
        self._say = say
        self._away_since: float | None = None
        self._lock = threading.Lock()
        self._client = new_client(options.context)
        self.address: str = self._client.configuration.host

    def get(self, resource: Resource, name: str) -> Object | None:
        """One object, or none."""
        try:
            return self._call("get", resource, "GET", name)
        except Refusal as refusal:
            if refusal.code == 404:
                return None
            raise

    def list(
        self, resource: Resource, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], str]:
        """Objects, and the version from which a watch goes on."""
        found = self._call("list", resource, "GET", "", query=_selectors(labels, fields))
        return found["items"], found["metadata"]["resourceVersion"]

    def create(self, resource: Resource, body: Object) -> Object:
        """A new object as it is stored; ``Refusal`` 409 if the name is taken."""
        return self._call("create", resource, "POST", "", body=body)

    def ensure(self, resource: Resource, body: Object) -> Object:
        """An object of this name and owner: a new one, or the one that is there.

        That of an owner that is gone is waited out: it is deleted soon after its owner, and would
        be taken away from under the new one.

        Raises:
            InterloomError: it is refused, with the server's words; or the name belongs to others.
        """
        name, owners = body["metadata"]["name"], body["metadata"]["ownerReferences"]
        end = time.monotonic() + COLLECT_SECONDS
        while True:
            try:
                return self.create(resource, body)
            except Refusal as refusal:
                if refusal.code != 409:
                    raise InterloomError(f"{body['kind']} {name}: {refusal.message}") from None
            found = self.get(resource, name)
            if found is None:
                continue
            about = found["metadata"]
            if _uids(about.get("ownerReferences")) == _uids(owners):
                return found
            if time.monotonic() > end:
                raise InterloomError(
                    f"{body['kind']} {name} in namespace {self.namespace} belongs to something "
                    "else and does not go: delete it"
                )
            time.sleep(COLLECT_LOOK_SECONDS)

    def patch(self, resource: Resource, name: str, body: Object) -> Object:
        """Merge ``body`` into an object."""
        return self._call(
            "patch", resource, "PATCH", name, body=body, content="application/merge-patch+json"
        )

    def delete(self, resource: Resource, name: str, uid: str = "") -> None:
        """Delete in the foreground: the object stays until all that it owns is gone."""
        options: Object = {"propagationPolicy": "Foreground"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self._call("delete", resource, "DELETE", name, body=options)
        except Refusal as refusal:
            if refusal.code not in (404, 409):  # gone, or another object by now
                raise

    def watch(
        self, resource: Resource, version: str, labels: str = "", fields: str = ""
    ) -> Iterator[tuple[str, Object]]:
        """What happens to objects after ``version``, as ``(type, object)``, for a while.

        Raises:
            GoneError: the version is too old.
            AwayError: the connection is lost, or silent for too long (bookmarks would come).
        """
        query = _selectors(labels, fields) | {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, int(self.silence))),
        }
        for line in self._stream("watch", resource, "", query):
            event = json.loads(line)
            if event["type"] == "ERROR":
                status = event["object"]
                if status.get("code") == 410:
                    raise GoneError(status.get("message", ""))
                raise AwayError(status.get("message", "the watch ended"))
            yield event["type"], event["object"]

    def log(self, pod: str, container: str, since: str) -> Iterator[str]:
        """Lines of a container, each with its time before it, until it ends.

        Raises:
            AwayError: as for ``watch``.
            Refusal: no such pod (404), or the container has not started (400).
        """
        query = {"container": container, "follow": "true", "timestamps": "true"}
        if since:
            query["sinceTime"] = since
        yield from self._stream("get", Resource(PODS.prefix, "pods/log"), pod, query)

    def back(self) -> None:
        """The server has answered."""
        with self._lock:
            self._patience = self._later_patience
            away, self._away_since = self._away_since, None
        if away is not None:
            self._say(f"the API server answers again after {time.monotonic() - away:.0f} s")

    def away(self, why: Exception) -> float:
        """The server has not answered: the seconds that this lasts.

        Raises:
            InterloomError: it has lasted too long.
        """
        with self._lock:
            first = self._away_since is None
            self._away_since = self._away_since or time.monotonic()
            lasted = time.monotonic() - self._away_since
        if first:
            self._say(f"the API server at {self.address} does not answer ({why}): waiting for it")
        if lasted > self._patience:
            raise InterloomError(
                f"the API server at {self.address} has not answered for {lasted / 60:.0f} minutes: "
                f"{why}"
            )
        return lasted

    def _call(
        self,
        verb: str,
        resource: Resource,
        method: str,
        name: str,
        *,
        body: Object | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> Any:
        """One call, repeated while the server is away."""

        import urllib3

        def once() -> Any:
            try:
                answer = self._send(
                    verb, resource, method, name, query or {}, body, content, CALL_SECONDS
                )
                try:
                    data = answer.read()
                except (urllib3.exceptions.HTTPError, OSError) as error:
                    raise AwayError(_short(error)) from None
            except AwayError as error:
                self.away(error)
                raise
            self.back()
            return json.loads(data)

        repeat = Repeat(retry=retry_if_exception_type(AwayError), wait=_pause, reraise=True)
        return repeat(once)

    def _stream(
        self, verb: str, resource: Resource, name: str, query: Mapping[str, str]
    ) -> Iterator[str]:
        """Lines of an answer as they come; bytes may be cut anywhere between them."""
        import urllib3

        answer = self._send(
            verb, resource, "GET", name, query, None, "application/json", self.silence + 10
        )
        self.back()
        rest = b""
        try:
            for chunk in answer.response.stream(amt=None, decode_content=False):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line.decode("utf-8", errors="replace")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise AwayError(_short(error)) from None
        finally:
            answer.response.close()

    def _send(
        self,
        verb: str,
        resource: Resource,
        method: str,
        name: str,
        query: Mapping[str, str],
        body: Object | None,
        content: str,
        timeout: float,
    ) -> Any:
        import urllib3

        plural, _, sub = resource.plural.partition("/")
        path = f"{resource.prefix}/namespaces/{self.namespace}/{plural}"
        path += f"/{name}" if name else ""
        path += f"/{sub}" if sub else ""
        try:
            request = self._client.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params={"Accept": "application/json", "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = self._client.call_api(*request, _request_timeout=(10.0, timeout))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise AwayError(_short(error)) from None
        if answer.status < 300:
            return answer
        raise self._refused(answer, verb, resource)

    def _refused(self, answer: Any, verb: str, resource: Resource) -> Exception:
        """The error for an answer other than success."""
        code = answer.status
        text = (answer.read() or b"").decode("utf-8", errors="replace")
        try:
            status = json.loads(text)
            message, reason = status.get("message", text), status.get("reason", "")
        except json.JSONDecodeError:
            message, reason = text, ""
        after = answer.headers.get("Retry-After") or "0"
        wait = float(after) if after.isdigit() else 0.0
        what = f"{verb} {resource.plural}"
        if code in BUSY:
            return AwayError(f"{code} for {what}: {message}", wait)
        if code == 410:
            return GoneError(message)
        refusal = Refusal(code, reason, message, wait)
        if code == 401:
            return InterloomError(
                f"the API server at {self.address} does not know us (401): the credentials of the "
                "kubeconfig are missing or have expired"
            )
        if code == 403 and not refusal.quota:
            qualified = resource.qualified
            return InterloomError(
                f"forbidden: this account may not {verb} {qualified} in namespace "
                f"{self.namespace}: grant the verb in its Role (the server says: {message})"
            )
        if code == 404 and verb == "create":
            return InterloomError(
                f"cannot create {resource.plural}: {message} (cluster.namespace = {self.namespace})"
            )
        return refusal


def new_client(context: str) -> Any:
    """The official client: by the kubeconfig, or in a pod by its service account."""
    from kubernetes import client, config

    settings = client.Configuration()
    settings.retries = False  # this module repeats, and says so
    in_pod = "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ
    try:
        if in_pod and not context:
            config.load_incluster_config(client_configuration=settings)
            return client.ApiClient(configuration=settings)
        return config.new_client_from_config(
            config_file=os.environ.get("KUBECONFIG") or None,
            context=context or None,
            client_configuration=settings,
        )
    except config.ConfigException as error:
        raise InterloomError(
            f"no access to a Kubernetes cluster: {error} (give a kubeconfig in KUBECONFIG, and its "
            "context in cluster.context)"
        ) from None


def _uids(owners: Sequence[Object] | None) -> set[str]:
    return {owner["uid"] for owner in owners or ()}


def _selectors(labels: str, fields: str) -> dict[str, str]:
    query = {"labelSelector": labels, "fieldSelector": fields}
    return {name: value for name, value in query.items() if value}


_backoff = wait_exponential(multiplier=0.5, max=15)


def _pause(state: RetryCallState) -> float:
    """Exponential back-off, or as long as the server asks for."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, AwayError) else 0.0
    return max(asked, _backoff(state))


def _short(error: Exception) -> str:
    """The reason at the bottom of an error of urllib3."""
    return str(getattr(error, "reason", None) or error).rpartition(": ")[2][:200]
