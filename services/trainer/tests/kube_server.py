"""The part of kube-apiserver that the trainer speaks with: objects in memory, with its statuses, watches and refusals.

Bodies are as a kube-apiserver 1.35 gives them. There are no controllers: whoever tests says what they would have done, by the
same calls that they would make. The same tests run against a real one: see `cluster` in conftest.
"""

from __future__ import annotations

import copy
import json
import ssl
import threading
import time
import uuid
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]
GROUPS = {
    "jobs": "batch",
    "pods": "",
    "configmaps": "",
    "deployments": "apps",
    "millstreamloops": "millstream.dev",
    "trainjobs": "trainer.kubeflow.org",
    "rayjobs": "ray.io",
    "workflows": "argoproj.io",
}
KINDS = {
    "jobs": "Job",
    "pods": "Pod",
    "configmaps": "ConfigMap",
    "deployments": "Deployment",
    "millstreamloops": "MillstreamLoop",
    "trainjobs": "TrainJob",
    "rayjobs": "RayJob",
    "workflows": "Workflow",
}
USER = "system:serviceaccount:mill:trainer"


class KubeServer:
    """Serves on loopback until `stop`."""

    def __init__(self, namespace: str, tls: ssl.SSLContext | None = None) -> None:
        self.namespace = namespace
        self.objects: dict[tuple[str, str], Object] = {}
        self.refused: set[tuple[str, str]] = set()
        """(verb, resource) for which the caller has no right."""
        self.unknown: set[str] = set()
        """Resources that no CustomResourceDefinition has declared."""
        self.away = False
        """503 for everything, as while its etcd elects a leader."""
        self.requests: list[tuple[str, str]] = []
        """Verb and resource of each call, in order."""
        self.changed = threading.Condition()
        self.version = 100
        self.changes: list[tuple[int, str, str, Object]] = []
        """Version, resource, kind of change, object."""
        self.oldest = 100
        """Versions before it are forgotten: who watches from there is told 410."""
        handler = type("Handler", (Handler,), {"kube": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = False
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self._http.server_port}"
        self.stopping = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.stopping = True
        with self.changed:
            self.changed.notify_all()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def put(self, change: str, resource: str, found: Object) -> Object:
        """With `changed` held: keep the object as it now is, and tell who watches."""
        self.version += 1
        found["metadata"]["resourceVersion"] = str(self.version)
        key = (resource, found["metadata"]["name"])
        if change == "DELETED":
            self.objects.pop(key)
        else:
            self.objects[key] = found
        self.changes.append((self.version, resource, change, copy.deepcopy(found)))
        self.changed.notify_all()
        return found

    def forget_history(self) -> None:
        """As etcd's compaction does."""
        with self.changed:
            self.oldest = self.version


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kube: KubeServer

    def log_message(self, format: str, *args: Any) -> None:
        """Tests say what they want to say."""

    def do_GET(self) -> None:
        self._answer("get")

    def do_POST(self) -> None:
        self._answer("create")

    def do_PATCH(self) -> None:
        self._answer("patch")

    def do_DELETE(self) -> None:
        self._answer("delete")

    def _answer(self, verb: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        namespace, resource = parts[parts.index("namespaces") + 1 :][:2]
        name = [*parts[parts.index(resource) + 1 :], ""][0]  # `status` may follow
        if verb == "get" and not name:
            verb = "watch" if query.get("watch") in ("true", "True", "1") else "list"
        self.kube.requests.append((verb, resource))
        group = f"{resource}.{GROUPS[resource]}".rstrip(".")
        if str(self.headers.get("Authorization")).lower() != "bearer the-token":
            return self._refuse(401, "Unauthorized", "Unauthorized")
        if self.kube.away:
            return self._refuse(503, "ServiceUnavailable", "etcdserver: leader changed")
        if (verb, resource) in self.kube.refused:
            say = (
                f'User "{USER}" cannot {verb} resource "{resource}" in API group "{GROUPS[resource]}" in the namespace'
            )
            named = f' "{name}"' if name else ""
            return self._refuse(403, "Forbidden", f'{group}{named} is forbidden: {say} "{namespace}"')
        if resource in self.kube.unknown:
            return self._refuse(404, "NotFound", "the server could not find the requested resource")
        if namespace != self.kube.namespace:
            if verb == "create":
                return self._refuse(404, "NotFound", f'namespaces "{namespace}" not found')
            return self._list(resource, {"fieldSelector": "metadata.name=-"})
        if verb == "list":
            return self._list(resource, query)
        if verb == "watch":
            return self._watch(resource, query)
        with self.kube.changed:
            if verb == "create":
                name = body["metadata"]["name"]
                if (resource, name) in self.kube.objects:
                    return self._refuse(409, "AlreadyExists", f'{group} "{name}" already exists')
                return self._json(201, self.kube.put("ADDED", resource, _made(resource, namespace, body)))
            found = self.kube.objects.get((resource, name))
            if found is None:
                return self._refuse(404, "NotFound", f'{group} "{name}" not found')
            if verb == "patch":
                merged = _merged(found, body)
                if resource == "millstreamloops" and merged["spec"] != found["spec"]:
                    merged["metadata"] = merged["metadata"] | {"generation": found["metadata"]["generation"] + 1}
                # What changes nothing is no new version.
                changed = merged != found
                return self._json(200, self.kube.put("MODIFIED", resource, merged) if changed else found)
            if verb == "delete":
                self.kube.put("DELETED", resource, found)
                if resource == "pods":
                    return self._json(200, found)  # of what may take its time, the object
                self._collect(name)
                details = {"name": name, "group": GROUPS[resource], "kind": resource, "uid": found["metadata"]["uid"]}
                said = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
                return self._json(200, said)
        return self._json(200, found)

    def _collect(self, name: str) -> None:
        """The garbage collector's part: pods of a Job that is gone."""
        for pod in [one for (kind, _), one in self.kube.objects.items() if kind == "pods"]:
            if pod["metadata"]["labels"].get("batch.kubernetes.io/job-name") == name:
                self.kube.put("DELETED", "pods", pod)

    def _list(self, resource: str, query: dict[str, str]) -> None:
        with self.kube.changed:
            found = [one for (kind, _), one in self.kube.objects.items() if kind == resource and _matches(one, query)]
            metadata = {"resourceVersion": str(self.kube.version)}
            version = f"{GROUPS[resource]}/v1".removeprefix("/")
            self._json(
                200, {"kind": f"{KINDS[resource]}List", "apiVersion": version, "metadata": metadata, "items": found}
            )

    def _watch(self, resource: str, query: dict[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        since, ends = (
            int(query.get("resourceVersion", "0")),
            time.monotonic() + float(query.get("timeoutSeconds", "60")),
        )
        try:
            with self.kube.changed:
                if since < self.kube.oldest:
                    gone = _status(410, "Expired", f"too old resource version: {since} ({self.kube.oldest})")
                    self._chunk({"type": "ERROR", "object": gone})
                while not self.kube.stopping and not self.kube.away and (left := ends - time.monotonic()) > 0:
                    for version, kind, change, found in self.kube.changes:
                        if version > since and kind == resource and _matches(found, query):
                            self._chunk({"type": change, "object": found})
                    since = self.kube.version
                    self.kube.changed.wait(left)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:  # who watched has seen enough
            self.close_connection = True

    def _chunk(self, event: Object) -> None:
        line = json.dumps(event).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()

    def _refuse(self, code: int, reason: str, message: str) -> None:
        self._json(code, _status(code, reason, message))

    def _json(self, code: int, said: Object) -> None:
        raw = json.dumps(said).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def _status(code: int, reason: str, message: str) -> Object:
    failure = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message}
    return failure | {"reason": reason, "details": {}, "code": code}


def _made(resource: str, namespace: str, body: Object) -> Object:
    """What the API server adds to a new object."""
    made = copy.deepcopy(body)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    made["metadata"] |= {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now, "generation": 1}
    made.setdefault("status", {})
    if resource == "jobs":
        labels = made["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {})
        labels |= {"batch.kubernetes.io/job-name": made["metadata"]["name"], "job-name": made["metadata"]["name"]}
    return made


def _merged(old: Any, new: Any) -> Any:
    """JSON Merge Patch (RFC 7396)."""
    if not isinstance(new, dict):
        return new
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in new.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged


def _matches(found: Object, query: dict[str, str]) -> bool:
    name = query.get("fieldSelector", "").removeprefix("metadata.name=")
    labels = found["metadata"].get("labels") or {}
    wanted = [one.partition("=") for one in query.get("labelSelector", "").split(",") if one]
    fits = all(labels.get(label) == value if equals else label in labels for label, equals, value in wanted)
    return (not name or found["metadata"]["name"] == name) and fits
