"""An API server asked whether it would take an object: server-side dry run, strictly validated.

Nothing is stored. Admission runs as for the real request: Pod Security, quota, limits, accounts,
priority classes, webhooks. Kinds are found by the server's own discovery, so that custom resources
work too.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any, NamedTuple

from interloom.cluster.api import new_client
from interloom.cluster.rendered import Manifest
from interloom.errors import InterloomError

MANAGER = "interloom-preflight"
SECONDS = 30.0


class Answer(NamedTuple):
    """What the server said."""

    code: int
    body: dict[str, Any]

    @property
    def taken(self) -> bool:
        return self.code < 300

    @property
    def message(self) -> str:
        """The server's own words about a refusal."""
        return self.body.get("message") or f"status {self.code}"


class DryRun:
    """A cluster, of which things are read and nothing is changed.

    Raises:
        InterloomError: no access to a cluster, or it does not answer.
    """

    def __init__(self, context: str) -> None:
        self._client = new_client(context)
        self.address: str = self._client.configuration.host
        self._kinds: dict[str, dict[str, tuple[str, bool]]] = {}

    @cached_property
    def version(self) -> str:
        """Of the API server, as in ``v1.34.1``."""
        return str(self._ask("GET", "/version").body.get("gitVersion", "unknown"))

    def get(self, api_version: str, kind: str, namespace: str, name: str = "") -> Answer:
        """One object, or without a name the list of all."""
        return self._ask("GET", self._path(api_version, kind, namespace, name))

    def apply(self, manifest: Manifest) -> Answer:
        """Would ``kubectl apply`` of this work?"""
        about = manifest["metadata"]
        path = self._path(
            manifest["apiVersion"], manifest["kind"], about.get("namespace", ""), about["name"]
        )
        query = {"force": "true"}
        return self._try("PATCH", path, manifest, "application/apply-patch+yaml", query)

    def create(self, manifest: Manifest, namespace: str) -> Answer:
        """Would a new object like this be let in?"""
        path = self._path(manifest["apiVersion"], manifest["kind"], namespace, "")
        return self._try("POST", path, manifest, "application/json", {})

    def _try(
        self, method: str, path: str, body: Manifest, content: str, query: dict[str, str]
    ) -> Answer:
        asked = query | {"dryRun": "All", "fieldManager": MANAGER, "fieldValidation": "Strict"}
        return self._ask(method, path, body, content, asked)

    def _path(self, api_version: str, kind: str, namespace: str, name: str) -> str:
        prefix = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        if api_version not in self._kinds:
            found = self._ask("GET", prefix).body.get("resources", [])
            self._kinds[api_version] = {
                item["kind"]: (item["name"], item["namespaced"])
                for item in found
                if "/" not in item["name"]
            }
        if kind not in self._kinds[api_version]:
            raise InterloomError(f"the cluster at {self.address} knows no {kind} of {api_version}")
        plural, namespaced = self._kinds[api_version][kind]
        space = f"/namespaces/{namespace}" if namespaced else ""
        return f"{prefix}{space}/{plural}" + (f"/{name}" if name else "")

    def _ask(
        self,
        method: str,
        path: str,
        body: Manifest | None = None,
        content: str = "application/json",
        query: dict[str, str] | None = None,
    ) -> Answer:
        import urllib3

        request = self._client.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json", "Content-Type": content},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            answer = self._client.call_api(*request, _request_timeout=(10.0, SECONDS))
            text = (answer.read() or b"").decode("utf-8", errors="replace")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            reason = str(error).rpartition(": ")[2][:200]
            raise InterloomError(
                f"the API server at {self.address} does not answer: {reason}"
            ) from None
        try:
            said = json.loads(text)
        except json.JSONDecodeError:
            said = {"message": text[:300]}
        if answer.status == 401:
            raise InterloomError(
                f"the API server at {self.address} does not know us (401): the credentials of the "
                "kubeconfig are missing or have expired"
            )
        return Answer(answer.status, said)
